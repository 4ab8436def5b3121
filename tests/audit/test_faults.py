"""Each planted fault is laid at the right link, with its size; a clean run has none. The benchmark plants many more."""

import numpy as np
import pytest

from charter.audit.run import audit_run


@pytest.mark.parametrize(
    "number", range(7), ids=["both", "one", "length", "misread", "missing", "bonus", "over_optimised"]
)
def test_a_planted_fault(planted, number):
    row = planted.one(number, 7, True)
    assert row["named"] == row["planted_link"], row["says"]
    # of 95 % intervals one in twenty misses: how often they do is benchmarks/planted.py's to say; a miss must be a near one
    _, low, high = row["found"][:3]
    slack = 0.1 * (high - low)
    assert low - slack <= row["planted_size"] <= high + slack, (row["planted_size"], row["found"])


def test_a_clean_run_has_no_fault(clean_run):
    found = audit_run(clean_run)
    assert found["verdict"]["link"] is None and found["findings"] == []


@pytest.fixture(scope="session")
def found(clean_run):
    return audit_run(clean_run)


def test_losses_add_up(found):
    links = found["waterfall"]["links"]
    last = [row["agreement"]["value"] for row in links if row["agreement"]["value"] is not None][-1]
    assert sum(row["loss"]["value"] or 0.0 for row in links) == pytest.approx(1 - last)
    assert links[0]["agreement"]["value"] == 1.0  # this goal is what the constitution says


def test_what_needs_a_model_is_unknown_with_its_reason(found):
    policy = found["waterfall"]["links"][-1]["agreement"]
    assert policy["value"] is None and "6-policy/model" in policy["reason"]
    assert found["reward_model"]["rescored"]["value"] is None


def test_without_gold_no_loss_is_claimed(planted, tmp_path):
    folder = tmp_path / "run"
    planted.write(planted.draw_world(4), folder)
    folder.joinpath("run.yaml").write_text("name: planted\nseed: 0\n")
    found = audit_run(folder)
    assert found["gold"] is None
    assert all(row["loss"]["value"] is None for row in found["waterfall"]["links"])
    assert found["waterfall"]["links"][2]["agreement_with_previous"]["value"] > 0.8  # reward model with labeler: known
    assert not any(row["kind"] in ("misread", "missing", "over_optimisation") for row in found["findings"])


def test_every_figure_says_where_it_is_from(found):
    def figures(value):
        if isinstance(value, dict):
            if {"value", "low", "high", "n"} <= value.keys():
                yield value
            for part in value.values():
                yield from figures(part)
        elif isinstance(value, list):
            for part in value:
                yield from figures(part)

    told = [row for row in figures({k: v for k, v in found.items() if k != "findings"})]
    assert len(told) > 50
    for row in told:
        assert row["source"] and (row["value"] is not None or row["reason"])
        assert row["low"] is None or row["low"] <= row["value"] <= row["high"]
        assert row["value"] is None or np.isfinite(row["value"])
