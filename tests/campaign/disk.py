"""A full disk and I/O errors at the N-th write, pwrite, fsync and rename of a run: one clear line, and the run resumes.

    python -m tests.campaign.disk [--long] [--stride N] [--tmpfs N] [--seed N]

Each trial lets one call fail (``strace -e inject``, ENOSPC and EIO in turn), runs the same command again undisturbed, and
compares what is there with an undisturbed run. Then runs on small tmpfs of several sizes, which are full for good until they
are made larger. The last line is one JSON object.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.campaign.forked import WRITES, Fault, charter_run, content, differences, run_forked
from tests.campaign.say import arguments, result
from tests.campaign.world import make_world

LAST = {"write": 200, "pwrite64": 350, "fsync": 190, "rename": 48}  # more than an undisturbed run makes
ERRORS = ("error=ENOSPC", "error=EIO")


class Trials:
    def __init__(self, work: Path) -> None:
        self.work, self.run_file = work, make_world(work)
        assert run_forked(charter_run(self.run_file, work / "whole"), work / "log").status == 0
        self.expected = content(work / "whole")
        self.found: Counter[str] = Counter(
            trials=0,
            failed=0,
            went_on=0,
            no_call=0,
            corrupt=0,
            not_one_line=0,
            other_exit_codes=0,
            did_not_resume=0,
            differ=0,
        )
        self.notes: list[str] = []

    def judge(self, what: str, ended: Any, out: Path, resume: Any) -> None:
        """What became of a run that had a fault, and of the same command after it."""
        self.found["trials"] += 1
        if ended.status == 0:
            self.found["went_on"] += 1  # the call wasn't reached, or its failure didn't matter
        else:
            self.found["failed"] += 1
            if not ended.is_one_line:
                self.found["not_one_line"] += 1
                self.notes.append(f"{what}: {ended.text[-700:]}")
            if ended.status != 2:
                self.found["other_exit_codes"] += 1
                self.notes.append(f"{what}: exit {ended.status}")
        self.found["corrupt"] += not sound(out)
        again = resume()
        if again.status != 0:
            self.found["did_not_resume"] += 1
            self.notes.append(f"{what}: again: {again.text[-500:]}")
        changed = differences(self.expected, content(out))
        if changed:
            self.found["differ"] += 1
            self.notes.append(f"{what}: {', '.join(changed[:5])}")

    def inject(self, fault: Fault) -> None:
        out = self.work / f"run-{self.found['trials']}"
        run = charter_run(self.run_file, out)
        ended = run_forked(run, self.work / "log", fault)
        self.judge(f"{fault} ({fault.number})", ended, out, lambda: run_forked(run, self.work / "log"))
        subprocess.run(["rm", "-rf", str(out)], check=True)

    def tmpfs(self, kilobytes: int) -> None:
        place = self.work / f"small-{kilobytes}"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)], check=True)
        try:
            run = charter_run(self.run_file, place / "run")
            ended = run_forked(run, self.work / "log")

            def with_more_space() -> Any:
                subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
                return run_forked(run, self.work / "log")

            self.judge(f"tmpfs of {kilobytes} kB", ended, place / "run", with_more_space)
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)


def sound(out: Path) -> bool:
    """Whether the ledger, where there is one, is whole."""
    path = out / "ledger.sqlite"
    if not path.is_file() or not path.stat().st_size:
        return True
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    except sqlite3.Error:
        return False
    finally:
        connection.close()


def campaign(stride: int, tmpfs: int, seed: int) -> dict[str, Any]:
    """Every ``stride``-th call of each kind, beginning where the seed says."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        trials = Trials(Path(place))
        for call in WRITES:
            for number in range(1 + rng.randrange(stride), LAST[call], stride):
                trials.inject(Fault(call=call, action=rng.choice(ERRORS), number=number))
        if os.geteuid() == 0:
            for kilobytes in rng.sample(range(100, 2000, 50), tmpfs):
                trials.tmpfs(kilobytes)
    told = {"campaign": "disk", "seed": seed, "stride": stride, **trials.found, "notes": trials.notes}
    bad = ("corrupt", "not_one_line", "other_exit_codes", "did_not_resume", "differ")
    return {**told, "violations": sum(trials.found[key] for key in bad)}


if __name__ == "__main__":
    args = arguments(__doc__, stride=(10, 150), tmpfs=(12, 0))
    import transformers.models.llama.modeling_llama  # noqa: F401  the slow imports, before the forks

    import charter.audit.run
    import charter.pipeline
    import charter.report.page  # noqa: F401

    result(campaign(args.stride, args.tmpfs, args.seed))
