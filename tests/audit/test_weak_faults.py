"""Faults that are easily overlooked, and what is easily mistaken for one."""

import dataclasses

import numpy as np

from charter.audit.goal import audit_goal
from charter.audit.policy import audit_policy, curve_of
from charter.audit.reward_model import audit_reward_model


def small(planted, seed):
    world = planted.draw_world(seed)
    world.num_prompts = 20
    return world


def test_a_principle_that_the_reward_model_left_out(planted, read):
    world = small(planted, 11)
    kept = {id: weight for id, weight in planted.WEIGHTS.items() if id != "insults"}
    world.learned = lambda pair: sum(w * planted.difference(pair, id) for id, w in kept.items())
    _, findings = audit_reward_model(read(world).pairs)
    assert [f.what for f in findings if f.kind == "not_learned"] == ["insults"]
    size = next(f.size for f in findings if f.what == "insults")
    assert size.low <= 0.0 <= size.high


def test_rewards_that_saturate_follow_no_style_of_the_better_reply(planted, read):
    world = small(planted, 12)
    from worlds import gold

    def styled(pair):
        a, b = (gold.read(pair.prompt, text).gold for text in (pair.response_a, pair.response_b))
        if a == b or world.rng.random() > 0.7:
            return pair
        name = "response_a" if a > b else "response_b"
        return dataclasses.replace(pair, **{name: f"well then . {getattr(pair, name)}"})

    world.pairs = [styled(pair) for pair in world.pairs]
    world.learned = lambda pair: (
        4.0 * np.tanh(sum(w * planted.difference(pair, id) for id, w in planted.WEIGHTS.items()))
    )
    _, findings = audit_reward_model(read(world).pairs)
    assert [f.says for f in findings if f.kind == "follows"] == []


def test_weights_that_are_not_the_goals(planted, read):
    world = small(planted, 13)
    ids = sorted(planted.WEIGHTS, key=lambda id: planted.WEIGHTS[id])
    world.weights = {id: planted.WEIGHTS[other] for id, other in zip(ids, reversed(ids), strict=True)}
    _, findings = audit_goal(read(world).pairs)
    assert [f.kind for f in findings] == ["weights"]


def test_a_small_fall_is_seen_in_what_it_came_from(planted, read):
    world = planted.draw_world(14)
    world.pairs = world.pairs[:40]
    world.rude_from = {"rl-step-30": 0.1, "rl-cai": 0.35}
    evidence = read(world)
    _, findings = audit_policy(evidence, curve_of(evidence, None), "")
    assert [f.kind for f in findings] == ["over_optimisation"] and "rude" in findings[0].says
