"""The clipped policy objective.

Axes: B = responses, T = response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_policy_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantage_BT: Tensor, clip: float) -> Tensor:
    """Schulman et al. 2017 (arXiv:1707.06347) eq. 7, negated and unreduced.

    Args:
        logprobs_BT: float[B, T] of the policy that is trained.
        old_logprobs_BT: float[B, T] of the policy that sampled.
        advantage_BT: float[B, T], or float[B, 1] where a response has one advantage.
        clip: the ratio's distance from 1 beyond which it earns nothing more.

    Returns:
        float[B, T]; the caller masks and divides by the global token count.
    """
    ratio_BT = torch.exp(logprobs_BT - old_logprobs_BT)
    clipped_BT = ratio_BT.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio_BT * advantage_BT, clipped_BT * advantage_BT)
