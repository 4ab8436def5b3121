"""Log-probabilities and entropy from logits.

Axes: N = tokens, V = vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_logprobs(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    """Log-probability (nats) of one target per row: float[N]; logits float[N, V], targets int64[N]."""
    return torch.log_softmax(logits_NV, -1).gather(1, target_N[:, None])[:, 0]


def entropy(logits_NV: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: float[N] in [0, ln V].

    Logits of minus infinity (forbidden tokens) add nothing.
    """
    logprobs_NV = torch.log_softmax(logits_NV, -1)
    return torch.special.entr(logprobs_NV.exp()).sum(-1)
