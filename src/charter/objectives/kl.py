"""Per-token estimators of KL(policy||reference) in nats (Schulman 2020, "Approximating KL divergence").

Below, p is the policy's and q the reference's probability of a token that was sampled from p.

Axes: B = responses, T = response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_RELATIVE_ERROR = 0.2


def kl_k1(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """log p - log q: unbiased, may be negative for one token. float[B, T] in, float[B, T] out."""
    return logprobs_BT - reference_logprobs_BT


def kl_k3(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): unbiased, never negative. float[B, T] in, float[B, T] out.

    A measurement, not a loss: its gradient is that of KL(reference||policy), see ``kl_k3_loss``.
    """
    log_ratio_BT = reference_logprobs_BT - logprobs_BT
    return torch.expm1(log_ratio_BT) - log_ratio_BT


def kl_k3_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """k3 weighted by p/old, so that value *and* gradient are those of KL(policy||reference), also after several updates.

    Without the weight, the gradient of k3 on samples of p is (1 - q/p) grad log p, in expectation that of
    KL(reference||policy) (DeepSeek-AI 2025, arXiv:2512.02556, section 3.1; TRL's ``use_bias_correction_kl``).

    Args:
        logprobs_BT: float[B, T] of the policy that is trained.
        old_logprobs_BT: float[B, T] of the policy that sampled; a constant.
        reference_logprobs_BT: float[B, T] of the frozen reference.

    Returns:
        float[B, T], equal to k3 while the policy is the one that sampled.
    """
    return torch.exp(logprobs_BT - old_logprobs_BT) * kl_k3(logprobs_BT, reference_logprobs_BT)


def kl_k1_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """k1, held constant and weighted by p/old: value and gradient are those of KL(policy||reference).

    Bare k1 is no loss: its gradient is that of log p, which is zero in expectation whatever the reference (Tang and Munos
    2025, arXiv:2506.09477). Held constant, k1 stands where a reward stands in the policy gradient, with the sign of a cost.
    Arguments and result as in ``kl_k3_loss``.
    """
    return torch.exp(logprobs_BT - old_logprobs_BT) * kl_k1(logprobs_BT, reference_logprobs_BT).detach()


def adaptive_kl_coef(kl_coef: float, kl: float, target: float, rate: float = 0.1) -> float:
    """The next KL coefficient: higher where the KL is above its target, lower where it is below.

    Ziegler et al. 2019 (arXiv:1909.08593), section 2.2.

    Args:
        kl_coef: >= 0, weight of the KL penalty in the step that was measured.
        kl: KL(policy||reference), nats per response.
        target: > 0, in the unit of ``kl``.
        rate: change per step and unit of relative error, which counts at most 0.2 in either direction.
    """
    error = max(-MAX_RELATIVE_ERROR, min(MAX_RELATIVE_ERROR, kl / target - 1))
    return kl_coef * (1 + rate * error)
