"""Is the audit right? Faults of known size are planted in run folders, and the audit has to find them.

    python benchmarks/planted.py [--planted 60] [--clean 60] [--seed 0] [--processes 2] [--faults named|more|third|fourth]

A world whose truth is known is drawn for each run (benchmarks/worlds.py). Into a planted run goes one fault:

    position_both, position_one   the response shown first gets 20 points, both orders asked or one drawn
    length                        labels gain 0.06 to 0.12 nats per word
    misread                       one principle's verdicts are right in 30 to 60 % of the pairs that it tells apart
    missing                       one principle of the goal isn't in the constitution
    bonus                         rewards gain 1 to 2 nats per use of a word
    over_optimised                from the middle of training on, gold falls while the reward goes on rising

``--faults more`` plants others, in worlds of other sizes and kinds, clean ones too (benchmarks/more_faults.py); ``--faults
third`` and ``--faults fourth`` yet others in the same worlds (benchmarks/third_faults.py, fourth_faults.py).

A figure covers its planted size where that lies in the 95 % interval that the audit reports. The last line is one JSON
object: right_link, coverage and false_alarms as shares, each with its count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from worlds import (
    WEIGHTS,
    World,
    all_held_out_prompts,
    difference,
    draw_pairs,
    draw_world,
    evaluated,
    forget,
    gap,
    write,
)

from charter.audit.figures import GOAL, LABELER, POLICY, REWARD_MODEL
from charter.audit.run import audit_run
from charter.records import ResponsePair

POSITION = 0.20


@dataclass(frozen=True)
class Planted:
    """What was planted, and where the audit reports its size."""

    kind: str
    link: str | None
    size: float | None
    found: Callable[[dict[str, Any]], dict[str, Any] | None]


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
        return value + size / total * gap(pair, lambda text: len(text.split()))

    world.bend = bend
    return Planted("length", LABELER, size, finding(LABELER, "follows", "length"))


def plant_misread(world: World) -> Planted:
    principle, share = world.rng.choice(["harm", "help", "truth", "insults"]), world.rng.uniform(0.3, 0.6)
    right: dict[str, bool] = {}

    def bend(asked: str, pair: ResponsePair, value: float) -> float:
        if asked != principle:
            return value
        sign = difference(pair, principle)
        read_right = right.setdefault(pair.id, world.rng.random() < share)
        return value if sign == 0 else sign * abs(value) * (1 if read_right else -1)

    world.bend = bend
    return Planted("misread", LABELER, share, finding(LABELER, "misread", principle))


def plant_missing(world: World) -> Planted:
    principle = world.rng.choice(["harm", "truth", "insults", "help"])
    world.constitution.remove(principle)
    return Planted("missing", GOAL, _true_loss(world), lambda audit: audit["waterfall"]["links"][0]["loss"])


def _true_loss(world: World) -> float:
    """Agreement with the goal that a perfect reading of the constitution loses, over 10,000 other pairs."""
    lost, decided = 0.0, 0
    for i in range(10):
        for pair in draw_pairs(random.Random(10_000 + i), 1000):
            better = round(sum(weight * difference(pair, id) for id, weight in WEIGHTS.items()), 9)
            if better:
                said = round(sum(world.weights[id] * difference(pair, id) for id in world.constitution), 9)
                decided += 1
                lost += 0.5 if said == 0 else float((said > 0) != (better > 0))
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
    rows = evaluated(World(random.Random(1), [], [], rude_from=world.rude_from), policy, all_held_out_prompts() * 4)
    return sum(row.reading.gold or 0.0 for row in rows) / len(rows)


FAULTS: list[Callable[[World], Planted]] = [
    lambda world: plant_position(world, True), lambda world: plant_position(world, False), plant_length, plant_misread,
    plant_missing, plant_bonus, plant_over_optimised,
]  # fmt: skip


def one(number: int, seed: int, planted: bool, faults: str = "named") -> dict[str, Any]:
    """Draw, plant, write, audit."""
    own_seed = 1000 * seed + number + (0 if planted else 500)
    fault = clean = Planted("clean", None, None, lambda audit: None)
    if faults != "named":
        others = import_module(f"{faults}_faults")
        world = others.draw_other_world(own_seed)
        if planted:
            fault = others.FAULTS[number % len(others.FAULTS)](world)
        elif hasattr(others, "make_harmless"):
            fault = dataclasses.replace(clean, kind=f"clean, {others.make_harmless(world)}")
    else:
        world = draw_world(own_seed)
        fault = FAULTS[number % len(FAULTS)](world) if planted else clean
    work = Path(tempfile.mkdtemp(prefix="planted-"))
    try:
        write(world, work / "run")
        audit = audit_run(work / "run")
    finally:
        shutil.rmtree(work)
        forget()
    size = fault.found(audit)
    covered = None
    if fault.size is not None and size is not None and size["low"] is not None:
        covered = size["low"] <= fault.size <= size["high"]
    return {
        "kind": fault.kind, "planted_link": fault.link, "named": named_link(audit), "says": audit["verdict"]["says"],
        "planted_size": fault.size, "found": size and [size["value"], size["low"], size["high"]], "covered": covered,
        "seed": own_seed, "num_pairs": len(world.pairs),
    }  # fmt: skip


def named_link(audit: dict[str, Any]) -> str | None:
    """The link at fault; where nothing turns a verdict, as with both orders asked, that of the first finding."""
    link: str | None = audit["verdict"]["link"]
    return link if link or not audit["findings"] else str(audit["findings"][0]["link"])


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
    parser.add_argument("--faults", choices=("named", "more", "third", "fourth"), default="named")
    args = parser.parse_args()
    jobs = [(i, args.seed, True, args.faults) for i in range(args.planted)]
    jobs += [(i, args.seed, False, args.faults) for i in range(args.clean)]
    rows = []
    with ProcessPoolExecutor(args.processes) as pool:
        for row in pool.map(one, *zip(*jobs, strict=True)):
            rows.append(row)
            good = row["named"] == row["planted_link"]
            print(f"{'right' if good else 'WRONG':6}{row['kind']:20}n {row['num_pairs']:4} size {row['planted_size'] or 0:7.3f} "
                  f"found {row['found']}  {row['says']}", flush=True)  # fmt: skip
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        told = figures(own)
        print(
            f"{kind:20} right link {told['right_link']}, covers {told['coverage']}, false alarms {told['false_alarms']}"
        )
    print(json.dumps({"seed": args.seed, "faults": args.faults, **figures(rows)}))


if __name__ == "__main__":
    sys.exit(main())
