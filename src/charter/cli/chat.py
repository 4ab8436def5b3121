"""``charter chat``: talk to the models of a run in the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.interrupt import interrupts, to_stderr
from charter.cli.say import MAX_SEED, say

if TYPE_CHECKING:
    from charter.chat import Talk
    from charter.config import ModelConfig


def chat(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    stage: Annotated[
        str | None,
        typer.Option(help="initial, sl-cai, rl-cai, sl-cai-round-N or rl-step-N (default: the last there is)."),
    ] = None,
    against: Annotated[str | None, typer.Option(help="A second model that hears the same, beside it.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="0: always the likeliest word.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the answers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
) -> None:
    """Talk to a model of a run, or to two side by side. Input that is no terminal: one turn a line, /new begins anew.

    \f
    JSON: run, models[], turns[] with user and replies {model: text, finish_reason, num_tokens}.
    """
    from charter.chat import Talk, chosen, examples_of

    models = chosen(run, [stage, against])

    with interrupts("stopping…") as heard:
        try:
            if not as_json:
                to_stderr(f"loading {' and '.join(models)}…")  # torch alone takes seconds
            from charter.stages.saved import opened

            with contextlib.ExitStack() as stack:
                there = {name: stack.enter_context(opened(model)) for name, model in models.items()}
                talk = Talk(there, max_new_tokens, temperature, seed)
                turns = _converse(talk, models, examples_of(run), quiet=as_json)
        except KeyboardInterrupt:
            raise typer.Exit(heard.code) from None
    if as_json:
        say(json.dumps({"run": str(run), "models": list(models), "turns": turns}))


def _converse(talk: Talk, models: dict[str, ModelConfig], examples: list[str], quiet: bool) -> list[dict[str, Any]]:
    from charter.chat import FINISH

    turns = []
    for text in _lines(models, examples, quiet):
        if text == "/new":
            talk.forget()
            continue
        replies = talk.say(text)
        turns.append({"user": text, "replies": replies})
        if quiet:
            continue
        for name, reply in replies.items():
            why = FINISH.get(reply["finish_reason"])
            say(f"{name}> {reply['text']}" + (f" ({why})" if why else ""))
    return turns


def _lines(models: dict[str, ModelConfig], examples: list[str], quiet: bool) -> Iterator[str]:
    """What the user says, until the end of the input or /quit."""
    asks = sys.stdin.isatty() and not quiet
    if asks:
        _greet(models, examples)
    while True:
        try:
            line = input("you> ") if asks else sys.stdin.readline()
        except EOFError:
            return
        if (not asks and not line) or line.strip() == "/quit":
            return
        if line.strip() == "/help":
            _greet(models, examples)
        elif line.strip():
            yield line.strip()


def _greet(models: dict[str, ModelConfig], examples: list[str]) -> None:
    for name, model in models.items():
        say(f"{name} answers: {model.source}")
    if examples:
        say("prompts of this run, to try:")
        for text in examples:
            say(f"  {text}")
    say("/new begins anew, /help says this again, /quit or Ctrl-D ends.")
