"""How far people agree where two of them labelled one pair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from charter.records import Estimate
from charter.statistics import interval_metric, krippendorff_alpha, proportion, unknown
from charter.store.labels import P_A, HumanLabel, Verdict


def agreement(labels: Sequence[HumanLabel]) -> dict[str, Any]:
    """Alpha over a = 1, tie = 0.5, b = 0 (interval metric), raw agreement, and the share of verdicts for the first one.

    Skips are left out. Raw agreement counts pairs of raters, clustered by response pair; a tie agrees with a tie alone.
    """
    verdicts: dict[str, list[Verdict]] = {}
    for label in labels:
        if label.verdict != "skip":
            verdicts.setdefault(label.pair_id, []).append(label.verdict)
    shared = {pair_id: given for pair_id, given in verdicts.items() if len(given) >= 2}
    alpha = krippendorff_alpha([[P_A[verdict] for verdict in given] for given in shared.values()], interval_metric)
    hits = [(pair_id, x == y) for pair_id, given in shared.items() for x, y in itertools.combinations(given, 2)]
    raw = proportion([hit for _, hit in hits], [pair_id for pair_id, _ in hits])
    firsts = [(label.verdict == "a") == (label.shown == "ab") for label in labels if label.verdict in ("a", "b")]
    return {
        "num_shared": len(shared),
        "alpha": (
            unknown("too few shared pairs, or one verdict throughout") if alpha is None else Estimate(alpha)
        ).to_json(),
        "raw": raw.to_json(),
        "chose_first": proportion(firsts).to_json(),
    }
