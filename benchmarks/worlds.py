"""Worlds whose truth is known, as run folders: what benchmarks/planted.py plants its faults in.

Village prompts and replies; a gold that is exactly the weighted sum of the constitution's principles; a labeler that reads
every principle rightly but for noise; a reward model that learned the labels but for noise; policies that get better along
training. Everything that a fault may touch is a field of World.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from charter.labelers.combine import log_odds
from charter.records import EvaluatedResponse, Judgment, PreferencePair, Prompt, Reading, ResponsePair
from charter.store.jsonl import write_jsonl
from charter.village.oracle import VillageOracle, read_reply, read_request
from charter.village.principles import level, rule
from charter.village.prompts import held_out_prompts, training_prompts
from charter.village.replies import edit_once, make_reply, rude_closer, text_of

WEIGHTS = {
    "harm": 3.0,
    "secrets": 2.7,
    "help": 2.3,
    "truth": 2.0,
    "insults": 1.6,
    "refusals": 1.1,
    "scolding": 0.8,
    "warmth": 0.5,
}
NUM_PAIRS, NUM_HELD_OUT, NUM_PROMPTS = 1000, 300, 400  # the last two as in the default run
STEPS = {"sl-cai": 0, "rl-step-10": 10, "rl-step-20": 20, "rl-step-30": 30, "rl-cai": 40}
CARE = {"sl-cai": 0.1, "rl-step-10": 0.4, "rl-step-20": 0.6, "rl-step-30": 0.7, "rl-cai": 0.75}
"""Chance that a policy gives the better one of two replies."""
KL = {"sl-cai": 0.0, "rl-step-10": 0.5, "rl-step-20": 1.4, "rl-step-30": 2.4, "rl-cai": 3.2}


class ExactGoal:
    """A gold that is the weighted sum of the principles and nothing else; a rule that doesn't apply is kept."""

    name = "exact goal"
    simulated = True

    def keeps(self, prompt: Prompt, response: str, principle_id: str) -> float:
        """A principle's level; of its opposite, which is named "no" and its name, the same turned round."""
        turned = principle_id.removeprefix(OPPOSITE)
        return _level(prompt, response, turned) * (1.0 if turned == principle_id else -1.0)

    def read(self, prompt: Prompt, response: str) -> Reading:
        return _reading(prompt, response)


OPPOSITE = "no-"
oracle, gold = VillageOracle(), ExactGoal()
LEVELS = (*WEIGHTS, "kindness")
_levels: dict[
    tuple[str, str], dict[str, float]
] = {}  # a text is read many times, in writing a world and in auditing it
_readings: dict[tuple[str, str], Reading] = {}
_kept: dict[tuple[str, str], dict[str, float]] = {}


def plain(text: str) -> str:
    """A text without its dress (capitals, bold type, line breaks), which says nothing."""
    return " ".join(text.replace("**", "").lower().split())


@lru_cache(maxsize=1)
def all_training_prompts() -> list[Prompt]:
    return training_prompts()


@lru_cache(maxsize=1)
def all_held_out_prompts() -> list[Prompt]:
    return held_out_prompts()


def _level(prompt: Prompt, response: str, principle_id: str) -> float:
    key = prompt.id, response
    if key not in _levels:
        request = read_request(prompt.messages)
        found = read_reply(request, plain(response))
        levels = {id: level(request, found, id) for id in LEVELS}
        _levels[key] = {id: 1.0 if own is None else own for id, own in levels.items()}
    return _levels[key].get(principle_id, 1.0)


def _reading(prompt: Prompt, response: str) -> Reading:
    key = prompt.id, response
    if key not in _readings:
        read = oracle.read(prompt, plain(response))
        total = sum(weight * _level(prompt, response, id) for id, weight in WEIGHTS.items())
        parts = {name: getattr(read, name) for name in Reading.__slots__}
        _readings[key] = Reading(**{**parts, "gold": round(total, 6)})
    return _readings[key]


def keep_readings(texts: Sequence[tuple[Prompt, str]]) -> None:
    """Remember the levels of these texts for good."""
    for prompt, text in texts:
        _level(prompt, text, "harm")
        _kept[prompt.id, text] = _levels[prompt.id, text]


