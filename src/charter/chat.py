"""Talk to the models of a run, one or two at a time.

reads   run.yaml, 2-sft*/model, 6-policy/model, 6-policy/checkpoints/step-N
        for examples 7-evaluate/initial.jsonl, 1-revise/revisions.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from charter.config import ModelConfig
from charter.errors import CharterError, ConfigError, StoreError
from charter.models.protocol import Generation, LanguageModel
from charter.records import Conversation, EvaluatedResponse, Message, RevisionChain
from charter.store.jsonl import read_jsonl
from charter.suggest import did_you_mean
from charter.yaml_io import load_yaml

LONGEST_EXAMPLE = 200  # characters
FINISH = {
    "length": "cut off at the token limit",
    "failed": "the conversation no longer fits into the model: begin another with /new",
}


def models_of(run: Path) -> dict[str, ModelConfig]:
    """The models that a run folder has, by their names in the report, from the first to the last.

    Raises:
        StoreError: no run folder there. ConfigError: its run file can't be read.
    """
    if not (run / "run.yaml").is_file():
        raise StoreError(f"{run}: no run folder there (no run.yaml): check the path")
    data = load_yaml(run / "run.yaml", ConfigError).data
    model = data.get("model") if isinstance(data, dict) else None
    start = model if isinstance(model, dict) else {}
    found = {"initial": str(start.get("source", ""))}
    for folder in sorted(run.glob("2-sft-round-*"), key=lambda path: _number(path.name)):
        found[f"sl-cai-round-{_number(folder.name)}"] = str(folder / "model")
    found["sl-cai"] = str(run / "2-sft" / "model")
    for folder in sorted((run / "6-policy" / "checkpoints").glob("step-*"), key=lambda path: _number(path.name)):
        found[f"rl-step-{_number(folder.name)}"] = str(folder)
    found["rl-cai"] = str(run / "6-policy" / "model")
    settings = {key: start[key] for key in ("dtype", "device") if key in start}
    there = {name: source for name, source in found.items() if name == "initial" or Path(source).is_dir()}
    return {name: ModelConfig.model_validate({**settings, "source": source}) for name, source in there.items()}


def _number(name: str) -> int:
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def chosen(run: Path, names: Sequence[str | None]) -> dict[str, ModelConfig]:
    """The models with these names; without any the last one.

    Raises:
        ConfigError: the run has no such model.
    """
    there = models_of(run)
    wanted = [name for name in names if name is not None] or [list(there)[-1]]
    for name in wanted:
        if name not in there:
            raise ConfigError(f"{run}: no model {name!r} in it ({', '.join(there)}): {did_you_mean(name, there)}")
    return {name: there[name] for name in wanted}


def examples_of(run: Path, num: int = 3) -> list[str]:
    """Prompts of a single turn that the run has, held-out ones first, for people who don't know what to say."""
    found: dict[str, None] = {}
    kinds: dict[str, type[EvaluatedResponse | RevisionChain]] = {
        "7-evaluate/initial.jsonl": EvaluatedResponse, "1-revise/revisions.jsonl": RevisionChain,
    }  # fmt: skip
    for name, kind in kinds.items():
        with suppress(CharterError):  # not there, or damaged: one can talk all the same
            for row in read_jsonl(run / name, kind):
                turns = row.prompt.messages
                if len(turns) == 1 and len(turns[0].content) <= LONGEST_EXAMPLE:
                    found[turns[0].content] = None
                if len(found) == num:
                    return list(found)
    return list(found)


class Talk:
    """One conversation with each of some models, which all hear the same user."""

    def __init__(self, models: dict[str, LanguageModel], max_new_tokens: int, temperature: float, seed: int) -> None:
        self._models, self._max_new_tokens, self._temperature = models, max_new_tokens, temperature
        self._seed, self._num_turns = seed, 0
        self._heard: dict[str, Conversation] = {}
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._heard = {name: () for name in self._models}

    def say(self, text: str) -> dict[str, dict[str, Any]]:
        """Say something to all models: ``{name: {text, finish_reason, num_tokens}}``."""
        self._num_turns += 1
        return {name: self._ask(name, text) for name in self._models}

    def _ask(self, name: str, text: str) -> dict[str, Any]:
        asked = (*self._heard[name], Message("user", text))
        made: Generation
        (made,) = self._models[name].generate(
            [asked],
            seeds=[self._seed + self._num_turns],
            max_new_tokens=self._max_new_tokens,
            temperature=self._temperature,
        )
        if made.finish_reason != "failed":
            self._heard[name] = (*asked, Message("assistant", made.text))
        return {"text": made.text, "finish_reason": made.finish_reason, "num_tokens": made.num_completion_tokens}
