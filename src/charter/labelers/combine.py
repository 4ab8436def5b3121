"""From the judgments of a pair to one soft label, and the position bias that both orders lay open.

    p_a = sigmoid(sharpness * sum over principles of weight * mean over orders of log-odds(A better))

Kadavath et al. 2022 and Bai et al. 2022 (arXiv:2212.08073, section 4.1) use the normalised option probabilities as soft
labels. Departures: both orders are asked and averaged in log-odds, so that a preference for a position cancels exactly;
all principles are weighed, where the paper draws one per pair.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from charter.records import Abstention, Judgment

MAX_LOG_ODDS = 16.0  # nats; one answer beyond it (p < 1e-7) says nothing more


@dataclass(frozen=True, slots=True)
class Soft:
    """How log-odds become a soft label: see ``combine``."""

    sharpness: float = 1.0
    min_log_odds: float = 0.0


NO_CHANGE = Soft()


def option_probabilities(logprob_first: float, logprob_second: float) -> tuple[float, float]:
    """Probabilities of two options, normalised between them; they are exact complements of each other."""
    log_odds = max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, logprob_first - logprob_second))
    likelier = 1 / (1 + math.exp(-abs(log_odds)))
    # 1 - likelier is exact for likelier >= 0.5, so that swapping the options swaps the numbers bit for bit
    return (likelier, 1 - likelier) if log_odds >= 0 else (1 - likelier, likelier)


def log_odds(p: float) -> float:
    """log(p / (1 - p)) in nats, limited to +-16; exactly antisymmetric for exact complements."""
    if p <= 0 or p >= 1:
        return math.copysign(MAX_LOG_ODDS, p - 0.5)
    return max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, math.log(p) - math.log(1 - p)))


def by_principle(judgments: Sequence[Judgment]) -> dict[str | None, list[Judgment]]:
    """Group the judgments of one pair by principle, in the order of first appearance."""
    grouped: dict[str | None, list[Judgment]] = {}
    for judgment in judgments:
        grouped.setdefault(judgment.principle_id, []).append(judgment)
    return grouped


def by_question(judgments: Sequence[Judgment]) -> dict[tuple[str, str | None], list[Judgment]]:
    """Group the judgments of one pair by labeler and principle: what differs within a group is the order alone."""
    grouped: dict[tuple[str, str | None], list[Judgment]] = {}
    for judgment in judgments:
        grouped.setdefault((judgment.labeler, judgment.principle_id), []).append(judgment)
    return grouped


def averaged_log_odds(judgments: Sequence[Judgment]) -> float | None:
    """Log-odds (nats) that A is better, averaged over the orders of one principle.

    None where any order abstained: one order alone would carry its position bias into the label.
    """
    readable = [j.p_a for j in judgments if j.p_a is not None]
    if len(readable) < len(judgments) or not judgments:
        return None
    return sum(log_odds(p) for p in readable) / len(readable)


def combine(
    judgments: Sequence[Judgment], weights: Mapping[str | None, float], sharpness: float, min_log_odds: float = 0.0
) -> float | Abstention:
    """The soft label ``p_a`` of one pair, or the commonest reason why no principle gave a usable answer.

    A principle whose averaged log-odds are below ``min_log_odds`` doesn't tell the two responses apart: it is heard (the
    pair isn't unreadable) and weighs nothing. Where none reaches it, the pair is undecided.
    """
    total, num_usable, num_deciding = 0.0, 0, 0
    for principle_id, group in by_principle(judgments).items():
        averaged = averaged_log_odds(group)
        if averaged is None:
            continue
        num_usable += 1
        if abs(averaged) >= min_log_odds:
            total += weights[principle_id] * averaged
            num_deciding += 1
    if num_usable == 0:
        reasons = Counter(j.abstained for j in judgments if j.abstained is not None)
        return reasons.most_common(1)[0][0] if reasons else Abstention.UNDECIDED
    return sigmoid(sharpness * total) if num_deciding else Abstention.UNDECIDED


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def follows_position(judgments: Sequence[Judgment]) -> bool | None:
    """Did the verdict on one principle stay with the position when the two responses were swapped?

    None unless both orders gave a verdict for one side.
    """
    verdicts = {j.order: j.p_a for j in judgments if j.p_a is not None and j.p_a != 0.5}
    if len(verdicts) < 2:
        return None
    return (verdicts["ab"] > 0.5) != (verdicts["ba"] > 0.5)
