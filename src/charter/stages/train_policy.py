"""Reinforcement learning against the reward model, with a KL penalty to the model that it starts from.

reads   prompts; SL-CAI (or the helpful model) as policy and frozen reference; 5-reward/model
writes  model/               Hugging Face folder of the trained policy
        checkpoints/step-N/  the policy on the way, Hugging Face folders too
        metrics.jsonl        one row per step; rollouts.jsonl: sampled rollouts

Bai et al. 2022 (arXiv:2212.08073), section 4.1, with GRPO (Shao et al. 2024, arXiv:2402.03300) in place of PPO. In memory
are policy, reference and reward model; the labeler is not: its verdicts are in the reward model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

STAGE = "policy"
STEP = re.compile(r"step-(\d+)")


def spread_checkpoints(folder: Path, count: int) -> list[tuple[int, Path]]:
    """At most ``count`` checkpoints (step, folder), spread evenly, the last one left out: it is the trained policy."""
    steps = sorted((int(m[1]), path) for path in folder.glob("step-*") if (m := STEP.fullmatch(path.name)))[:-1]
    if count == 0 or not steps:
        return []
    if len(steps) <= count:
        return steps
    return [steps[round((i + 1) * len(steps) / (count + 1)) - 1] for i in range(count)]
