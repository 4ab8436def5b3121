"""The clipped objectives of proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347).

Axes: B = responses, T = response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_policy_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantage_BT: Tensor, clip: float) -> Tensor:
    """Eq. 7, negated and unreduced.

    Args:
        logprobs_BT: float[B, T] of the policy that is trained.
        old_logprobs_BT: float[B, T] of the policy that sampled.
        advantage_BT: float[B, T], or float[B, 1] where a response has one advantage.
        clip: the ratio's distance from 1 beyond which it earns nothing more.

    Returns:
        float[B, T], ``-advantage`` where both policies agree; the caller masks and divides by the global token count.
    """
    ratio_BT = torch.exp(logprobs_BT - old_logprobs_BT)
    clipped_BT = ratio_BT.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio_BT * advantage_BT, clipped_BT * advantage_BT)


def is_clipped(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantage_BT: Tensor, clip: float) -> Tensor:
    """bool[B, T]: True where the clipped term is the smaller one, so that a token has no gradient."""
    ratio_BT = torch.exp(logprobs_BT - old_logprobs_BT)
    return ((ratio_BT > 1 + clip) & (advantage_BT > 0)) | ((ratio_BT < 1 - clip) & (advantage_BT < 0))


def clipped_value_loss(value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, clip: float) -> Tensor:
    """Half the squared error, or that of the value held within ``clip`` of its old one, whichever is larger; unreduced.

    Not in the paper; from its reference implementation (OpenAI baselines, ppo2).

    Args:
        value_BT: float[B, T] of the value model that is trained.
        old_value_BT: float[B, T] at the time of sampling.
        return_BT: float[B, T], what the value should have been: advantage plus old value.
        clip: in units of reward.

    Returns:
        float[B, T]; the caller masks and divides by the global token count.
    """
    held_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip, clip)
    return 0.5 * torch.maximum((value_BT - return_BT) ** 2, (held_BT - return_BT) ** 2)
