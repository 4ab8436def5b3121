"""Advantages of sampled responses within their group.

Axes: P = prompts, G = responses of a prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4  # as in TRL: a group of equal rewards gets zero advantage, not a division by zero


def group_advantages(reward_PG: Tensor, valid_PG: Tensor, scale: bool = True) -> Tensor:
    """Reward minus the group's mean, divided by the group's standard deviation.

    Shao et al. 2024 (arXiv:2402.03300), section 4.1.2; unscaled: Liu et al. 2025 (arXiv:2503.20783), Dr. GRPO.

    Args:
        reward_PG: float[P, G]; whatever stands where ``valid_PG`` is False has no influence.
        valid_PG: bool[P, G], True where a reward is known.
        scale: divide by the (unbiased) standard deviation plus 1e-4.

    Returns:
        float[P, G], zero where invalid and in groups with fewer than two known rewards.
    """
    reward_PG = reward_PG.masked_fill(~valid_PG, 0.0)
    count_P1 = valid_PG.sum(1, keepdim=True).to(reward_PG.dtype)
    mean_P1 = reward_PG.sum(1, keepdim=True) / count_P1.clamp(min=1)
    centred_PG = (reward_PG - mean_P1).masked_fill(~valid_PG | (count_P1 < 2), 0.0)
    if not scale:
        return centred_PG
    variance_P1 = (centred_PG**2).sum(1, keepdim=True) / (count_P1 - 1).clamp(min=1)
    return centred_PG / (torch.sqrt(variance_P1) + EPSILON)
