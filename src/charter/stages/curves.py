"""What the report draws: figures along the rounds of revision and along the steps of reinforcement learning.

reads   1-revise/revisions.jsonl; 6-policy/metrics.jsonl and rollouts.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.records import Prompt, RevisionChain
from charter.stages.readings import Gold, Reader
from charter.statistics import mean
from charter.store.jsonl import read_rows
from charter.summary import reading_figures

MAX_CHAINS = 400  # readings by a judge cost money; the curve needs no more


def revision_curve(chains: Sequence[RevisionChain], reader: Reader) -> list[dict[str, Any]]:
    """Figures of the revised data after each round: ``{round, num_words, harmful_rate, ...}``; round 0 is initial.

    At most the first 400 chains are read.
    """
    chains = chains[:MAX_CHAINS]
    num_rounds = max((len(chain.rounds) for chain in chains), default=0)
    curve = []
    for number in range(num_rounds + 1):
        texts = [text_after(chain, number) for chain in chains]
        readings = reader.read_all([chain.prompt for chain in chains], texts)
        rows = [(chain.prompt.harmful, reading) for chain, reading in zip(chains, readings, strict=True)]
        words = mean([float(len(text.split())) for text in texts]).to_json()
        curve.append({"round": number, **reading_figures(rows, reader.name), "num_words": words})
    return curve


def text_after(chain: RevisionChain, round: int) -> str:
    """The response as it stands after a round: the last revision up to it that isn't empty."""
    texts = [entry.revision for entry in chain.rounds[:round] if entry.revision.strip()]
    return texts[-1] if texts else chain.initial_response


def rl_curve(folder: Path, gold: Gold | None) -> list[dict[str, Any]]:
    """The training metrics of each step, with ``gold`` (mean over the step's sampled rollouts) where gold is known."""
    by_step: dict[int, list[float]] = {}
    rollouts = folder / "rollouts.jsonl"
    if gold is not None and rollouts.exists():
        for _, row in read_rows(rollouts):
            score = gold.read(Prompt.from_json(row["prompt"]), row["response"]).gold
            if score is not None:
                by_step.setdefault(row["step"], []).append(score)
    curve = []
    for _, row in read_rows(folder / "metrics.jsonl"):
        step = row["step"]
        row.pop("seconds")  # differs between runs that are otherwise the same
        curve.append({**row, "gold": mean(by_step[step]).to_json() if step in by_step else None})
    return curve


def checkpoint_curve(evaluated: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures of each evaluated checkpoint in order of steps: ``{step, policy, gold, ...}``."""
    steps = sorted(evaluated["steps"].items(), key=lambda item: item[1])
    return [{"step": step, "policy": name, **evaluated["policies"][name]} for name, step in steps]
