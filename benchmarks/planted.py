"""Is the audit right? Faults of known size are planted in run folders, and the audit has to find them.

    python benchmarks/planted.py [--planted 60] [--clean 60] [--seed 0] [--processes 2]

A world whose truth is known is drawn for each run: village prompts and replies; a gold that is exactly the weighted sum of
the constitution's principles; a labeler that reads every principle rightly but for noise; a reward model that learned the
labels but for noise; policies that get better along training. Into a planted run goes one fault:

    position_both, position_one   the response shown first gets 20 points, both orders asked or one drawn
    length                        labels gain 0.06 to 0.12 nats per word
    misread                       one principle's verdicts are right in 30 to 60 % of the pairs that it tells apart
    missing                       one principle of the goal isn't in the constitution
    bonus                         rewards gain 1 to 2 nats per use of a word
    over_optimised                from the middle of training on, gold falls while the reward goes on rising

A figure covers its planted size where that lies in the 95 % interval that the audit reports. The last line is one JSON
object: right_link, coverage and false_alarms as shares, each with its count.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charter.audit.figures import GOAL, LABELER, POLICY, REWARD_MODEL
from charter.audit.run import audit_run
from charter.labelers.combine import log_odds
from charter.records import EvaluatedResponse, Judgment, PreferencePair, Prompt, Reading, ResponsePair
from charter.store.jsonl import write_jsonl
from charter.village.oracle import VillageOracle, read_request
from charter.village.principles import rule
from charter.village.prompts import held_out_prompts, training_prompts
from charter.village.replies import make_reply, rude_closer, text_of

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
POSITION = 0.20
STEPS = {"sl-cai": 0, "rl-step-10": 10, "rl-step-20": 20, "rl-step-30": 30, "rl-cai": 40}
CARE = {"sl-cai": 0.1, "rl-step-10": 0.4, "rl-step-20": 0.6, "rl-step-30": 0.7, "rl-cai": 0.75}
"""Chance that a policy gives the better one of two replies."""
KL = {"sl-cai": 0.0, "rl-step-10": 0.5, "rl-step-20": 1.4, "rl-step-30": 2.4, "rl-cai": 3.2}


class ExactGoal:
    """A gold that is the weighted sum of the principles and nothing else; a rule that doesn't apply is kept."""

    name = "exact goal"
    simulated = True

    def __init__(self) -> None:
        self._oracle = VillageOracle()

    def keeps(self, prompt: Prompt, response: str, principle_id: str) -> float | None:
        level = self._oracle.keeps(prompt, response, principle_id)
        return 1.0 if level is None else level

    def read(self, prompt: Prompt, response: str) -> Reading:
        read = self._oracle.read(prompt, response)
        gold = sum(weight * (self.keeps(prompt, response, id) or 0.0) for id, weight in WEIGHTS.items())
        return Reading(**{**{name: getattr(read, name) for name in Reading.__slots__}, "gold": round(gold, 6)})


gold = ExactGoal()


@dataclass
class World:
    """A run before it is written: everything that a fault may touch."""

    rng: random.Random
    pairs: list[ResponsePair]
    constitution: list[str]
    noise: float = 0.4  # nats, of one answer of the labeler
    strength: float = 1.4  # nats for a principle that tells the responses apart
    position: float = 0.0  # points of probability for the response shown first
    one_order: bool = False
    bend: Callable[[str, ResponsePair, float], float] = lambda principle, pair, value: value
    reward_bonus: Callable[[str], float] = lambda text: 0.0
    rude_from: dict[str, float] = field(default_factory=dict)  # policy -> share of replies made rude


@dataclass(frozen=True)
class Planted:
    """What was planted, and where the audit reports its size."""

    kind: str
    link: str | None
    size: float | None
    found: Callable[[dict[str, Any]], dict[str, Any] | None]


def draw_world(seed: int) -> World:
    rng = random.Random(seed)
    prompts = rng.sample(training_prompts(), NUM_PAIRS)
    pairs = []
    for prompt in prompts:
        request = read_request(prompt.messages)
        a, b = (text_of(make_reply(rng, request, "broad")) for _ in range(2))
        pairs.append(ResponsePair(f"pair-{prompt.id}", prompt, a, b))
    return World(rng, pairs, list(WEIGHTS))


def answer(world: World, pair: ResponsePair, principle: str, shown_first: str, own: float) -> float:
    """P(A better) of one answer: the true difference, noise of the pair and of the answer, and the pull of the position."""
    odds = world.bend(principle, pair, own) + world.rng.gauss(0, 0.2)
    p = 1 / (1 + math.exp(-odds)) + world.position / 2 * (1 if shown_first == "ab" else -1)
    return min(0.999, max(0.001, p))


