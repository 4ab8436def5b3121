"""Sums over masks, divided by a global count, so that no knob of batch or device changes a gradient."""

from __future__ import annotations

from torch import Tensor


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of the values where the mask is True; what stands elsewhere (even NaN) has no influence."""
    return values_BT.masked_fill(~mask_BT, 0.0).sum()


def masked_mean(values_BT: Tensor, mask_BT: Tensor, global_count: float) -> Tensor:
    """``masked_sum / global_count``; the caller counts over the whole batch, not over this piece of it."""
    return masked_sum(values_BT, mask_BT) / global_count
