"""Log-probabilities and entropy from logits.

Axes: N = tokens, V = vocabulary, B = responses, T = response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

ENTRIES_AT_ONCE = 1 << 18  # a megabyte, which stays in a CPU's cache


def token_logprobs(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    """Log-probability (nats) of one target per row: float[N]; logits float[N, V], targets int64[N]."""
    return torch.log_softmax(logits_NV, -1).gather(1, target_N[:, None])[:, 0]


def token_logprobs_and_entropy(logits_NV: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    """Both by one softmax; the entropy is without gradient."""
    logprobs_NV = torch.log_softmax(logits_NV, -1)
    size = max(1, ENTRIES_AT_ONCE // logits_NV.shape[1])
    entropy_N = torch.cat([_entropy(few) for few in logprobs_NV.detach().split(size)])
    return logprobs_NV.gather(1, target_N[:, None])[:, 0], entropy_N


def entropy(logits_NV: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: float[N] in [0, ln V].

    Logits of minus infinity (forbidden tokens) add nothing.
    """
    return _entropy(torch.log_softmax(logits_NV, -1))


def _entropy(logprobs_NV: Tensor) -> Tensor:
    lowest = torch.finfo(logprobs_NV.dtype).min  # 0 x -inf is no number
    return -(logprobs_NV.exp() * logprobs_NV.clamp(min=lowest)).sum(-1)


def negative_entropy_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor) -> Tensor:
    """Minus the entropy, estimated from the sampled tokens alone: value and gradient are right in expectation.

    ``p/old * log p``, log p held constant: k1 of the KL to the uniform distribution, without its constant ln V. It needs no
    gradient through the whole vocabulary. The entropy bonus of Mnih et al. 2016 (arXiv:1602.01783, section 4), estimated.

    Args:
        logprobs_BT: float[B, T] of the policy that is trained.
        old_logprobs_BT: float[B, T] of the policy that sampled; a constant.

    Returns:
        float[B, T], nats; minimising it raises the entropy.
    """
    return torch.exp(logprobs_BT - old_logprobs_BT) * logprobs_BT.detach()
