"""Rewards from several sources: normalised over the step, weighted, routed; the same for any number of processes."""

from __future__ import annotations

import math
import statistics

import pytest

from charter.config import PolicyConfig, RewardConfig, RewardSource
from charter.errors import ConfigError
from charter.records import Message, Prompt
from charter.stages.rewards import Part, PartRewards, cautious, check_routes, prompts_of
from charter.training.rollout import Rollout

PROMPTS = [
    Prompt(f"p{i}", (Message("user", "?"),), domain=domain) for i, domain in enumerate(["math", None, "code", "math"])
]
ROLLOUTS = [Rollout(p.id, [1], [i, g], True) for i, p in enumerate(PROMPTS) for g in range(3)]


def first(rollouts):
    return [3.0 * r.response_ids[0] + r.response_ids[1] ** 2 for r in rollouts]


def second(rollouts):
    """Abstains on one response of each prompt."""
    return ["unreadable" if r.response_ids[1] == 1 else 100.0 * r.response_ids[0] - 5 for r in rollouts]


def mixed(normalise=True):
    ids = frozenset(p.id for p in PROMPTS[:2])
    return PartRewards([Part("a", 1.0, None, first), Part("b", 3.0, ids, second)], normalise)


def test_each_source_is_normalised_on_its_own_and_weighted():
    rewards, told = mixed().combine(mixed().score(ROLLOUTS))
    a = first(ROLLOUTS)
    b = {i: v for i, v in enumerate(second(ROLLOUTS)) if i < 6 and not isinstance(v, str)}
    expected = []
    for i, value in enumerate(a):
        z = (value - statistics.fmean(a)) / statistics.pstdev(a)
        if i in b:
            z = (z + 3 * (b[i] - statistics.fmean(b.values())) / statistics.pstdev(b.values())) / 4
        expected.append(z)
    assert rewards == pytest.approx(expected)
    assert told["sources"]["b"]["abstained"] == {"unreadable": 2} and told["sources"]["b"]["num"] == 4
    assert told["sources"]["a"]["mean"] == pytest.approx(statistics.fmean(a))


def test_two_processes_find_what_one_does():
    rewards = mixed()
    shares = rewards.score(ROLLOUTS[:3]) + rewards.score(ROLLOUTS[3:])
    assert rewards.combine(shares) == rewards.combine(rewards.score(ROLLOUTS))


def test_no_spread_is_no_signal_and_no_score_is_no_reward():
    alike = PartRewards([Part("a", 1.0, None, lambda rs: [0.1 + 0.2] * len(rs))], True)
    assert alike.combine(alike.score(ROLLOUTS))[0] == [0.0] * len(ROLLOUTS)
    silent = PartRewards([Part("a", 1.0, None, lambda rs: ["refused"] * len(rs))], True)
    rewards, told = silent.combine(silent.score(ROLLOUTS))
    assert rewards == [None] * len(ROLLOUTS)
    assert told["sources"]["a"] == {"mean": None, "std": None, "num": 0, "abstained": {"refused": len(ROLLOUTS)}}


def test_one_source_alone_keeps_its_scale_and_an_infinite_score_is_not_hidden():
    alone = PartRewards([Part("a", 1.0, None, first)], False)
    assert alone.combine(alone.score(ROLLOUTS))[0] == first(ROLLOUTS)
    broken = PartRewards([Part("a", 1.0, None, lambda rs: [math.inf] + [0.0] * (len(rs) - 1))], True)
    assert not any(math.isfinite(r) for r in broken.combine(broken.score(ROLLOUTS))[0])


def test_routes():
    domains = [("math",), "rest", "all"]
    assert [[p.id for p in prompts_of(place, domains, PROMPTS)] for place in range(3)] == [
        ["p0", "p3"],
        ["p1", "p2"],
        ["p0", "p1", "p2", "p3"],
    ]


def test_a_source_without_prompts_and_a_prompt_without_source_are_refused():
    checker = {"kind": "checker"}
    one = RewardSource(by=checker, domains=("math",))
    check_routes([one, RewardSource(by="reward-model", domains="rest")], PROMPTS)
    with pytest.raises(ConfigError, match=r"2 prompts, of domain None, have no source: give one domains: rest"):
        check_routes([one], PROMPTS)
    with pytest.raises(
        ConfigError, match=r"policy.reward\[1\].domains: no prompt is of 'maths' \(the prompts' domains: code, math\)"
    ):
        check_routes([RewardSource(by="reward-model"), RewardSource(by=checker, domains=("maths",))], PROMPTS)
    with pytest.raises(
        ConfigError, match=r"policy.reward\[0\].domains: no prompt is of 'poems'"
    ):  # beside one that is there
        check_routes([RewardSource(by=checker, domains=("math", "poems")), RewardSource(by="reward-model")], PROMPTS)


def test_forms_of_the_run_file():
    assert "reward" not in PolicyConfig().settings()
    single = PolicyConfig(reward={"kind": "checker"})
    assert single.settings()["reward"]["kind"] == "checker" and not single.needs_reward_model
    several = PolicyConfig(
        reward=[{"by": "reward-model", "domains": "rest"}, {"by": {"kind": "checker"}, "domains": ["math"]}]
    )
    assert several.needs_reward_model and PolicyConfig.model_validate(several.model_dump(mode="json")) == several


def test_an_ensemble_is_cautious_and_a_members_constant_is_no_disagreement():
    scores = [[1.0, 11.0], [2.0, 14.0], [3.0, 11.0]]  # means 2 and 12: moved to [6, 6], [7, 9], [8, 6]
    assert cautious(scores, "min") == (pytest.approx([6, 7, 6]), pytest.approx((0 + 1 + 1) / 3))
    assert cautious(scores, 0.5)[0] == pytest.approx([6, 8 - 0.5, 7 - 0.5])
    assert cautious(scores, 0.0)[0] == pytest.approx([6, 8, 7])
    moved = [[a, b + 100] for a, b in scores]
    assert cautious(moved, 1.0)[1] == pytest.approx(cautious(scores, 1.0)[1])


def test_an_ensemble_as_the_only_source_or_one_of_several():
    part = Part("reward model", 1.0, None, lambda rs: [[r.response_ids[0], 2.0 * r.response_ids[1]] for r in rs])
    alone = PartRewards([part], False, tells=False)
    rewards, told = alone.combine(alone.score(ROLLOUTS))
    assert set(told) == {"reward_spread"} and told["reward_spread"] > 0 and len(set(rewards)) > 3
    several = PartRewards([part, Part("a", 1.0, None, first)], True)
    rewards, told = several.combine(several.score(ROLLOUTS[:6]) + several.score(ROLLOUTS[6:]))
    assert sum(rewards) == pytest.approx(0, abs=1e-9) and set(told) == {"reward_spread", "sources"}


def test_settings_that_came_later_are_no_part_of_what_identifies_a_run():
    assert "ensemble" not in RewardConfig().settings() and RewardConfig(ensemble=3).settings()["ensemble"] == 3
    assert not {"caution", "monitor"} & PolicyConfig().settings().keys()
    assert PolicyConfig(monitor={"window": 3}).settings()["monitor"]["window"] == 3
