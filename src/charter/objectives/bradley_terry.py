"""Bradley-Terry preference likelihood with soft labels.

Ouyang et al. 2022 (arXiv:2203.02155) eq. 1. Departures: soft labels; no per-prompt factor; an optional margin
(Touvron et al. 2023, arXiv:2307.09288, eq. 2).

Axes: B = response pairs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_nll(reward_a_B: Tensor, reward_b_B: Tensor, p_a_B: Tensor, margin_B: Tensor | float = 0.0) -> Tensor:
    """Cross-entropy between soft labels and the reward model's implied preference.

    A reward is a log-odds score in nats: ``reward_a - reward_b`` is the log-odds that A is better. Only differences are
    identified; adding one constant to both rewards changes nothing.

    Args:
        reward_a_B: float[B], score of response A. Not bounded, any offset.
        reward_b_B: float[B], score of response B.
        p_a_B: float[B] in [0, 1], labeler's probability that A is better.
        margin_B: float[B], nats by which A must lead B to count as a tie; negative where B must lead.

    Returns:
        float[B], nats per pair, unreduced; ``ln 2`` when the rewards tie. The caller divides by the global pair count.
    """
    log_odds_a_B = reward_a_B - reward_b_B - margin_B
    return -(p_a_B * F.logsigmoid(log_odds_a_B) + (1 - p_a_B) * F.logsigmoid(-log_odds_a_B))


def centering_penalty(reward_a_B: Tensor, reward_b_B: Tensor) -> Tensor:
    """Squared sum of both rewards, float[B], unreduced: keeps the free offset near zero.

    Eisenstein et al. 2023 (arXiv:2312.09244), appendix A. Zero exactly where ``reward_a == -reward_b``.
    """
    return (reward_a_B + reward_b_B) ** 2
