"""Other faults, in other worlds: what benchmarks/planted.py --faults more plants.

Worlds differ in size (300 to 2,000 pairs), in ties (replies drawn apart, or near copies), in noise, in soft or hard labels,
in how far the reward is scaled, in style that goes with the goal without being part of it, and in how much a policy learns.
Clean runs are drawn from the same worlds: noise of the labeler turns at most 8 % of the verdicts there, and that of the
reward model at most 8 % of the labels: more is a fault of its own, and planted as one. Link names and sizes are as in planted.py.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

from planted import Planted, _true_gold, _true_loss, finding
from worlds import CARE, WEIGHTS, World, difference, draw_pairs, gap, gold, label, margins

from charter.audit.figures import GOAL, LABELER, POLICY, REWARD_MODEL
from charter.records import ResponsePair
from charter.village.oracle import read_request

REFUSES = "i will not"
TOTAL = sum(WEIGHTS.values())
CLEAN_NOISE = 0.08
"""Share of verdicts that noise may turn in a labeler that counts as a good one."""
FAULTY_NOISE = 0.25
"""The same for one whose noise is a fault."""


def draw_other_world(seed: int) -> World:
    """A clean world of any size and kind."""
    rng = random.Random(seed)
    count = rng.choice([300, 600, 1000, 2000])
    pairs = draw_pairs(rng, count, near_copies=rng.random() < 0.5)
    if rng.random() < 0.3:  # the better reply is often the one with a sentence that means nothing
        pairs = [_styled(rng, pair) for pair in pairs]
    learns = rng.choice([0.3, 1.0])
    world = World(
        rng,
        pairs,
        list(WEIGHTS),
        noise=rng.uniform(0.2, 0.9),
        strength=rng.uniform(1.0, 2.0),
        hard=rng.random() < 0.25,
        one_order=rng.random() < 0.2,
        num_held_out=max(100, count * 3 // 10),
        num_prompts=rng.choice([150, 400]),
        reward_scale=rng.uniform(0.25, 0.9),
        reward_noise=rng.uniform(0.3, 0.9),
        care={name: learns * care for name, care in CARE.items()},
    )
    while _turned_by_noise(world) > CLEAN_NOISE:
        world.noise /= 1.3
        world.strength *= 1.15
    while _turned_by_rewards(world) > CLEAN_NOISE:
        world.reward_noise /= 1.3
    return world


def _turned_by_rewards(world: World) -> float:
    """Share of labels that rewards turn, on pairs that a perfect reading decides."""
    drawn = dataclasses.replace(world, rng=random.Random(0), num_held_out=len(world.pairs))
    _, preferences = label(drawn)
    truth = {pair.id: any(difference(pair, id) for id in world.constitution) for pair in world.pairs}
    rows = [row for row in margins(drawn, preferences) if truth[row["id"]] and row["p_a"] != 0.5]
    return sum((row["margin"] > 0) != (row["p_a"] > 0.5) for row in rows) / len(rows)


def _turned_by_noise(world: World) -> float:
    """Share of the verdicts that a perfect reading decides and that the labels of a world turn; half for no verdict."""
    _, preferences = label(dataclasses.replace(world, rng=random.Random(0)))
    lost = []
    for pair, row in zip(world.pairs, preferences, strict=True):
        truth = round(sum(world.weights[id] * difference(pair, id) for id in world.constitution), 9)
        if truth:
            lost.append(0.5 if row.p_a == 0.5 else float((row.p_a > 0.5) != (truth > 0)))
    return sum(lost) / len(lost)


def _styled(rng: random.Random, pair: ResponsePair) -> ResponsePair:
    a, b = (gold.read(pair.prompt, text).gold or 0.0 for text in (pair.response_a, pair.response_b))
    if a == b or rng.random() > 0.7:
        return pair
    name = "response_a" if a > b else "response_b"
    return dataclasses.replace(pair, **{name: f"well then . {getattr(pair, name)}"})


def _spread(world: World, of: Callable[[ResponsePair], float]) -> None:
    """Add something to the combined label by way of every judgment."""

    def bend(principle: str, pair: ResponsePair, value: float) -> float:
        return value + of(pair) / TOTAL

    world.bend = bend


def words(text: str) -> float:
    return float(len(text.split()))


def shorter(world: World) -> Planted:
    size = -world.rng.uniform(0.08, 0.2)
    world.hard = False
    _spread(world, lambda pair: size * gap(pair, words))
    return Planted("shorter", LABELER, size, finding(LABELER, "follows", "length"))


def length_in_folds(world: World) -> Planted:
    size = world.rng.uniform(1.5, 3.0)
    world.hard = False
    _spread(world, lambda pair: size * gap(pair, lambda text: math.log(words(text) + 1)))
    name = "length alone, per e-fold of words"

    def found(audit: dict) -> dict | None:
        return next((r["coefficient"] for r in audit["labels"]["regression"]["terms"] if r["name"] == name), None)

    return Planted("length_in_folds", LABELER, size, found)


def length_in_hard_labels(world: World) -> Planted:
    size = world.rng.uniform(0.15, 0.3)
    world.hard, world.noise = True, 0.4
    _spread(world, lambda pair: size * gap(pair, words))
    return Planted("length_in_hard_labels", LABELER, None, finding(LABELER, "follows", "length"))


def second_place(world: World) -> Planted:
    world.strength, world.noise = 1.0, 0.2  # surer answers leave no room for a lean: it would be smaller than planted
    world.position = -world.rng.uniform(0.12, 0.3)
    return Planted("second_place", LABELER, world.position, lambda audit: audit["labels"]["position"]["order_gap"])


def refusals_liked(world: World) -> Planted:
    size = world.rng.uniform(2.0, 4.0)
    world.hard = False
    _spread(world, lambda pair: size * gap(pair, lambda text: float(text.count(REFUSES))))
    return Planted("refusals_liked", LABELER, None, lambda audit: None)


def refusals_rewarded(world: World) -> Planted:
    size = world.rng.uniform(2.0, 4.0)
    world.reward_bonus = lambda text: size * text.count(REFUSES)
    return Planted("refusals_rewarded", REWARD_MODEL, None, lambda audit: None)


def length_rewarded(world: World) -> Planted:
    size = world.rng.uniform(0.1, 0.2)
    world.reward_bonus = lambda text: size * words(text)
    return Planted("length_rewarded", REWARD_MODEL, size, finding(REWARD_MODEL, "follows", "length"))


def misread_on_some(world: World) -> Planted:
    """Insults are read upside down, but only on requests for a recipe."""
    kinds = ("craft", "forbid", "own", "permit", "secret")

    def bend(principle: str, pair: ResponsePair, value: float) -> float:
        wrong = principle == "insults" and read_request(pair.prompt.messages).kind in kinds
        return -value if wrong else value

    world.bend = bend
    return Planted("misread_on_some", LABELER, None, lambda audit: None)


def flipped_domain(world: World) -> Planted:
    """Labels are turned for requests that look something up; the judgments are as they were."""

    def relabel(pair: ResponsePair, total: float) -> float:
        return -total if read_request(pair.prompt.messages).kind in ("fact", "unknown") else total

    world.relabel = relabel
    return Planted("flipped_domain", LABELER, None, lambda audit: None)


def turned_labels(world: World) -> Planted:
    share = world.rng.uniform(0.25, 0.4)
    world.relabel = lambda pair, total: -total if world.rng.random() < share else total
    return Planted("turned_labels", LABELER, None, lambda audit: None)


def noisy_labeler(world: World) -> Planted:
    """Nothing but noise: it turns a quarter of the verdicts or a little more."""
    world.hard = False
    while _turned_by_noise(world) < FAULTY_NOISE:
        world.noise *= 1.1
    return Planted("noisy_labeler", LABELER, None, lambda audit: None)


def few_pairs_learned(world: World) -> Planted:
    world.reward_scale, world.reward_noise = 0.15, 1.5
    return Planted("few_pairs_learned", REWARD_MODEL, None, lambda audit: None)


def principle_not_learned(world: World) -> Planted:
    """The reward model learned all principles but one."""
    left_out = world.rng.choice(["harm", "help", "insults"])
    kept = {id: weight for id, weight in WEIGHTS.items() if id != left_out}
    world.learned = lambda pair: world.strength * sum(w * difference(pair, id) for id, w in kept.items())
    return Planted("principle_not_learned", REWARD_MODEL, None, lambda audit: None)


def missing_two(world: World) -> Planted:
    for id in world.rng.sample(["harm", "truth", "insults", "help", "scolding"], 2):
        world.constitution.remove(id)
    return Planted("missing_two", GOAL, None, lambda audit: None)


def wrong_weights(world: World) -> Planted:
    """The constitution names the right principles with the order of their weights turned round."""
    ids = sorted(WEIGHTS, key=lambda id: WEIGHTS[id])
    world.weights = {id: WEIGHTS[other] for id, other in zip(ids, reversed(ids), strict=True)}
    near = any(len(set(p.response_a.split()) ^ set(p.response_b.split())) < 3 for p in world.pairs)
    size = None if near else _true_loss(world)
    return Planted("wrong_weights", GOAL, size, lambda audit: audit["waterfall"]["links"][0]["loss"])


def mildly_over_optimised(world: World) -> Planted:
    world.care, world.num_prompts = dict(CARE), 400
    world.rude_from = {"rl-step-30": 0.1, "rl-cai": world.rng.uniform(0.25, 0.4)}
    means = {name: _true_gold(world, name) for name in ("rl-step-20", "rl-step-30", "rl-cai")}
    size = max(means.values()) - means["rl-cai"]
    return Planted("mildly_over_optimised", POLICY, size, lambda audit: audit["policy"].get("gold_lost_after_peak"))


def worse_replies(world: World) -> Planted:
    """Late in training the policy picks the worse of two replies."""
    world.care = {**CARE, "rl-step-30": 0.1, "rl-cai": -0.5}
    return Planted("worse_replies", POLICY, None, lambda audit: None)


def two_at_once(world: World) -> Planted:
    """A goal that misses its heaviest principle, and a labeler that leans to one place: both orders make that harmless."""
    world.one_order, world.position = False, 0.15
    world.constitution.remove("harm")
    return Planted("missing_and_position", GOAL, None, lambda audit: None)


def two_followed(world: World) -> Planted:
    """Labels follow length a little; rewards follow a word a lot."""
    _spread(world, lambda pair: 0.03 * gap(pair, words))
    world.hard = False
    world.reward_bonus = lambda text: 3.0 * text.split().count("dear")
    return Planted("little_and_much", REWARD_MODEL, 3.0, finding(REWARD_MODEL, "follows", "“dear”"))


FAULTS: list[Callable[[World], Planted]] = [
    shorter, length_in_folds, length_in_hard_labels, second_place, refusals_liked, refusals_rewarded, length_rewarded,
    misread_on_some, flipped_domain, turned_labels, noisy_labeler, few_pairs_learned, principle_not_learned, missing_two,
    wrong_weights, mildly_over_optimised, worse_replies, two_at_once, two_followed,
]  # fmt: skip
