"""Direct preference optimisation: a Bradley-Terry likelihood whose reward is the policy itself.

Rafailov et al. 2023 (arXiv:2305.18290) eq. 7. Departure: soft labels ("conservative" DPO where they are 1 - epsilon).

Axes: B = response pairs.
"""

from __future__ import annotations

from torch import Tensor

from charter.objectives.bradley_terry import bradley_terry_nll


def implicit_reward(logprob_B: Tensor, reference_logprob_B: Tensor, beta: float) -> Tensor:
    """``beta * log(policy / reference)`` in nats, float[B]; eq. 5 without the term that depends on the prompt alone.

    Args:
        logprob_B, reference_logprob_B: float[B], log-probability of the whole response (a sum over its tokens).
        beta: > 0, the weight of the KL penalty under which this reward would be best.
    """
    return beta * (logprob_B - reference_logprob_B)


def dpo_nll(
    logprob_a_B: Tensor,
    logprob_b_B: Tensor,
    reference_logprob_a_B: Tensor,
    reference_logprob_b_B: Tensor,
    p_a_B: Tensor,
    beta: float,
) -> Tensor:
    """Cross-entropy between soft labels and the preference that the implicit rewards of A and B imply.

    Args:
        logprob_a_B, ..., reference_logprob_b_B: float[B], log-probabilities (nats) of whole responses.
        p_a_B: float[B] in [0, 1], labeler's probability that A is better.
        beta: > 0.

    Returns:
        float[B], nats per pair, unreduced; ``ln 2`` while the policy still is the reference.
    """
    reward_a_B = implicit_reward(logprob_a_B, reference_logprob_a_B, beta)
    reward_b_B = implicit_reward(logprob_b_B, reference_logprob_b_B, beta)
    return bradley_terry_nll(reward_a_B, reward_b_B, p_a_B)
