"""Rows of a run folder for other tools. Missing values are null; a tie has no chosen side and is left out, and counted.

    preferences  prompt, chosen, rejected (lists of messages), p_chosen in (0.5, 1], chosen_is (a or b), pair_id, prompt_id,
                 principle_ids, labeler, harmful, domain, votes[] {principle_id, order, p_chosen, abstained}
    sft          prompt, completion (lists of messages), source (revision or helpful)
    prompts      prompt (a list of messages), prompt_id, harmful, domain, answer

Half characters (lone surrogates) and NUL, which Parquet's and other readers refuse, become U+FFFD, and are counted. A
labeler in a local folder is named by the folder's last part: paths of this machine are nobody's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charter.errors import StoreError
from charter.records import Judgment, Message, PreferencePair, Prompt
from charter.sources import public_name
from charter.store.jsonl import read_jsonl, read_rows

Rows = list[dict[str, Any]]


@dataclass
class RunRows:
    """The three tables of a run, and what was left out or replaced."""

    preferences: Rows = field(default_factory=list)
    sft: Rows = field(default_factory=list)
    prompts: Rows = field(default_factory=list)
    num_ties: int = 0
    num_replaced: int = 0

    def tables(self) -> dict[str, Rows]:
        """Those that aren't empty, by name."""
        return {name: rows for name in ("preferences", "sft", "prompts") if (rows := getattr(self, name))}


def read_run(run: Path) -> RunRows:
    """Gather the tables of a run folder; a stage that wasn't run leaves its table empty.

    Raises:
        StoreError: no run there, or nothing in it. DataError: a file in it is broken.
    """
    found = RunRows()
    labels = run / "4-label" / "preferences.jsonl"
    if labels.is_file() and (run / "4-label" / "done.json").is_file():
        votes: dict[str, list[Judgment]] = {}
        for judgment in read_jsonl(run / "4-label" / "judgments.jsonl", Judgment):
            votes.setdefault(judgment.pair_id, []).append(judgment)
        for pair in read_jsonl(labels, PreferencePair):
            if pair.p_a == 0.5:
                found.num_ties += 1
            else:
                found.preferences.append(_preference(pair, votes.get(pair.id, [])))
    dataset = run / "2-sft" / "dataset.jsonl"
    if dataset.is_file() and (run / "2-sft" / "done.json").is_file():
        found.sft = [row for _, row in read_rows(dataset)]
    found.prompts = [_prompt(prompt) for prompt in {prompt.id: prompt for prompt in _prompts(run)}.values()]
    if not found.tables():
        raise StoreError(f"{run}: no finished labels, SFT set or prompts there: check the path, or run it first")
    for name, rows in found.tables().items():
        setattr(found, name, [_whole(row, found) for row in rows])
    return found


def _prompts(run: Path) -> Iterator[Prompt]:
    for name in ("1-revise/revisions.jsonl", "2-sft/helpful.jsonl", "3-sample/pairs.jsonl"):
        if (run / name).is_file():
            yield from (Prompt.from_json(row["prompt"]) for _, row in read_rows(run / name))


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt": [message.to_json() for message in prompt.messages],
        "prompt_id": prompt.id,
        "harmful": prompt.harmful,
        "domain": prompt.domain,
        "answer": prompt.answer,
    }


def _preference(pair: PreferencePair, judgments: list[Judgment]) -> dict[str, Any]:
    a_wins = pair.p_a > 0.5
    chosen, rejected = (pair.response_a, pair.response_b) if a_wins else (pair.response_b, pair.response_a)
    votes = [
        {
            "principle_id": vote.principle_id,
            "order": vote.order,
            "p_chosen": vote.p_a if vote.p_a is None or a_wins else 1 - vote.p_a,
            "abstained": vote.abstained,
        }
        for vote in judgments
    ]
    return {
        "prompt": [message.to_json() for message in pair.prompt.messages],
        "chosen": [Message("assistant", chosen).to_json()],
        "rejected": [Message("assistant", rejected).to_json()],
        "p_chosen": pair.p_a if a_wins else 1 - pair.p_a,
        "chosen_is": "a" if a_wins else "b",
        "pair_id": pair.id,
        "prompt_id": pair.prompt.id,
        "principle_ids": list(pair.principle_ids),
        "labeler": public_name(pair.source),
        "harmful": pair.prompt.harmful,
        "domain": pair.prompt.domain,
        "votes": votes,
    }


def _whole(value: Any, found: RunRows) -> Any:
    if isinstance(value, str):
        mended = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
        found.num_replaced += mended != value
        return mended
    if isinstance(value, list):
        return [_whole(item, found) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item, found) for key, item in value.items()}
    return value
