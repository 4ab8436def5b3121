"""Negative log-likelihood of response tokens."""

from __future__ import annotations

from torch import Tensor

from charter.objectives.reduce import masked_mean


def sft_loss(logprobs_BT: Tensor, mask_BT: Tensor, global_count: float) -> Tensor:
    """Mean NLL in nats per token.

    Args:
        logprobs_BT: float[B, T] <= 0, log-probability of each target token.
        mask_BT: bool[B, T], True where a token counts.
        global_count: tokens that count in the whole batch.
    """
    return -masked_mean(logprobs_BT, mask_BT, global_count)
