"""Probes on states whose content is known."""

import numpy as np
import pytest

from charter.audit import probes
from charter.audit.evidence import read_evidence
from charter.regression import cluster_index


@pytest.fixture(scope="module")
def world():
    """200 prompts with two replies each; one unit of 40 leans with the label, one reply of ten is broken."""
    rng = np.random.default_rng(1)
    index_N = np.repeat(np.arange(200), 2)
    target_N = np.where(rng.random(400) < 0.1, -1.0, 1.0)
    state_ND = rng.normal(size=(400, 40))
    state_ND[:, 7] += 3 * target_N
    return state_ND, target_N, index_N


def test_what_is_there_is_read_and_the_control_is_a_coin(world):
    state_ND, target_N, index_N = world
    found = probes.probe(state_ND, target_N, index_N, "here")
    assert found["accuracy"]["low"] > 0.9 and found["accuracy"]["n"] == 400
    assert found["control"]["low"] < 0.5 < found["control"]["high"]
    assert found["selectivity"]["low"] > 0.3


def test_what_is_not_there_is_not_read(world):
    _, target_N, index_N = world
    found = probes.probe(np.random.default_rng(2).normal(size=(400, 40)), target_N, index_N, "here")
    assert found["accuracy"]["low"] < 0.5 < found["accuracy"]["high"]
    assert found["selectivity"]["low"] < 0 < found["selectivity"]["high"]


def test_a_prompts_own_fingerprint_does_not_help(world):
    """Replies of a prompt share label and state: a split that parts them would read every label."""
    _, _, index_N = world
    rng = np.random.default_rng(3)
    target_N = np.where(rng.random(200) < 0.3, -1.0, 1.0)[index_N]
    state_ND = rng.normal(size=(200, 300))[index_N]
    right_N = probes.held_out_hits(state_ND, target_N[:, None], index_N)[:, 0]
    found = probes.balanced(right_N, target_N, index_N)
    assert found.low < 0.5 < found.high


def test_controls_keep_a_prompts_labels_together(world):
    _, _, index_N = world
    target_N = np.where(np.random.default_rng(4).random(200) < 0.3, -1.0, 1.0)[index_N]
    controls = probes.dealt(target_N, index_N)
    assert len(controls) == probes.NUM_CONTROLS
    for control_N in controls:
        assert (control_N[::2] == control_N[1::2]).all() and control_N.sum() == target_N.sum()
        assert (control_N != target_N).any()


def test_both_forms_of_ridge_are_one():
    rng = np.random.default_rng(5)
    columns_ND, targets_NT = rng.normal(size=(30, 30)), rng.normal(size=(30, 2))
    narrow = probes.ridge(columns_ND[:, :30], targets_NT)
    wide = probes.ridge(np.column_stack([columns_ND, np.zeros(30)]), targets_NT)
    assert wide[:30] == pytest.approx(narrow) and wide[30] == pytest.approx(0)


def test_a_rare_class_is_not_guessed_at():
    target_N = np.where(np.arange(100) < 9, -1.0, 1.0)
    found = probes.probe(np.zeros((100, 3)), target_N, cluster_index(range(100)), "here")
    assert found["accuracy"]["value"] is None and "9" in found["accuracy"]["reason"]


def test_a_run_without_models_says_why(clean_run):
    found = probes.audit_probes(read_evidence(clean_run), None, "5-reward/model isn't there")
    assert set(found["models"]) == {"sl-cai", "rl-cai", "reward model"}
    assert all(model["layers"] == {} and "isn't there" in model["reason"] for model in found["models"].values())