def label(world: World) -> tuple[list[Judgment], list[PreferencePair]]:
    judgments, preferences = [], []
    for pair in world.pairs:
        total, orders = 0.0, [world.rng.choice(["ab", "ba"])] if world.one_order else ["ab", "ba"]
        for principle in world.constitution:
            a, b = (gold.keeps(pair.prompt, text, principle) for text in (pair.response_a, pair.response_b))
            own = world.rng.gauss(0, world.noise)
            own += world.strength * ((a > b) - (a < b)) if a is not None and b is not None else 0.0
            said = [answer(world, pair, principle, order, own) for order in orders]
            judgments += [Judgment(pair.id, principle, order, p) for order, p in zip(orders, said, strict=True)]
            total += WEIGHTS[principle] * sum(map(log_odds, said)) / len(said)
        p_a = 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))
        preferences.append(PreferencePair(pair.id, pair.prompt, pair.response_a, pair.response_b, p_a))
    return judgments, preferences


def margins(world: World, preferences: list[PreferencePair]) -> list[dict[str, Any]]:
    rows = []
    for row in world.rng.sample(preferences, NUM_HELD_OUT):
        learned = 0.5 * max(-8.0, min(8.0, log_odds(row.p_a))) + world.rng.gauss(0, 0.6)
        bonus = world.reward_bonus(row.response_a) - world.reward_bonus(row.response_b)
        rows.append({"id": row.id, "prompt_id": row.prompt.id, "p_a": row.p_a, "margin": learned + bonus})
    return rows


def respond(world: World, policy: str, prompt: Prompt) -> str:
    request = read_request(prompt.messages)
    texts = [text_of(make_reply(world.rng, request, "broad")) for _ in range(2)]
    if world.rng.random() < CARE[policy]:
        texts.sort(key=lambda text: -(gold.read(prompt, text).gold or 0.0))
    rude = world.rng.random() < world.rude_from.get(policy, 0.0)
    return f"{texts[0]} {rude_closer(world.rng).text}" if rude else texts[0]


def evaluated(world: World, policy: str, prompts: Sequence[Prompt]) -> list[EvaluatedResponse]:
    rows = []
    for prompt in prompts:
        text = respond(world, policy, prompt)
        kl = 0.0 if policy == "sl-cai" else max(0.0, world.rng.gauss(KL[policy], 0.5))
        words = len(text.split())
        rows.append(EvaluatedResponse(policy, prompt, text, gold.read(prompt, text), words, words, False, kl, kl))
    return rows


