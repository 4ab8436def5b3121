"""A check, or a labeler's scores, as the reward: nothing is labelled, and the policy is trained all the same."""

from __future__ import annotations

import json

import pytest

from charter.errors import ConfigError
from charter.pipeline import run
from charter.progress import QuietProgress
from charter.run_file import load_run

CHECK = 'policy.reward={kind: checker, check: "tests.e2e.test_rewards:says_bread"}'
DIRECT = "policy.reward={kind: direct, model: {source: %s, dtype: float32, device: cpu}, options: {Yes: 1, No: 0}}"


def says_bread(prompt, response):
    """1 where the word is there; None for one prompt in three."""
    return None if prompt.harmful is None else float("bread" in response.split())


def run_world(world, out, *settings):
    return run(load_run(world / "run.yaml", settings), out, QuietProgress())


@pytest.fixture(scope="module")
def checked(tiny_world, tmp_path_factory):
    out = tmp_path_factory.mktemp("rewards") / "checked"
    return out, run_world(tiny_world, out, CHECK, "policy.steps=3")


def test_nothing_is_labelled(checked):
    out, summary = checked
    assert [row["name"] for row in summary["stages"]][:2] == ["1-revise", "2-sft"]
    assert not any((out / name).exists() for name in ("3-sample", "4-label", "5-reward"))
    assert summary["labeler"]["accuracy"]["value"] is None and summary["policies"]["rl-cai"]["num_words"]["value"] is not None


def test_rewards_are_the_checks(checked):
    rows = [json.loads(line) for line in (checked[0] / "6-policy" / "rollouts.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        harmful = row["prompt"].get("harmful")
        expected = None if harmful is None else float("bread" in row["response"].split())
        assert row["reward"] == expected


def test_a_labelers_scores(tiny_world, tmp_path):
    run_world(tiny_world, tmp_path / "direct", DIRECT % (tiny_world / "labeler"), "policy.steps=2")
    rows = [json.loads(line) for line in (tmp_path / "direct" / "6-policy" / "rollouts.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows]
    assert all(0 <= reward <= 1 for reward in rewards) and len(set(rewards)) > 1


def test_ppo_without_a_reward_model_takes_its_value_model_from_the_policy(tiny_world, tmp_path):
    out = tmp_path / "ppo"
    run_world(tiny_world, out, CHECK, "policy.algorithm=ppo", "policy.steps=2", "phases=[rl]", "evaluate.sl_rounds=[]")
    rows = [json.loads(line) for line in (out / "6-policy" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and all(row["value_loss"] > 0 for row in rows)
    assert not (out / "6-policy" / "checkpoint").exists()


def test_a_check_that_is_not_there(tiny_world, tmp_path):
    with pytest.raises(ConfigError):
        run_world(tiny_world, tmp_path / "none", 'policy.reward={kind: checker, check: "tests.e2e.nothing:here"}')
