"""The recursive problem: shares counted by hand on a few replies, and what can't be known."""

import numpy as np
import pytest

from charter.audit.evidence import Features, Pairs, read_evidence
from charter.audit.recursive import Replies, audit_recursion, blind_spots, difference, one_principle
from charter.records import EvaluatedResponse, Message, Prompt, Reading, ResponsePair
from charter.regression import cluster_index
from charter.statistics import proportion, unknown


def reply(policy, number, **attributes):
    prompt = Prompt(id=f"p{number}", messages=(Message("user", "hello"),))
    return EvaluatedResponse(policy, prompt, "yes .", Reading(gold=0.0, attributes=attributes), 2, 2, False, 0.0, 0.0)


def replies(level_SN, **attributes):
    names = ("initial", "sl-cai", "rl-cai")
    level_SNK = np.array(level_SN, dtype=float)[:, :, None]
    own = [
        {key: values[s] if isinstance(values, tuple) else values for key, values in attributes.items()}
        for s in range(3)
    ]
    rows = tuple(
        tuple(reply(name, n, **told) for n in range(level_SNK.shape[1])) for name, told in zip(names, own, strict=True)
    )
    return Replies(names, rows, level_SNK)


def test_a_principle_that_never_applies_to_a_prompt_leaves_it_out():
    nan = np.nan
    told = replies([[1, 0, 0, nan], [1, 0, nan, nan], [1, 1, 0, nan]])
    row, change = one_principle(told, told.broken_SNK[:, :, 0], None)
    assert [row["keeping"][name]["value"] for name in told.names] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert {row["keeping"][name]["n"] for name in told.names} == {3}
    assert change.value == 0 and change.n == 3  # one mended, one broken
    assert row["judging"]["value"] is None and row["judging"]["reason"]
    assert row["judging_minus_keeping"]["initial"]["value"] is None


def test_difference_of_two_shares_has_newcombes_interval():
    # Newcombe 1998 (Statistics in Medicine 17:873), table II, example a: 56/70 - 48/80, method 10
    found = difference(proportion([i < 56 for i in range(70)]), proportion([i < 48 for i in range(80)]))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert difference(unknown("no judgment"), found).reason == "no judgment"


def erring_pairs(num, wrong):
    """The labeler prefers A, which is ``warm``; gold agrees but for the first ``wrong`` pairs."""
    prompts = [Prompt(id=f"q{i}", messages=(Message("user", f"hello {i}"),)) for i in range(num)]
    pairs = tuple(ResponsePair(f"x{i}", prompt, "a", "b") for i, prompt in enumerate(prompts))
    gold_P = np.array([-1.0 if i < wrong else 1.0 for i in range(num)])
    warm = np.random.default_rng(0).choice([0.0, 1.0, 2.0], size=(num, 1))
    return Pairs(
        pairs, ("honest",), np.ones(1), gold_P, gold_P[:, None], np.ones(num), np.full((num, 1, 2), 1.0), gold_P * 0,
        Features(("warm",), warm), cluster_index([pair.prompt.id for pair in pairs]),
    )  # fmt: skip


def test_a_feature_of_the_errors_that_the_policy_grew_into():
    grown = replies([[1] * 30] * 3, warm=(0.0, 0.0, 1.0))
    found = blind_spots(erring_pairs(100, 40), grown)
    assert found["errors"]["value"] == pytest.approx(0.4)
    spot = next(row for row in found["spots"] if row["name"] == "warm")
    assert spot["wrongly_preferred_has_more"]["low"] > 0 and spot["policy_moved_that_way"]
    assert spot["share_of_replies"]["sl-cai"]["value"] == 0 and spot["share_of_replies"]["rl-cai"]["value"] == 1
    still = blind_spots(erring_pairs(100, 40), replies([[1] * 30] * 3, warm=(0.0, 1.0, 1.0)))
    assert not next(row for row in still["spots"] if row["name"] == "warm")["policy_moved_that_way"]


def test_few_errors_show_nothing():
    found = blind_spots(erring_pairs(100, 5), replies([[1] * 30] * 3, warm=1.0))
    assert found["spots"] == [] and "5 pairs" in found["reason"]


def test_a_run_without_gold_or_constitution(planted, clean_run, tmp_path):
    assert audit_recursion(read_evidence(clean_run), {})["reason"] is None
    planted.write(planted.draw_world(5), tmp_path / "run")
    config = tmp_path / "run" / "run.yaml"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "gold" not in line))
    found = audit_recursion(read_evidence(tmp_path / "run"), {})
    assert found["by_principle"] == {} and "evaluate.gold" in found["reason"]