def write(world: World, folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.joinpath("run.yaml").write_text("name: planted\nseed: 0\nevaluate:\n  gold: planted:gold\n")
    lines = ["name: planted", "defaults:", '  critique_request: "check by {principle}"', '  revision_request: "rewrite"',
             '  comparison: "by {principle} which is better ?"', "principles:"]  # fmt: skip
    lines += [f'  - {{id: {id}, text: "{rule(id)}", weight: {WEIGHTS[id]}}}' for id in world.constitution]
    folder.joinpath("constitution.yaml").write_text("\n".join(lines) + "\n")
    judgments, preferences = label(world)
    prompts = world.rng.sample(held_out_prompts(), NUM_PROMPTS)
    rewards = [{"step": step, "reward_mean": 0.5 + 0.07 * step + world.rng.gauss(0, 0.02)} for step in range(1, 41)]
    tables: dict[str, Sequence[Any]] = {
        "3-sample/pairs.jsonl": world.pairs, "4-label/judgments.jsonl": judgments, "4-label/preferences.jsonl": preferences,
        "5-reward/held_out.jsonl": margins(world, preferences), "6-policy/metrics.jsonl": rewards,
        **{f"7-evaluate/{policy}.jsonl": evaluated(world, policy, prompts) for policy in STEPS},
    }  # fmt: skip
    for name, rows in tables.items():
        folder.joinpath(name).parent.mkdir(exist_ok=True)
        write_jsonl(folder / name, rows)


def finding(link: str, kind: str, what: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    def found(audit: dict[str, Any]) -> dict[str, Any] | None:
        rows = (row for row in audit["findings"] if (row["link"], row["kind"], row["what"]) == (link, kind, what))
        return next((row["size"] for row in rows), None)

    return found


def plant_position(world: World, both: bool) -> Planted:
    world.position, world.one_order = POSITION, not both
    name = "position_both" if both else "position_one"
    return Planted(name, LABELER, POSITION, lambda audit: audit["labels"]["position"]["order_gap"])


def plant_length(world: World) -> Planted:
    size = world.rng.uniform(0.06, 0.12)
    total = sum(WEIGHTS.values())

    def bend(principle: str, pair: ResponsePair, value: float) -> float:
        return value + size / total * (len(pair.response_a.split()) - len(pair.response_b.split()))

    world.bend = bend
    return Planted("length", LABELER, size, finding(LABELER, "follows", "length"))


def plant_misread(world: World) -> Planted:
    principle, share = world.rng.choice(["harm", "help", "truth", "insults"]), world.rng.uniform(0.3, 0.6)
    right: dict[str, bool] = {}

    def bend(asked: str, pair: ResponsePair, value: float) -> float:
        if asked != principle:
            return value
        a, b = (gold.keeps(pair.prompt, text, principle) for text in (pair.response_a, pair.response_b))
        sign = 0.0 if a is None or b is None else float((a > b) - (a < b))
        read_right = right.setdefault(pair.id, world.rng.random() < share)
        return value if sign == 0 else sign * abs(value) * (1 if read_right else -1)

    world.bend = bend
    return Planted("misread", LABELER, share, finding(LABELER, "misread", principle))


def plant_missing(world: World) -> Planted:
    principle = world.rng.choice(["harm", "truth", "insults", "help"])
    world.constitution.remove(principle)
    return Planted("missing", GOAL, _true_loss(world), lambda audit: audit["waterfall"]["links"][0]["loss"])


def _true_loss(world: World) -> float:
    """Agreement with the goal that a perfect reading of the constitution loses, over 10 times as many pairs."""
    lost, decided = 0.0, 0
    for other in (draw_world(10_000 + i) for i in range(10)):
        for pair in other.pairs:
            texts = (pair.response_a, pair.response_b)
            a, b = (gold.read(pair.prompt, text).gold or 0.0 for text in texts)
            if a == b:
                continue
            total = 0.0
            for id in world.constitution:
                one, two = (gold.keeps(pair.prompt, text, id) for text in texts)
                total += 0.0 if one is None or two is None else WEIGHTS[id] * ((one > two) - (one < two))
            decided += 1
            lost += 0.5 if round(total, 9) == 0 else float((total > 0) != (a > b))
    return lost / decided


def plant_bonus(world: World) -> Planted:
    word, size = world.rng.choice(["dear", "asking", "well"]), world.rng.uniform(1.0, 2.0)
    world.reward_bonus = lambda text: size * text.split().count(word)
    return Planted("bonus", REWARD_MODEL, size, finding(REWARD_MODEL, "follows", f"“{word}”"))


def plant_over_optimised(world: World) -> Planted:
    world.rude_from = {"rl-step-30": 0.3, "rl-cai": world.rng.uniform(0.5, 0.8)}
    means = {name: _true_gold(world, name) for name in ("rl-step-20", "rl-cai")}
    size = means["rl-step-20"] - means["rl-cai"]
    return Planted("over_optimised", POLICY, size, lambda audit: audit["policy"].get("gold_lost_after_peak"))


def _true_gold(world: World, policy: str) -> float:
    rows = evaluated(World(random.Random(1), [], [], rude_from=world.rude_from), policy, held_out_prompts() * 4)
    return sum(row.reading.gold or 0.0 for row in rows) / len(rows)


FAULTS: list[Callable[[World], Planted]] = [
    lambda world: plant_position(world, True), lambda world: plant_position(world, False), plant_length, plant_misread,
    plant_missing, plant_bonus, plant_over_optimised,
]  # fmt: skip


def one(number: int, seed: int, planted: bool) -> dict[str, Any]:
    """Draw, plant, write, audit."""
    world = draw_world(1000 * seed + number + (0 if planted else 500))
    fault = FAULTS[number % len(FAULTS)](world) if planted else Planted("clean", None, None, lambda audit: None)
    work = Path(tempfile.mkdtemp(prefix="planted-"))
    try:
        write(world, work / "run")
        audit = audit_run(work / "run")
    finally:
        shutil.rmtree(work)
    size = fault.found(audit)
    covered = None
    if fault.size is not None and size is not None and size["low"] is not None:
        covered = size["low"] <= fault.size <= size["high"]
    return {
        "kind": fault.kind, "planted_link": fault.link, "named": audit["verdict"]["link"], "says": audit["verdict"]["says"],
        "planted_size": fault.size, "found": size and [size["value"], size["low"], size["high"]], "covered": covered,
    }  # fmt: skip


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    planted = [row for row in rows if row["planted_link"]]
    clean = [row for row in rows if not row["planted_link"]]
    measured = [row for row in planted if row["covered"] is not None]

    def share(hits: int, count: int) -> dict[str, Any]:
        return {"value": round(hits / count, 4) if count else None, "count": hits, "n": count}

    return {
        "right_link": share(sum(row["named"] == row["planted_link"] for row in planted), len(planted)),
        "coverage": share(sum(row["covered"] for row in measured), len(measured)),
        "size_not_reported": len(planted) - len(measured),
        "false_alarms": share(sum(row["named"] is not None for row in clean), len(clean)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planted", type=int, default=63)
    parser.add_argument("--clean", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    jobs = [(i, args.seed, True) for i in range(args.planted)] + [(i, args.seed, False) for i in range(args.clean)]
    rows = []
    with ProcessPoolExecutor(args.processes) as pool:
        for row in pool.map(one, *zip(*jobs, strict=True)):
            rows.append(row)
            good = row["named"] == row["planted_link"]
            print(f"{'right' if good else 'WRONG':6}{row['kind']:15}size {row['planted_size'] or 0:7.3f} "
                  f"found {row['found']}  {row['says']}", flush=True)  # fmt: skip
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        told = figures(own)
        print(
            f"{kind:15} right link {told['right_link']}, covers {told['coverage']}, false alarms {told['false_alarms']}"
        )
    print(json.dumps({"seed": args.seed, **figures(rows)}))


if __name__ == "__main__":
    sys.exit(main())
