"""The parts of the page: differences, hidden characters, figures, charts, packed labels."""

import itertools
import random

import pytest

from charter.records import Abstention, Estimate, Judgment, Message
from charter.report.charts import Row, Series, _name_places, bars, dot_interval, line_with_band, reliability
from charter.report.diff import diff
from charter.report.explorer import Label
from charter.report.figures import Figure, figure, number, policy_name, policy_order
from charter.report.page import whole_percent
from charter.report.svg import domain, ticks
from charter.report.visible import clipped, visible


def test_diff_names_what_came_and_went():
    spans = diff("Only a fool would ask. Lift the pin.", "Lift the pin gently.")
    assert [(s.kind, s.text) for s in spans if s.text.strip()] == [
        ("removed", "Only a fool would ask."),
        ("same", "Lift the"),
        ("removed", "pin."),
        ("added", "pin gently."),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_diff_gives_both_texts_back(seed):
    rng = random.Random(seed)
    before, after = ((" \n"[rng.random() < 0.1]).join(rng.choices("abcdef", k=rng.randrange(25))) for _ in range(2))
    spans = diff(before, after)
    for text, left_out in ((before, "added"), (after, "removed")):
        assert "".join(s.text for s in spans if s.kind != left_out).split() == text.split()


def test_long_texts_are_not_compared():
    spans = diff("a " * 900, "b " * 900)
    assert [s.kind for s in spans] == ["removed", "same", "added"]


@pytest.mark.parametrize(
    ("text", "shown"),
    (("a\x1bb", "a␛b"), ("\x7f", "␡"), ("\u202e", "‹U+202E›"), ("\ud800", "‹U+D800›"), ("\x85", "‹U+0085›"), ("a\nb\tc é 漢", "a\nb\tc é 漢")),
)  # fmt: skip
def test_hidden_characters(text, shown):
    assert visible(text) == shown


def test_clipping_says_so():
    assert clipped("abcdef", 4) == "abcd … [2 more characters in the run folder]"
    assert clipped("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    ((0.0, "rate", "0 %"), (0.034, "rate", "3.4 %"), (0.5, "rate", "50 %"), (1.0, "rate", "100 %"),
     (-0.537, "number", "\u22120.54"), (-0.001, "number", "0.00"), (21.26, "number", "21.3"), (12345.0, "number", "12,345")),
)  # fmt: skip
def test_numbers_for_people(value, kind, shown):
    assert number(value, kind) == shown


@pytest.mark.parametrize(
    "obj", (None, {}, {"value": None}, {"value": float("nan")}, {"value": "0.5"}, {"value": True}, [], "x")
)
def test_what_is_no_figure_is_not_known(obj):
    assert figure(obj, "gold", "because").text == "not known: because"


def test_a_figure_keeps_its_reason():
    assert figure(Estimate(None, reason="nobody reads").to_json(), "gold").text == "not known: nobody reads"


def test_policies_in_their_order():
    names = ["rl-cai", "sl-cai", "rl-step-10", "initial", "sl-cai-round-2", "rl-step-9", "sl-cai-round-1"]
    expected = ["initial", "sl-cai-round-1", "sl-cai-round-2", "sl-cai", "rl-step-9", "rl-step-10", "rl-cai"]
    assert policy_order(names) == expected
    assert policy_name("sl-cai-round-1") == "SL-CAI, 1 round"


@pytest.mark.parametrize(("low", "high"), ((0.0, 1.0), (-0.3, 0.7), (14.0, 17.2), (0.0, 1e-9), (-5e6, 3e6)))
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


@pytest.mark.parametrize("values", ([], [0.0], [0.5, 0.5], [-1.0, 2.0], [1e9]))
def test_domain_has_room(values):
    low, high = domain(values, "number")
    assert low < high and all(low <= value <= high for value in values)


def test_a_dot_stands_where_its_value_is():
    svg = str(
        dot_interval(
            "k", "t", [Row("one", Figure(0.25, 0.2, 0.3, 10, kind="rate")), Row("two", Figure(1.0, kind="rate"))]
        )
    )
    left, right = 8.0, 300 - 112
    assert f'cx="{left + 0.25 * (right - left):g}"' in svg
    assert f'cx="{right:g}"' in svg


def test_unknown_figures_have_no_dot_and_say_why():
    svg = str(dot_interval("k", "t", [Row("one", Figure(None, reason="nobody <b>reads</b>"))]))
    assert "<circle" not in svg
    assert "not known: nobody &lt;b&gt;reads&lt;/b&gt;" in svg


def test_curves_of_nothing_are_not_known():
    svg = str(
        line_with_band("k", "t", [Series("gold", [(1.0, Figure(None, reason="no gold here"))])], "step", "number")
    )
    assert "not known: no gold here" in svg and "polyline" not in svg


def test_charts_speak_to_screen_readers():
    bins = [{"num": 3, "predicted": 0.2, "observed": 0.4}]
    for svg in (
        reliability("k", bins),
        bars("k", "t", [("a", 3)]),
        line_with_band("k", "t", [Series("s", [(1.0, Figure(2.0))])], "x", "number"),
    ):
        assert 'role="img" aria-labelledby="k-t k-d"' in svg
        assert '<title id="k-t">' in svg and '<desc id="k-d">' in svg


def _label(*judgments):
    made = [
        Judgment("x", p, order, value, None if value is not None else Abstention.REFUSED)
        for p, order, value in judgments
    ]
    return Label("x", (Message("user", "?"),), "a", "b", None, made)


def test_disagreement_needs_two_clear_verdicts():
    assert _label(("p", "ab", 0.8), ("p", "ba", 0.8), ("q", "ab", 0.2), ("q", "ba", 0.2)).disagreement
    assert not _label(("p", "ab", 0.8), ("p", "ba", 0.8), ("q", "ab", 0.45), ("q", "ba", 0.45)).disagreement
    assert not _label(("p", "ab", 0.8), ("p", "ba", 0.8), ("q", "ab", 0.1), ("q", "ba", None)).disagreement


def test_flips_and_reasons():
    label = _label(("p", "ab", 0.8), ("p", "ba", 0.2), ("q", "ab", 0.9), ("q", "ba", None))
    assert label.num_flips == 1
    assert label.reason == "refused"


def test_names_of_points_close_together_are_not_over_each_other():
    points = [(f"method {i}", (300.0 + i % 3, 40.0 + i)) for i in range(5)]
    places = _name_places(points, 35, 245)
    levels = sorted(level for _, _, level in places.values())
    assert len(places) == 5 and all(b - a >= 14 for a, b in zip(levels, levels[1:], strict=False))
    apart = _name_places([("left", (60.0, 40.0)), ("right", (200.0, 40.0))], 35, 245)
    assert apart["left"][2] == apart["right"][2]  # names that don't meet stay beside their points


@pytest.mark.parametrize("level", [20.0, 24.0, 120.0, 246.0, 250.0])
def test_names_in_the_plane_lie_between_the_axes_and_not_on_each_other(level):
    points = [(name, (280.0, level)) for name in ("Initial", "SL-CAI", "RL-CAI")]
    lines = sorted(line for _, _, line in _name_places(points, 35, 245).values())
    assert all(35 <= line <= 245 for line in lines)
    assert all(after - before >= 14 for before, after in itertools.pairwise(lines))


def test_a_label_is_rounded_as_the_script_rounds_it():
    # 0.88485 is 885 thousandths, which the script shows as 89 %; rounded at once it would be 88 %
    assert [whole_percent(p) for p in (0.88485, 0.8844, 0.5, 0.505, 1.0)] == [89, 88, 50, 51, 100]
