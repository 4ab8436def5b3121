"""Figures with their 95 % intervals. Observations of one prompt belong together: intervals are clustered by it.

Sources: Wilson (1927) for proportions, with the effective sample size n / design effect where a cluster holds several
observations; Student's t on cluster sums for means (the linearised ratio estimator, Cochran 1977, section 3.12, eq. 3.34).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from charter.records import Estimate

Z_95 = 1.959963984540054


def unknown(reason: str) -> Estimate:
    """A figure that can't be known, and why."""
    return Estimate(None, reason=reason)


def counted(count: int, num: int) -> Estimate:
    """The share ``count`` of all ``num`` that there are: no sample, so without an interval."""
    return Estimate(count / num, None, None, num, reason="a count, no sample: no interval")


def proportion(hits: Sequence[bool], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Share of True with its Wilson interval.

    Args:
        hits: one observation each; none at all gives an Estimate without a value.
        clusters: key of the group (prompt, pair) that each observation belongs to; None: all independent.
    """
    if not hits:
        return unknown("no observations")
    n, p = len(hits), sum(hits) / len(hits)
    variance_independent = p * (1 - p) / n
    n_effective = float(n)
    if clusters is not None and variance_independent > 0:
        variance, num_clusters = _clustered_variance([float(hit) for hit in hits], clusters)
        if num_clusters < n and variance > 0:
            n_effective = min(float(n), n * variance_independent / variance)
    if n_effective <= 0:  # one cluster alone, with both answers in it
        return Estimate(p, None, None, len(hits), reason="one prompt: no interval")
    low, high = wilson(p, n_effective)
    return Estimate(p, low, high, n)


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion ``p`` in [0, 1] from ``n`` > 0 observations: 0 of 10 gives (0, 0.278)."""
    centre = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n)) / (1 + Z_95**2 / n)
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean with Student's t interval; a single cluster has a value and no interval."""
    if not values:
        return unknown("no observations")
    keys: Sequence[Hashable] = range(len(values)) if clusters is None else clusters
    value = sum(values) / len(values)
    variance, num_clusters = _clustered_variance(values, keys)
    if num_clusters < 2:
        return Estimate(value, None, None, len(values), reason="one observation: no interval")
    half = student_t_95(num_clusters - 1) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, len(values))


def share(hits: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean of hits in [0, 1], of which 0.5 is a tie: Wilson where none is tied, else Student's t cut off at 0 and 1."""
    if 0.5 not in hits:
        return proportion([hit == 1 for hit in hits], clusters)
    found = mean(hits, clusters)
    low = None if found.low is None else max(0.0, found.low)
    high = None if found.high is None else min(1.0, found.high)
    return Estimate(found.value, low, high, found.n, found.reason)


def _clustered_variance(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, int]:
    """Variance of the mean when whole clusters are drawn, and the number of clusters."""
    centre = sum(values) / len(values)
    sums: dict[Hashable, float] = {}
    for value, key in zip(values, clusters, strict=True):
        sums[key] = sums.get(key, 0.0) + value - centre
    k = len(sums)
    if k < 2:
        return math.inf, k
    return k / (k - 1) * sum(s * s for s in sums.values()) / len(values) ** 2, k


def student_t_95(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: 2.228 at 10 degrees of freedom (Abramowitz and Stegun 26.7.5)."""
    if degrees <= 2:
        return (12.706, 4.303)[degrees - 1]
    z, d = Z_95, float(degrees)
    return (
        z
        + (z**3 + z) / (4 * d)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * d**4)
    )


def calibration(p_a: Sequence[float], target: Sequence[float], num_bins: int = 10) -> dict[str, object]:
    """Reliability of predicted probabilities against (soft) targets, both in [0, 1].

    Returns ``ece``, the expected calibration error (mean distance of the two over bins of equal width, weighted by their
    size; Naeini et al. 2015), and ``bins``: low, high, num, predicted and observed means of each bin that isn't empty.
    """
    bins = []
    for index in range(num_bins):
        inside = [i for i, p in enumerate(p_a) if min(num_bins - 1, int(p * num_bins)) == index]
        if inside:
            predicted = sum(p_a[i] for i in inside) / len(inside)
            observed = sum(target[i] for i in inside) / len(inside)
            edges = {"low": index / num_bins, "high": (index + 1) / num_bins}
            bins.append({**edges, "num": len(inside), "predicted": predicted, "observed": observed})
    gaps = [row["num"] * abs(row["predicted"] - row["observed"]) for row in bins]
    return {"ece": sum(gaps) / len(p_a) if p_a else None, "bins": bins}


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


def interval_metric(a: float, b: float) -> float:
    """The interval metric."""
    return (a - b) ** 2
