"""``charter show``: from one pair to everything that led to its label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.say import say

SAME = 1e-6


def show(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    pair: Annotated[str, typer.Argument(help="Id of a pair, or its beginning.", metavar="PAIR")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print a pair, what each principle says of it, every question as it was asked, and the label that came of it."""
    from charter.stages.provenance import provenance

    found = provenance(run, pair)
    if as_json:
        say(json.dumps(found))
        return
    for message in found["pair"]["prompt"]["messages"]:
        _text(message["role"], message["content"])
    _text("response A", found["pair"]["response_a"])
    _text("response B", found["pair"]["response_b"])
    say()
    say("P(A is better), by each principle and order:")
    _table(found["principles"])
    label = found["label"]
    said = f"P(A is better) = {label:.4f}" if label is not None else f"none: {found['abstained']}"
    say(f"\nlabel by {found['labeler']}: {said}; {found['num_tokens']:,} tokens")
    rebuilt = found["rebuilt"]
    if (label is None) != (rebuilt is None) or (label is not None and abs(label - rebuilt) > SAME):
        told = f"P(A is better) = {rebuilt:.4f}" if rebuilt is not None else "no label"
        say(f"warning: the judgments amount to {told}: the label or they were changed (4-label/)")
    for number, question in enumerate(found["questions"], 1):
        _question(number, question)


def _text(title: str, text: str) -> None:
    say(f"{title}:")
    for line in text.splitlines() or [""]:
        say(f"    {line}")


def _table(rows: list[dict[str, Any]]) -> None:
    say(
        f"{'principle':24}{'weight':>8}{'A shown first':>15}{'B shown first':>15}{'log-odds':>10}{'counts':>8}  labeler"
    )
    for row in rows:
        name = row["principle"] or "in general"
        odds = f"{row['log_odds']:+.2f}" if row["log_odds"] is not None else row["abstained"] or "-"
        counts = "yes" if row["counts"] else "no"
        p_ab, p_ba = _p(row["p_ab"]), _p(row["p_ba"])
        say(f"{name[:23]:24}{row['weight']:>8g}{p_ab:>15}{p_ba:>15}{odds:>10}{counts:>8}  {row['labeler']}")
    least = max((row["min_log_odds"] for row in rows), default=0.0)
    if least:
        say(f"verdicts below {least:g} nats don't count in the label (min_log_odds)")


def _p(p: float | None) -> str:
    return "-" if p is None else f"{p:.4f}"


def _question(number: int, question: dict[str, Any]) -> None:
    say(f"\n--- question {number}, to {question['model']} ({question['num_tokens']} tokens)")
    for message in question["conversation"]:
        _text(message["role"], message["content"])
    if question.get("prefill"):
        _text("the answer begins", question["prefill"])
    if "options" not in question:
        said = question["reply"]
        _text("reply", said if said is not None else f"({question['finish_reason']})")
    elif question["logprobs"] is None:
        say(f"no answer: {question['reason']}")
    else:
        told = (f"{o!r} {p:.4f}" for o, p in zip(question["options"], question["logprobs"], strict=True))
        say(f"log-probabilities: {', '.join(told)}")
