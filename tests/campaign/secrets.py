"""Canary keys through every fault of a server: they may stand in no file, no database, no page, and nowhere in the output.

    python -m tests.campaign.secrets [--long] [--runs N] [--seed N]

Each run has a labeler behind a server that fails in a way of its own, at three calls in ten or at all, and echoes the key in
its errors. It may end with an error; the same command then goes on against the server as it answers again, and commands that
read a run read it. Other runs name a password in the address itself. Run folder, ledger with its WAL, exports,
pages and all output are searched. The last line is one JSON object.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaign.forked import Ended, charter_run, run_forked
from tests.campaign.say import arguments, result
from tests.campaign.world import CountingServer, endpoint_labeler, make_world

KEY = "sk-canary-Zq7-0123456789abcdef"
PASSWORD = "pw-canary-Xk3-fedcba9876543210"
FORMS = [
    form for secret in (KEY, PASSWORD) for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"="))
]
FAULTS: list[Any] = [
    "reset", "cut", "malformed", "empty", "html", "error_in_200", "null_choices", "no_choices", "null_content", 500, 502,
    (503, {"retry-after": "0"}), 429, (429, {"retry-after": "0.1"}), 400, 413, 401, 403, 404, (302, {"location": "http://127.0.0.1:9/"}),
    (429, {"retry-after": "86400"}), "hang", "drip", "huge",
]  # fmt: skip


def hits(folder: Path) -> list[str]:
    """Files in which a secret stands, hidden ones and databases included."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in FORMS)
    ]


SMALL = (  # what the labeler doesn't see is kept small
    "phases=[rl]", "sample.num_prompts=6", "label.check.num_controls=2", "reward.epochs=1", "policy.steps=1", "evaluate.num_checkpoints=0",
    "evaluate.sl_rounds=[]", "evaluate.prompts.limit=2", "label.min_coverage=0.1",
)  # fmt: skip
COMMANDS = (
    ["report", "RUN"], ["audit", "RUN"], ["verify", "RUN"], ["watch", "RUN", "--json"], ["show", "RUN", "PAIR"],
    ["export", "RUN", "--to", "trl", "--out", "RUN-trl"], ["export", "RUN", "--to", "hf", "--out", "RUN-hf"],
    ["plan", "RUN/run.yaml", "--no-calibrate"], ["run", "RUN/run.yaml", "--out", "RUN", "--json"],
)  # fmt: skip


def command(arguments: list[str]) -> Callable[[Any], None]:
    """A command as the command line does it."""

    def work(report: Any) -> None:
        from charter.cli.main import main

        sys.argv = ["charter", *arguments]
        main()

    return work


class Trials:
    """Runs of one world. What doesn't ask the labeler is done once, and copied."""

    def __init__(self, work: Path, rng: random.Random) -> None:
        self.work, self.rng = work, rng
        self.found: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.sent = 0
        self.failing: Any = None
        self.run_file = make_world(
            work / "world", endpoint_labeler("SOURCE", attempt_seconds=1, deadline_seconds=3, dead_seconds=2)
        )
        with CountingServer() as server:
            assert self.run("start", f"{server.url}#m").status == 0

    def run(self, name: str, source: str) -> Ended:
        own = self.work / "world" / f"{name}.yaml"
        own.write_text(self.run_file.read_text().replace("SOURCE", source))
        small = [word for setting in SMALL for word in ("--set", setting)]
        ended = run_forked(charter_run(own, self.work / name, *small), self.work / "log")
        self.ends[f"exit {ended.status}"] += 1
        self.search(ended.text)
        return ended

    def search(self, text: str) -> None:
        self.found["output"] += sum(form in text.encode() for form in FORMS)

    def fault(self, number: int, fault: Any) -> None:
        """One fault at some or all calls, then none; then all that can be asked about the run."""
        name, share = f"run-{number}", self.rng.choice((0.3, 1.0))
        out = self.work / name
        shutil.copytree(self.work / "start" / "3-sample", out / "3-sample")
        self.failing = fault

        def plan(number: int, body: dict[str, Any]) -> object:
            return self.failing if self.failing is not None and self.rng.random() < share else "ok"

        with CountingServer(plan) as server:
            first = self.run(name, f"{server.url}#m")
            self.files(out)
            self.failing = None
            if first.status:  # it may stop again: that an item is too long for a server is remembered
                self.run(name, f"{server.url}#m")
            pair = json.loads((out / "3-sample" / "pairs.jsonl").read_text().splitlines()[0])["id"]
            for arguments in COMMANDS if number < 4 else COMMANDS[:3]:
                told = run_forked(
                    command([word.replace("RUN", str(out)).replace("PAIR", pair) for word in arguments]),
                    self.work / "log",
                )
                self.ends[f"{arguments[0]}: exit {told.status}"] += 1
                self.search(told.text)
            self.sent += sum(KEY in str(headers) for headers in server.headers)
        for folder in self.work.glob(f"{name}*"):
            self.files(folder)

    def files(self, folder: Path) -> None:
        for name in hits(folder):
            self.found[name] += 1

    def address(self, number: int, source: str) -> None:
        self.run(f"address-{number}", source)
        if (self.work / f"address-{number}").exists():
            self.files(self.work / f"address-{number}")


def campaign(runs: int, seed: int) -> dict[str, Any]:
    os.environ["OPENAI_API_KEY"] = KEY
    rng = random.Random(seed)
    chosen = [*rng.sample(FAULTS, min(runs, len(FAULTS)))]
    with tempfile.TemporaryDirectory() as place:
        trials = Trials(Path(place), rng)
        for number, fault in enumerate(chosen):
            trials.fault(number, fault)
        for number, user in enumerate((f"user:{PASSWORD}", PASSWORD)):
            trials.address(number, f"http://{user}@127.0.0.1:9/v1#m")
    told = {
        "campaign": "secrets", "seed": seed, "faults": len(chosen), "of": len(FAULTS), "addresses": 2, "ends": dict(trials.ends),
        "requests_with_the_key": trials.sent, "hits": trials.found.total(), "where": dict(+trials.found),
    }  # fmt: skip
    return {**told, "violations": trials.found.total() + (not trials.sent)}


if __name__ == "__main__":
    args = arguments(__doc__, runs=(len(FAULTS), 2))
    import transformers.models.llama.modeling_llama  # noqa: F401  the slow imports, before the forks

    import charter.audit.run
    import charter.pipeline
    import charter.report.page  # noqa: F401

    result(campaign(args.runs, args.seed))
