"""Agreement against published figures, and its properties."""

import pytest

from charter.rating.agreement import agreement
from charter.statistics import interval_metric, krippendorff_alpha

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units
FOUR_OBSERVERS = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
# the same, section A: two observers, binary
TWO_OBSERVERS = """
0 1 0 0 0 0 0 0 1 0
1 1 1 0 0 1 0 0 0 0
"""


def units(table: str) -> list[list[int]]:
    rows = [line.split() for line in table.strip().splitlines()]
    return [[int(value) for value in unit if value != "."] for unit in zip(*rows, strict=True)]


def test_published_figures():
    assert krippendorff_alpha(units(FOUR_OBSERVERS)) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(units(FOUR_OBSERVERS), interval_metric) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(units(TWO_OBSERVERS)) == pytest.approx(0.095, abs=5e-4)


def test_bounds_and_what_cannot_be_known():
    assert krippendorff_alpha([[1, 1], [2, 2]]) == 1.0
    assert krippendorff_alpha([[1, 2], [1, 2]]) == pytest.approx(-0.5)  # 1 - 3 * 4 / 8, by hand
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([[1], [2]]) is None
    assert krippendorff_alpha([[1, 1], [2, 2], [3]]) == 1.0  # a lone value says nothing


def test_agreement_of_labels(make_label):
    given = [("p", "x", "a"), ("p", "y", "a"), ("q", "x", "a"), ("q", "y", "b"), ("r", "x", "tie"), ("r", "y", "skip")]
    figures = agreement([make_label(*row) for row in given])
    assert figures["num_shared"] == 2
    assert figures["raw"]["value"] == 0.5
    assert figures["raw"]["low"] < 0.5 < figures["raw"]["high"]
    assert figures["alpha"]["value"] == pytest.approx(0.0)  # observed 2, expected 6 / 3, by hand
    assert figures["chose_first"]["value"] == 0.75


def test_agreement_of_nobody():
    figures = agreement([])
    assert figures["alpha"]["value"] is None and figures["alpha"]["reason"]
    assert figures["raw"]["value"] is None
