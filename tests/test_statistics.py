"""Intervals against published values, and their coverage."""

from __future__ import annotations

import random

import pytest

from charter.statistics import calibration, mean, proportion, student_t_95, wilson


def test_wilson_published_values():
    assert wilson(0.0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_student_t(degrees, quantile):
    assert student_t_95(degrees) == pytest.approx(quantile, rel=5e-3)


def test_mean_by_hand():
    found = mean([1.0, 2.0, 3.0])  # sd 1, standard error 1/sqrt 3, t 4.303
    assert (found.value, found.n) == (2.0, 3)
    assert found.high == pytest.approx(2 + 4.303 / 3**0.5)
    assert mean([1.0]).low is None and mean([]).value is None and mean([]).reason


def test_repeating_each_observation_in_its_cluster_changes_no_interval():
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 0.3]
    once, thrice = mean(values), mean(values * 3, list(range(6)) * 3)
    assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))
    hits = [True] * 30 + [False] * 20
    clustered = proportion(hits * 3, list(range(50)) * 3)
    assert clustered.high - clustered.low == pytest.approx(proportion(hits).high - proportion(hits).low, rel=0.03)
    assert clustered.n == 150


def test_clustered_intervals_cover():
    """95 % intervals of 400 draws with strong clusters; naive ones would cover about 70 %."""
    rng = random.Random(2)
    covered = 0
    for _ in range(400):
        hits, clusters = [], []
        for cluster in range(40):
            p = rng.choice([0.1, 0.5, 0.9])
            hits += [rng.random() < p for _ in range(6)]
            clusters += [cluster] * 6
        found = proportion(hits, clusters)
        covered += found.low <= 0.5 <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_calibration_by_hand():
    found = calibration([0.05, 0.15, 0.95, 1.0], [0.0, 0.5, 1.0, 1.0])
    assert found["ece"] == pytest.approx((0.05 + 0.35 + 2 * 0.025) / 4)
    assert [row["num"] for row in found["bins"]] == [1, 1, 2]
