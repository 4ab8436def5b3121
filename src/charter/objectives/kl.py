"""Per-token estimators of KL(policy||reference) in nats (Schulman 2020, "Approximating KL divergence").

Axes: B = responses, T = response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_k1(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """log p - log q: unbiased, may be negative for one token. float[B, T] in, float[B, T] out."""
    return logprobs_BT - reference_logprobs_BT


def kl_k3(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): unbiased, never negative. float[B, T] in, float[B, T] out."""
    log_ratio_BT = reference_logprobs_BT - logprobs_BT
    return torch.expm1(log_ratio_BT) - log_ratio_BT
