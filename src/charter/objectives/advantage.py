"""Advantages: how much better than expected a response, or a token of it, turned out.

Axes: P = prompts, G = responses of a prompt, B = responses, T = response tokens.
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
        float[P, G], zero where invalid and in groups with fewer than two known rewards. ``[1, 0]`` unscaled: ``[.5, -.5]``.
    """
    centred_PG, count_P1 = _centred(reward_PG, valid_PG)
    if not scale:
        return centred_PG
    variance_P1 = (centred_PG**2).sum(1, keepdim=True) / (count_P1 - 1).clamp(min=1)
    return centred_PG / (torch.sqrt(variance_P1) + EPSILON)


def leave_one_out_advantages(reward_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """Reward minus the mean reward of the *other* responses of the group: an unbiased baseline.

    Ahmadian et al. 2024 (arXiv:2402.14740) eq. 8 (RLOO). Arguments and edges as in ``group_advantages``.

    Returns:
        float[P, G]; ``[1, 0]`` gives ``[1, -1]``.
    """
    centred_PG, count_P1 = _centred(reward_PG, valid_PG)
    # r - mean of others = (r - mean) * n / (n - 1)
    return centred_PG * count_P1 / (count_P1 - 1).clamp(min=1)


def _centred(reward_PG: Tensor, valid_PG: Tensor) -> tuple[Tensor, Tensor]:
    reward_PG = reward_PG.masked_fill(~valid_PG, 0.0)
    count_P1 = valid_PG.sum(1, keepdim=True).to(reward_PG.dtype)
    mean_P1 = reward_PG.sum(1, keepdim=True) / count_P1.clamp(min=1)
    return (reward_PG - mean_P1).masked_fill(~valid_PG | (count_P1 < 2), 0.0), count_P1


def generalised_advantages(
    reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> Tensor:
    """Generalised advantage estimates: ``delta_t + gamma * lam * advantage_{t+1}``, the value after the end being zero.

    Schulman et al. 2016 (arXiv:1506.02438) eq. 16, ``delta_t = r_t + gamma * V_{t+1} - V_t``.

    Args:
        reward_BT: float[B, T], reward of each token.
        value_BT: float[B, T], expected return before each token is chosen.
        mask_BT: bool[B, T], True on the tokens of the response, which stand at the left without gaps.
        gamma: discount in [0, 1] per token.
        lam: in [0, 1]; 1 is the return minus the value, 0 the one-step error.

    Returns:
        float[B, T], zero where masked. The value's target is ``advantage + value``.
    """
    reward_BT, value_BT = reward_BT.masked_fill(~mask_BT, 0.0), value_BT.masked_fill(~mask_BT, 0.0)
    advantage_BT = torch.zeros_like(reward_BT)
    following_B, next_value_B = torch.zeros_like(reward_BT[:, 0]), torch.zeros_like(reward_BT[:, 0])
    for t in reversed(range(reward_BT.shape[1])):
        delta_B = reward_BT[:, t] + gamma * next_value_B - value_BT[:, t]
        following_B = delta_B + gamma * lam * following_B
        advantage_BT[:, t] = following_B
        next_value_B = value_BT[:, t]
    return advantage_BT.masked_fill(~mask_BT, 0.0)


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Subtract the mean and divide by the (unbiased) standard deviation of what the mask counts.

    Args:
        values_BT: float[B, T].
        mask_BT: bool[B, T]; with fewer than two tokens all is zero.

    Returns:
        float[B, T], zero where masked.
    """
    count = mask_BT.sum().to(values_BT.dtype)
    if count < 2:
        return torch.zeros_like(values_BT)
    mean = values_BT.masked_fill(~mask_BT, 0.0).sum() / count
    centred_BT = (values_BT - mean).masked_fill(~mask_BT, 0.0)
    return centred_BT / torch.sqrt((centred_BT**2).sum() / (count - 1) + 1e-8)
