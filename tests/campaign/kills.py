"""kill -9 anywhere in a run, again and again, and the same command until it is done: nothing lost, nothing doubled.

    python -m tests.campaign.kills [--long] [--kills N] [--seed N]

Half of the kills come at a random time, half when the N-th write, pwrite, fsync or rename begins. Half of the runs have a
local labeler, half one behind a server. What a run leaves behind is compared with an undisturbed one, byte for byte but for
times. The last line is one JSON object.
"""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.campaign.forked import WRITES, Ended, Fault, charter_run, content, differences, run_forked, stage_of
from tests.campaign.say import arguments, result
from tests.campaign.world import BATCH, CONCURRENCY, LOCAL, CountingServer, endpoint_labeler, make_world

KILLS_PER_RUN = 6
MEAN = {"write": 25, "pwrite64": 40, "fsync": 20, "rename": 6}


def draw(rng: random.Random, seconds: float) -> Fault:
    """A kill that leaves some progress between it and the last one, mostly."""
    if rng.random() < 0.5:
        return Fault(seconds=rng.expovariate(KILLS_PER_RUN / seconds))
    call = rng.choice(WRITES)
    return Fault(call=call, number=1 + int(rng.expovariate(1 / MEAN[call])))


class Trials:
    """Runs of one world, killed and resumed."""

    def __init__(self, work: Path, rng: random.Random, server: CountingServer | None) -> None:
        self.work, self.rng, self.server = work, rng, server
        self.run_file = make_world(work, endpoint_labeler(f"{server.url}#m") if server else LOCAL)
        began = time.monotonic()
        assert self.attempt(work / "whole").status == 0
        self.seconds = time.monotonic() - began
        self.expected = content(work / "whole")
        self.by_stage: Counter[str] = Counter()
        self.by_kind: Counter[str] = Counter()
        self.found: Counter[str] = Counter(
            runs=0, kills=0, lost=0, doubled=0, runs_that_differ=0, reasked_over_limit=0, spent_wrong=0, bad_ends=0
        )
        self.reasked: list[int] = []
        self.notes: list[str] = []

    def attempt(self, out: Path, fault: Fault | None = None) -> Ended:
        return run_forked(charter_run(self.run_file, out), self.work / "log", fault)

    def asked(self, ended: Ended, since: int) -> list[str]:
        """What the labeler was asked in an attempt."""
        if self.server is not None:
            return [json.dumps(body, sort_keys=True) for body in self.server.bodies[since:]]
        return [question for row in ended.heard for question in row.get("asked", ())]

    def is_counted(self, out: Path, asked: int, kills: int) -> bool:
        """Whether the run tells the calls that the server had, but for those that a kill met on their way."""
        (told,) = json.loads((out / "summary.json").read_text())["servers"]
        return asked - CONCURRENCY * kills <= int(told["calls"]) <= asked

    def one_run(self, kills: int) -> None:
        """Kill a run up to so many times, let it end, and compare."""
        out = self.work / f"run-{self.found['runs']}"
        kept: dict[str, Any] = {}
        before: set[str] = set()
        # a server has so many calls under way; a model in this process has one batch: pairs x 2 principles x 2 orders
        limit = CONCURRENCY if self.server is not None else BATCH * 4
        first = len(self.server.bodies) if self.server is not None else 0
        for number in range(kills + 1):
            since = len(self.server.bodies) if self.server is not None else 0
            fault = draw(self.rng, self.seconds) if number < kills else None
            ended = self.attempt(out, fault)
            asked = self.asked(ended, since)
            again = sum(question in before for question in asked)
            if number:
                self.reasked.append(again)
                self.found["reasked_over_limit"] += again > limit
            before.update(asked)
            for row in ended.heard:
                kept.update(row.get("kept", {}))
            self.found["lost"] += lost(out, kept)
            if ended.status != -9:
                break
            self.found["kills"] += 1
            self.by_stage[stage_of(out)] += 1
            self.by_kind[str(fault)] += 1
        if ended.status != 0:
            self.found["bad_ends"] += 1
            self.notes.append(ended.text[-2000:])
        if self.server is not None and ended.status == 0:
            self.found["spent_wrong"] += not self.is_counted(out, len(self.server.bodies) - first, number)
        self.found["doubled"] += doubled(out)
        changed = differences(self.expected, content(out))
        self.found["runs"] += 1
        self.found["runs_that_differ"] += bool(changed)
        if changed:
            self.notes.append(f"{out.name}: {', '.join(changed)}")


def lost(out: Path, kept: dict[str, Any]) -> int:
    """Answers that were acknowledged as kept and aren't in the ledger as they were."""
    if not kept:
        return 0
    connection = sqlite3.connect(out / "ledger.sqlite")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stored = dict(connection.execute("SELECT key, value FROM answers"))
    finally:
        connection.close()
    return sum(
        key not in stored or json.loads(stored[key]) != json.loads(json.dumps(value)) for key, value in kept.items()
    )


def doubled(out: Path) -> int:
    """Labels that stand twice in what the run wrote."""
    count = 0
    for name, keys in (("judgments", ("pair_id", "principle_id", "order")), ("preferences", ("id",))):
        path = out / "4-label" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        seen = Counter(tuple(row[key] for key in keys) for row in rows)
        count += sum(times - 1 for times in seen.values())
    return count


def campaign(kills: int, seed: int) -> dict[str, Any]:
    """So many kills, half of them in each world."""
    rng = random.Random(seed)
    told: dict[str, Any] = {"campaign": "kills", "seed": seed}
    for name in ("local", "endpoint"):
        with tempfile.TemporaryDirectory() as place, CountingServer(latency=0.01) as server:
            trials = Trials(Path(place), rng, server if name == "endpoint" else None)
            while trials.found["kills"] < kills / 2:
                trials.one_run(KILLS_PER_RUN)
            told[name] = {
                **trials.found, "at": dict(trials.by_stage), "how": dict(trials.by_kind), "notes": trials.notes,
                "most_asked_again_after_a_kill": max(trials.reasked, default=0), "seconds_undisturbed": round(trials.seconds, 1),
            }  # fmt: skip
    told["violations"] = sum(
        told[name][key]
        for name in ("local", "endpoint")
        for key in ("lost", "doubled", "runs_that_differ", "reasked_over_limit", "spent_wrong", "bad_ends")
    )
    return told


if __name__ == "__main__":
    args = arguments(__doc__, kills=(200, 8))
    import transformers.models.llama.modeling_llama  # noqa: F401  the slow imports, before the forks

    import charter.audit.run
    import charter.pipeline
    import charter.report.page  # noqa: F401

    result(campaign(args.kills, args.seed))
