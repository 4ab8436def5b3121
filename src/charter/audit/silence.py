"""Where does the labeler say nothing? Pairs without a label are seen by no link after it, and no agreement counts them.

Per principle: of the pairs that were asked about and that it tells apart, the share without a label, beside the same share for
the other principles. Close calls have no label under any principle; a principle whose pairs surely lack one much more often
isn't taught at all.

Axes: P pairs, K principles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.evidence import NO_GOLD, Evidence
from charter.audit.figures import LABELER, Finding, figure, holm, two_sided_p
from charter.statistics import Z_95, proportion, unknown

PREFERENCES = "4-label/preferences.jsonl"
MIN_PAIRS = 20
MORE = 0.3
"""Share of pairs by which a principle has to lack labels more often than the others."""


def audit_silence(evidence: Evidence, alpha: float) -> tuple[dict[str, Any], list[Finding]]:
    """Share of pairs without a label by principle, and the principles that the labeler is silent about."""
    pairs = evidence.pairs
    asked = {judgment.pair_id for judgment in evidence.judgments}
    asked_P = np.array([pair.id in asked for pair in pairs.pairs], dtype=bool)
    if np.isnan(pairs.gold_P).all() or np.isnan(pairs.label_P).all():
        return {id: figure(unknown(NO_GOLD), PREFERENCES) for id in pairs.principle_ids}, []
    told_PK = (np.nan_to_num(pairs.level_PK) != 0) & asked_P[:, None]
    silent_P = np.isnan(pairs.label_P)
    shares = {
        id: proportion(silent_P[told_PK[:, k]].tolist(), pairs.index_P[told_PK[:, k]].tolist())
        for k, id in enumerate(pairs.principle_ids)
    }
    found = {id: figure(share, PREFERENCES) for id, share in shares.items()}
    tested = [id for id, share in shares.items() if share.n >= MIN_PAIRS and share.low is not None]
    p_values, more = [], {}
    for id in tested:
        others = [float(shares[other].value or 0.0) for other in tested if other != id]
        usual, share = float(np.median(others)) if others else 1.0, shares[id]
        more[id] = (share.value or 0.0) - usual
        error = max(1e-9, ((share.value or 0.0) - (share.low or 0.0)) / Z_95)
        p_values.append(two_sided_p(max(0.0, (more[id] - MORE) / error)) / 2)
    faults = []
    for id, p in zip(tested, holm(p_values), strict=True):
        if p <= alpha:
            k = pairs.principle_ids.index(id)
            cost = more[id] * float(told_PK[asked_P, k].mean()) / 2  # no verdict is half a point lost
            says = (
                f"{shares[id].value:.0%} of the pairs that principle {id} tells apart have no label, {100 * more[id]:.0f} points "
                "more than under the others: what it says isn't taught"
            )
            faults.append(Finding(LABELER, "silent", id, shares[id], "share without a label", p, cost, says))
    return found, faults
