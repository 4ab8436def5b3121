"""Train the reward model on soft labels, and say how far it can be trusted.

reads   4-label/preferences.jsonl   PreferencePair; SL-CAI or the helpful model to start from
writes  model/            Hugging Face sequence classifier with one output; metrics.jsonl; checkpoints while it trains
        held_out.jsonl    {id, prompt_id, p_a, margin}: the reward model on pairs that it never saw

Bai et al. 2022 (arXiv:2212.08073), section 4.1. Held-out pairs are split off by prompt, so that no prompt is on both
sides. Every figure stands beside three trivial baselines (stages/baselines.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import ModelConfig, RewardConfig
from charter.errors import DataError
from charter.progress import Progress
from charter.records import Estimate, PreferencePair
from charter.stages.baselines import agreement, baselines
from charter.stages.readings import Gold
from charter.stages.seeds import row_seed
from charter.statistics import calibration, proportion, unknown
from charter.store.jsonl import write_jsonl

STAGE = "reward"


def split_by_prompt(
    pairs: Sequence[PreferencePair], holdout_fraction: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """(train, held out): the prompts with the lowest hashes are held out, at least one and never all.

    Raises:
        DataError: all pairs are of one prompt.
    """
    prompt_ids = sorted({pair.prompt.id for pair in pairs}, key=lambda id: row_seed(seed, STAGE, "holdout", id))
    if len(prompt_ids) < 2:
        raise DataError(f"{len(prompt_ids)} prompts with a label: a reward model needs at least 2; sample more prompts")
    count = min(len(prompt_ids) - 1, max(1, round(holdout_fraction * len(prompt_ids))))
    held_out = set(prompt_ids[:count])
    return [p for p in pairs if p.prompt.id not in held_out], [p for p in pairs if p.prompt.id in held_out]


def held_out_figures(
    pairs: Sequence[PreferencePair], margins: Sequence[float], gold: Gold | None
) -> dict[str, Any]:
    """Agreement with labels and with gold, and calibration, from reward margins (A minus B, nats)."""
    p_a = [1 / (1 + math.exp(-max(-500.0, min(500.0, margin)))) for margin in margins]
    return {
        "label_agreement": agreement(margins, pairs).to_json(),
        "gold_agreement": _gold_agreement(pairs, margins, gold).to_json(),
        "calibration": calibration(p_a, [pair.p_a for pair in pairs]),
    }


def _gold_agreement(pairs: Sequence[PreferencePair], margins: Sequence[float], gold: Gold | None) -> Estimate:
    if gold is None:
        return unknown("no gold is named in the run file (evaluate.gold)")
    hits, clusters = [], []
    for pair, margin in zip(pairs, margins, strict=True):
        a, b = gold.read(pair.prompt, pair.response_a).gold, gold.read(pair.prompt, pair.response_b).gold
        if a is not None and b is not None and a != b:
            hits.append((margin > 0) == (a > b))
            clusters.append(pair.prompt.id)
    return proportion(hits, clusters) if hits else unknown("gold tells no two held-out responses apart")
