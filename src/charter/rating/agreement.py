"""How far people agree where two of them labelled one pair."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from charter.records import Estimate
from charter.statistics import proportion, unknown
from charter.store.labels import P_A, HumanLabel, Verdict


def krippendorff_alpha(
    units: Iterable[Sequence[Any]], distance: Callable[[Any, Any], float] = lambda a, b: float(a != b)
) -> float | None:
    """Krippendorff's alpha, 1 - observed / expected disagreement: 1 perfect, 0 chance, negative below it.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections C-E: any number of raters, values may be
    missing. Units with fewer than two values say nothing and are left out.

    Args:
        units: the values that raters gave to each unit.
        distance: squared difference of two values; the default is the nominal metric.

    Returns:
        None where it isn't defined: no unit with two values, or one value throughout.
    """
    observed, counts = 0.0, Counter[Hashable]()
    for values in units:
        if len(values) >= 2:
            counts.update(values)
            observed += sum(2 * distance(a, b) for a, b in itertools.combinations(values, 2)) / (len(values) - 1)
    n = counts.total()
    expected = sum(2 * counts[a] * counts[b] * distance(a, b) for a, b in itertools.combinations(counts, 2))
    return 1 - (n - 1) * observed / expected if expected else None


def interval(a: float, b: float) -> float:
    """The interval metric."""
    return (a - b) ** 2


def agreement(labels: Sequence[HumanLabel]) -> dict[str, Any]:
    """Alpha over a = 1, tie = 0.5, b = 0 (interval metric), raw agreement, and the share of verdicts for the first one.

    Skips are left out. Raw agreement counts pairs of raters, clustered by response pair; a tie agrees with a tie alone.
    """
    verdicts: dict[str, list[Verdict]] = {}
    for label in labels:
        if label.verdict != "skip":
            verdicts.setdefault(label.pair_id, []).append(label.verdict)
    shared = {pair_id: given for pair_id, given in verdicts.items() if len(given) >= 2}
    alpha = krippendorff_alpha([[P_A[verdict] for verdict in given] for given in shared.values()], interval)
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