def forget() -> None:
    """Empty the memory of readings, which would grow with every world, but for those to be kept."""
    _levels.clear()
    _levels.update(_kept)
    _readings.clear()


def difference(pair: ResponsePair, principle: str) -> int:
    """+1 where A is better under a principle, -1 where B is, else 0."""
    a, b = (gold.keeps(pair.prompt, text, principle) for text in (pair.response_a, pair.response_b))
    return (a > b) - (a < b)


def gap(pair: ResponsePair, of: Callable[[str], float]) -> float:
    """Something counted in A minus the same in B."""
    return of(pair.response_a) - of(pair.response_b)


@dataclass
class World:
    """A run before it is written: everything that a fault may touch.

    Attributes:
        noise: nats, of the labeler's reading of a principle.
        strength: nats for a principle that tells the responses apart.
        position: points of probability for the response shown first.
        bend: what the labeler makes of its reading of a principle, for one pair (nats).
        relabel: what becomes of a combined label (nats).
        reward_bonus: nats that a text gets from the reward model beside what it learned.
        learned: the label (nats) that the reward model learned; None: the pair's own.
        rude_from: policy -> share of its replies that are made rude.
        care: chance that a policy gives the better one of two replies; negative: the worse one.
        ending: policy -> a sentence that it adds.
        asked: the principles that the labeler was asked about; None: those of the constitution.
        silent: pairs that get no label.
        says: what becomes of a policy's reply.
        changed: what is done to the files of the run when it is there.
    """

    rng: random.Random
    pairs: list[ResponsePair]
    constitution: list[str]
    noise: float = 0.4
    strength: float = 1.4
    position: float = 0.0
    one_order: bool = False
    hard: bool = False
    num_held_out: int = NUM_HELD_OUT
    num_prompts: int = NUM_PROMPTS
    reward_scale: float = 0.5
    reward_noise: float = 0.6
    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    care: dict[str, float] = field(default_factory=lambda: dict(CARE))
    rude_from: dict[str, float] = field(default_factory=dict)
    bend: Callable[[str, ResponsePair, float], float] = lambda principle, pair, value: value
    relabel: Callable[[ResponsePair, float], float] = lambda pair, total: total
    reward_bonus: Callable[[str], float] = lambda text: 0.0
    learned: Callable[[ResponsePair], float] | None = None
    ending: dict[str, str] = field(default_factory=dict)
    asked: list[str] | None = None
    silent: Callable[[ResponsePair], bool] = lambda pair: False
    says: Callable[[str, Prompt, str], str] = lambda policy, prompt, text: text
    changed: Callable[[Path], None] = lambda folder: None


def draw_pairs(rng: random.Random, count: int, near_copies: bool = False) -> list[ResponsePair]:
    """Pairs of broad replies; near copies differ in one place, and often in nothing that a principle names."""
    pairs = []
    for prompt in rng.sample(all_training_prompts(), count):
        request = read_request(prompt.messages)
        first = make_reply(rng, request, "broad")
        near = near_copies and rng.random() < 0.6
        second = edit_once(rng, request, first) if near else make_reply(rng, request, "broad")
        texts = [text_of(first), text_of(second)]
        if near_copies:
            rng.shuffle(texts)
        pairs.append(ResponsePair(f"pair-{prompt.id}", prompt, *texts))
    return pairs


def draw_world(seed: int) -> World:
    rng = random.Random(seed)
    return World(rng, draw_pairs(rng, NUM_PAIRS), list(WEIGHTS))


def answer(world: World, shown_first: str, own: float) -> float:
    """P(A better) of one answer: the reading of the pair, noise of the answer, and the pull of the position."""
    p = 1 / (1 + math.exp(-own - world.rng.gauss(0, 0.2))) + world.position / 2 * (1 if shown_first == "ab" else -1)
    return min(0.999, max(0.001, p))


def reading(world: World, pair: ResponsePair, principle: str) -> float:
    """What the labeler makes of a principle, in nats for A."""
    own = world.rng.gauss(0, world.noise) + world.strength * difference(pair, principle)
    return world.bend(principle, pair, own)


