"""Which pairs a figure is about: those without a label, those whose prompt was trained on; and findings that are sure."""

import dataclasses

import numpy as np
import pytest

from charter.audit.drivers import Question, find_drivers
from charter.audit.evidence import read_evidence
from charter.audit.features import Features
from charter.audit.leak import audit_leak
from charter.audit.links import waterfall
from charter.report.audit import _apart, _chance, _unlabelled


@pytest.fixture(scope="session")
def pairs(clean_run):
    return read_evidence(clean_run).pairs


def test_pairs_without_a_label_get_half_a_point(pairs):
    label_P = pairs.label_P.copy()
    label_P[:100] = np.nan
    falls = waterfall(dataclasses.replace(pairs, label_P=label_P), np.full(len(label_P), np.nan), "no policy")
    told = falls["unlabelled"]
    labelled, every = told["agreement_labelled"], told["agreement_all"]
    assert told["num"] == every["n"] - labelled["n"] > 50
    points = labelled["value"] * labelled["n"] + 0.5 * told["num"]
    assert every["value"] == pytest.approx(points / every["n"])
    assert f"{told['num']:,} got none" in _unlabelled({"waterfall": falls})


def test_agreement_apart_for_prompts_that_were_trained_on(pairs):
    held_out_P = ~np.isnan(pairs.margin_P)
    texts = [tuple((m.role, m.content) for m in pair.prompt.messages) for pair in pairs.pairs]
    trained = {text for text, out in zip(texts, held_out_P, strict=True) if not out}
    shared_P = held_out_P & np.array([text in trained for text in texts])
    # the reward model is always wrong where the prompt was trained on, and always right elsewhere
    margin_P = np.where(held_out_P, np.where(shared_P, -1.0, 1.0) * np.sign(pairs.label_P), np.nan)
    told, _ = audit_leak(dataclasses.replace(pairs, margin_P=margin_P))
    assert (told["agreement_seen"]["value"], told["agreement_new"]["value"]) == (0.0, 1.0)
    assert told["agreement_seen"]["n"] == shared_P.sum() > 20
    assert told["agreement_seen"]["n"] + told["agreement_new"]["n"] == held_out_P.sum()
    assert "on new prompts" in _apart({"reward_model": {"seen": told}})


def test_no_driver_is_named_whose_interval_holds_zero():
    rng = np.random.default_rng(0)
    for _ in range(10):
        first, second = rng.normal(size=(2, 300))
        mixed = first + second + 0.6 * rng.normal(size=300)  # looks strongest, and is only the two together
        values = np.column_stack([mixed, first, second])
        outcome = (first + second)[:, None] + 0.1 * rng.normal(size=(300, 1))
        question = Question(outcome, np.ones((300, 1)), Features(("mixed", "first", "second"), values), np.arange(300))
        found = find_drivers(question)
        assert {"first", "second"} <= {driver.name for driver in found}
        assert all(driver.coefficient.low * driver.coefficient.high > 0 for driver in found)


def test_p_at_the_floor_of_the_flips_is_told_as_such():
    assert _chance({"kind": "follows", "p": 1 / 4001}) == ", p ≤ 1/4001"
    assert _chance({"kind": "misread", "p": 1e-9}) == ", p < 0.001"
    assert _chance({"kind": "follows", "p": 0.0012}) == ", p = 0.001" and _chance({"kind": "record", "p": 0.0}) == ""
