"""Does a link err where the link before is surest? Noise turns close calls; a fault turns clear ones too.

Of the pairs that the link before decides, the third that it decides most surely: a link whose errors are noise around what it
should follow makes next to none there. One that turns labels at random, or lets something else overrule them, does.

Axes: P pairs.
"""

from __future__ import annotations

import numpy as np

from charter.audit.evidence import Pairs
from charter.audit.figures import LABELER, REWARD_MODEL, Finding, two_sided_p
from charter.audit.links import credit
from charter.regression import Array
from charter.statistics import Z_95, share

CLEAREST = 2 / 3
"""Quantile of the verdicts' size from which a pair counts as clear."""
TOLERATED = 0.04
"""Share of clear pairs on which a good link may err."""
MIN_CLEAR = 20


def errs_where_clear(link: str, verdict_P: Array, truth_P: Array, pairs: Pairs, alpha: float) -> list[Finding]:
    """At most one finding: clear pairs on which verdicts surely err more often than is tolerated.

    Args:
        truth_P: the verdict of the link before, signed; the larger, the surer. NaN or 0: it doesn't decide.
    """
    wrong_P = 1 - credit(verdict_P, truth_P)
    known_P = ~np.isnan(wrong_P)
    if known_P.sum() < MIN_CLEAR:
        return []
    cost = float(wrong_P[known_P].mean())
    size_P = np.abs(truth_P)
    if (size_P[known_P] == size_P[known_P].max()).mean() > 1 - CLEAREST:  # all alike, as labels of 0 and 1 are
        size_P = np.abs(pairs.constitution_P)
        known_P = known_P & (size_P > 0)  # NaN, without gold, compares as False
    if known_P.sum() < MIN_CLEAR:
        return []
    clear_P = known_P & (size_P >= np.quantile(size_P[known_P], CLEAREST))
    if clear_P.sum() < MIN_CLEAR or clear_P.sum() > 0.6 * known_P.sum():
        return []
    errors = share(wrong_P[clear_P].tolist(), pairs.index_P[clear_P].tolist())
    if errors.value is None or errors.low is None or errors.low <= TOLERATED:
        return []
    z = (errors.value - TOLERATED) / max(1e-9, (errors.value - errors.low) / Z_95)
    p = two_sided_p(z) / 2  # one side: it errs more
    if p > alpha:
        return []
    who = {LABELER: "labels", REWARD_MODEL: "rewards"}[link]
    says = f"{who} err on {errors.value:.0%} of the clearest pairs, where noise alone would turn next to none"
    return [
        Finding(
            link, "errs_where_clear", "clear pairs", errors, "share of clear pairs", p, min(cost, errors.value), says
        )
    ]
