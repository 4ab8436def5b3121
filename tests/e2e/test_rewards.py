"""A check, or a labeler's scores, as the reward: nothing is labelled, and the policy is trained all the same."""

from __future__ import annotations

import json
import re

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
    assert (
        summary["labeler"]["accuracy"]["value"] is None
        and summary["policies"]["rl-cai"]["num_words"]["value"] is not None
    )


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


def test_several_sources_mixed_and_routed(tiny_world, tmp_path):
    """A check for one domain, an ensemble of reward models for the rest, a labeler's scores for all."""
    rows = [json.loads(line) for line in (tiny_world / "prompts.jsonl").read_text().splitlines()]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({**row, "domain": "bread" if i % 2 else None}) + "\n" for i, row in enumerate(rows))
    )
    direct = DIRECT.partition("=")[2] % (tiny_world / "labeler")
    checker = CHECK.partition("=")[2]
    sources = (
        f"[{{by: reward-model, domains: rest}}, {{by: {checker}, domains: [bread]}}, {{by: {direct}, weight: 0.5}}]"
    )
    settings = (
        "phases=[rl]",
        "evaluate.sl_rounds=[]",
        f"prompts.source={prompts}",
        "policy.steps=3",
        "reward.ensemble=2",
    )
    out = tmp_path / "several"
    summary = run_world(tiny_world, out, f"policy.reward={sources}", *settings)
    assert [stage["name"] for stage in summary["stages"]][:4] == ["3-sample", "4-label", "5-reward", "6-policy"]
    metrics = [json.loads(line) for line in (out / "6-policy" / "metrics.jsonl").read_text().splitlines()]
    model, check, scores = zip(*(row["sources"].values() for row in metrics), strict=True)
    assert list(metrics[0]["sources"])[0] == "reward model" and len(metrics[0]["sources"]) == 3
    for row in range(3):
        checked = check[row]["num"] + sum(check[row]["abstained"].values())
        assert model[row]["num"] + checked == scores[row]["num"] == 6
        assert set(check[row]["abstained"]) <= {"uncheckable"}
        assert metrics[row]["num_without_reward"] == 0, "the labeler scores them all"
    assert sum(sum(row["abstained"].values()) for row in check) > 0 and sum(row["num"] for row in check) > 0
    done = json.loads((out / "6-policy" / "done.json").read_text())
    assert re.match(r"reward model, checker tests.e2e.test_rewards:says_bread, ", done["summary"]["reward"])

    held_out = [json.loads(line) for line in (out / "5-reward" / "held_out.jsonl").read_text().splitlines()]
    assert held_out and all(row["member_margins"][0] == row["margin"] for row in held_out)
    assert any(row["member_margins"][1] != row["margin"] for row in held_out), "the members learned different things"
    assert (out / "5-reward" / "members" / "2" / "model" / "model.safetensors").is_file()
    assert all(row["reward_spread"] > 0 for row in metrics)
