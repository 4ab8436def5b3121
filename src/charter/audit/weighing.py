"""Do labels weigh the principles as the constitution does? A labeler may read each one rightly and still mind the wrong ones.

Per principle: its weight in the labels' log-odds beside its weight in the constitution, both in units of the other principles.
A labeler is surer of one principle than of another, so that only a weight below half of what is asked, or above twice, is a
fault, and only where putting it right turns verdicts. Labels of 0 and 1 don't tell how sure they are: nothing is said of them.

Axes: P pairs, K principles, C columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.drivers import turned
from charter.audit.evidence import Pairs
from charter.audit.figures import LABELER, Finding, figure, holm, two_sided_p
from charter.records import Estimate
from charter.regression import Array, least_squares
from charter.statistics import unknown

SOURCE = "4-label/preferences.jsonl"
ENOUGH = 0.5
"""Share of the constitution's weight below which a principle counts too little."""
TOO_MUCH = 2.0
"""The same above which it counts too much."""
MIN_DECIDED = 20  # pairs that the principle tells apart
MIN_COST = 0.02
SATURATED = 12.0  # nats; beyond it a label says no more of how much its principles weigh


def audit_weighing(pairs: Pairs, alpha: float) -> tuple[dict[str, Any], list[Finding]]:
    """Share of the asked weight that labels give each principle, and those that get far too little or too much."""
    shares: dict[str, Estimate] = {}
    p_values: dict[str, float] = {}
    costs: dict[str, float] = {}
    for k, id in enumerate(pairs.principle_ids):
        found = _weighed(pairs, k)
        shares[id] = unknown("labels don't tell") if found is None else found[0]
        if found is not None:
            p_values[id], costs[id] = found[1], found[2]
    faults = []
    for id, p in zip(p_values, holm(list(p_values.values())), strict=True):
        if p <= alpha and costs[id] >= MIN_COST:
            says = _says(id, shares[id].value or 0.0)
            unit = "share of the constitution's weight"
            faults.append(Finding(LABELER, "weights", id, shares[id], unit, p, costs[id], says))
    return {id: figure(share, SOURCE) for id, share in shares.items()}, faults


def _says(id: str, share: float) -> str:
    if share > 1:
        return f"principle {id} rules labels where others speak too: it weighs {share:.1f} times what the constitution asks there"
    return (
        f"principle {id} hardly moves labels where others speak too: it weighs {max(0.0, share):.0%} there of what the "
        "constitution asks, however it is read by itself"
    )


def _weighed(pairs: Pairs, k: int) -> tuple[Estimate, float, float] | None:
    """(share, chance of one so far out where half or twice is given, verdicts turned); None where it can't be told."""
    sign_PK = np.sign(np.nan_to_num(pairs.level_PK))
    known_P = ~np.isnan(pairs.label_P) & (sign_PK != 0).any(axis=1)
    if (sign_PK[known_P, k] != 0).sum() < MIN_DECIDED or len(pairs.principle_ids) < 2:
        return None
    sign_PK, label_P, index_P = sign_PK[known_P], pairs.label_P[known_P], pairs.index_P[known_P]
    if (np.abs(label_P) >= SATURATED).mean() > 0.5:
        return None
    asked = float(pairs.weights_K[k])
    others_P = np.delete(sign_PK, k, axis=1) @ np.delete(pairs.weights_K, k)
    columns_PC = np.column_stack([np.ones(len(label_P)), others_P, sign_PK[:, k]])
    unit = float(least_squares(columns_PC, label_P, index_P).coefficients_M[1])
    if unit <= 0:
        return None
    missing = least_squares(columns_PC, unit * (others_P + asked * sign_PK[:, k]) - label_P, index_P).estimate(2)
    if missing.value is None or missing.low is None or missing.high is None:
        return None
    limit, sign = (ENOUGH, 1) if missing.value > 0 else (TOO_MUCH, -1)
    beyond = least_squares(columns_PC, unit * (others_P + limit * asked * sign_PK[:, k]) - label_P, index_P)
    z = sign * float(beyond.coefficients_M[2]) / max(1e-9, beyond.standard_error(2))
    low, value, high = (1 - size / (unit * asked) for size in (missing.high, missing.value, missing.low))
    share = Estimate(value, low, high, int((sign_PK[:, k] != 0).sum()))
    return share, two_sided_p(max(0.0, z)), _turned(label_P, missing.value * sign_PK[:, k])


def _turned(label_P: Array, part_P: Array) -> float:
    return turned(label_P + part_P, part_P)
