"""What is claimed of few pairs: no lean that content explains, no link that turns nothing, no verdict at all below 30."""

import dataclasses

import numpy as np
import pytest

from charter.audit.blame import MIN_PAIRS, verdict
from charter.audit.evidence import read_evidence
from charter.audit.figures import LABELER, POLICY, REWARD_MODEL, Finding
from charter.audit.labels import audit_labels
from charter.audit.run import audit_run
from charter.audit.table import table
from charter.records import Estimate
from charter.report.audit import _verdict


@pytest.fixture
def write(planted, tmp_path):
    def write(num_pairs, **changes):
        world = planted.draw_world(31)
        world = dataclasses.replace(world, num_prompts=20, pairs=world.pairs[:num_pairs], **changes)
        planted.write(world, tmp_path / "run")
        return tmp_path / "run"

    return write


def test_both_orders_of_few_pairs_are_not_one_order(write):
    evidence = read_evidence(write(16, position=-0.2))
    assert (~np.isnan(evidence.pairs.judged_PKO)).all(), "16 pairs, every one asked in both orders"
    figures, findings = audit_labels(evidence)
    gap = figures["position"]["order_gap"]
    assert gap["value"] is None and "16" in gap["reason"] and "both orders" in gap["reason"]
    assert not [f for f in findings if f.kind == "position_bias"]


def test_one_order_is_still_told_apart(write):
    _, findings = audit_labels(read_evidence(write(600, position=-0.2, one_order=True)))
    (fault,) = [f for f in findings if f.kind == "position_bias"]
    assert "shown second" in fault.says and fault.cost > 0.05


def test_a_lean_that_both_orders_take_out_is_not_the_verdict(write):
    found = audit_run(write(600, position=0.2))
    assert [row["kind"] for row in found["findings"]] == ["position_bias"]
    assert found["verdict"]["link"] is None and "turns a verdict" in found["verdict"]["says"]


def test_too_few_pairs_to_tell(write):
    found = audit_run(write(200, num_held_out=MIN_PAIRS - 10, position=0.2))
    assert found["verdict"]["link"] is None and found["verdict"]["says"].startswith("too few pairs to tell (18;")
    assert "at fault: not known: too few" in table(found) and "lost, noise and all" not in table(found)
    assert "loses most" not in _verdict(found)


def fault(link, cost, kind="follows"):
    return Finding(link, kind, "x", Estimate(0.1, 0.05, 0.15, 40), "", 0.001, cost, f"{kind} at {link}")


def chain(**lost):
    return [{"link": link, "loss": {"value": v, "low": v, "high": v, "n": 40}} for link, v in lost.items()]


def test_the_page_says_loses_most_only_of_the_link_that_does():
    lost = chain(constitution_to_labeler=0.125, labeler_to_reward_model=0.375)
    told = verdict([fault(LABELER, 0.1)], True, 40, lost)
    assert told["link"] == LABELER
    words = _verdict({"verdict": told})
    assert "constitution → labeler loses most" not in words
    assert "Most agreement is lost at labeler → reward model, noise and all: 37.5 points" in words
    agreed = _verdict({"verdict": verdict([fault(REWARD_MODEL, 0.1)], True, 40, lost)})
    assert agreed == f"labeler → reward model loses most: follows at {REWARD_MODEL}."
    shorter = _verdict({"verdict": verdict([fault(LABELER, 0.1)], True, 40, chain(goal_to_labels=0.2))})
    assert "loses most" in shorter, "in a chain of three the first link is the labels'"


def test_a_run_without_pairs_can_have_a_policy_at_fault():
    assert verdict([fault(POLICY, 0.2)], True, None)["link"] == POLICY
    assert verdict([fault(POLICY, 0.0)], True, None)["link"] is None