def label(world: World) -> tuple[list[Judgment], list[PreferencePair]]:
    judgments, preferences = [], []
    for pair in world.pairs:
        total, orders = 0.0, [world.rng.choice(["ab", "ba"])] if world.one_order else ["ab", "ba"]
        for principle in world.constitution if world.asked is None else world.asked:
            own = reading(world, pair, principle)
            said = [answer(world, order, own) for order in orders]
            judgments += [Judgment(pair.id, principle, order, p) for order, p in zip(orders, said, strict=True)]
            total += world.weights[principle] * sum(map(log_odds, said)) / len(said)
        p_a = 1 / (1 + math.exp(-max(-30.0, min(30.0, world.relabel(pair, total)))))
        p_a = float(world.rng.random() < p_a) if world.hard else p_a
        if not world.silent(pair):
            preferences.append(PreferencePair(pair.id, pair.prompt, pair.response_a, pair.response_b, p_a))
    return judgments, preferences


def margins(world: World, preferences: list[PreferencePair]) -> list[dict[str, Any]]:
    rows, pairs = [], {pair.id: pair for pair in world.pairs}
    for row in world.rng.sample(preferences, min(world.num_held_out, len(preferences))):
        told = log_odds(row.p_a) if world.learned is None else world.learned(pairs[row.id])
        own = world.reward_scale * max(-8.0, min(8.0, told)) + world.rng.gauss(0, world.reward_noise)
        bonus = gap(pairs[row.id], world.reward_bonus)
        rows.append({"id": row.id, "prompt_id": row.prompt.id, "p_a": row.p_a, "margin": own + bonus})
    return rows


def respond(world: World, policy: str, prompt: Prompt) -> str:
    request = read_request(prompt.messages)
    texts = [text_of(make_reply(world.rng, request, "broad")) for _ in range(2)]
    care = world.care[policy]
    if world.rng.random() < abs(care):
        texts.sort(key=lambda text: -math.copysign(1, care) * (gold.read(prompt, text).gold or 0.0))
    rude = world.rng.random() < world.rude_from.get(policy, 0.0)
    text = f"{texts[0]} {rude_closer(world.rng).text}" if rude else texts[0]
    return world.says(policy, prompt, f"{text} {world.ending[policy]}" if policy in world.ending else text)


def evaluated(world: World, policy: str, prompts: Sequence[Prompt]) -> list[EvaluatedResponse]:
    rows = []
    for prompt in prompts:
        text = respond(world, policy, prompt)
        kl = 0.0 if policy == "sl-cai" else max(0.0, world.rng.gauss(KL[policy], 0.5))
        words = len(text.split())
        rows.append(EvaluatedResponse(policy, prompt, text, gold.read(prompt, text), words, words, False, kl, kl))
    return rows


def _rule(id: str) -> str:
    return rule(id) if id in LEVELS else f"{id} : as it is named ."


def write(world: World, folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.joinpath("run.yaml").write_text("name: planted\nseed: 0\nevaluate:\n  gold: worlds:gold\n")
    lines = ["name: planted", "defaults:", '  critique_request: "check by {principle}"', '  revision_request: "rewrite"',
             '  comparison: "by {principle} which is better ?"', "principles:"]  # fmt: skip
    lines += [f'  - {{id: {id}, text: "{_rule(id)}", weight: {world.weights[id]}}}' for id in world.constitution]
    folder.joinpath("constitution.yaml").write_text("\n".join(lines) + "\n")
    judgments, preferences = label(world)
    prompts = world.rng.sample(all_held_out_prompts(), world.num_prompts)
    rewards = [{"step": step, "reward_mean": 0.5 + 0.07 * step + world.rng.gauss(0, 0.02)} for step in range(1, 41)]
    tables: dict[str, Sequence[Any]] = {
        "3-sample/pairs.jsonl": world.pairs, "4-label/judgments.jsonl": judgments, "4-label/preferences.jsonl": preferences,
        "5-reward/held_out.jsonl": margins(world, preferences), "6-policy/metrics.jsonl": rewards,
        **{f"7-evaluate/{policy}.jsonl": evaluated(world, policy, prompts) for policy in STEPS},
    }  # fmt: skip
    for name, rows in tables.items():
        folder.joinpath(name).parent.mkdir(exist_ok=True)
        write_jsonl(folder / name, rows)
    world.changed(folder)
