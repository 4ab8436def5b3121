"""A full disk and I/O errors at the N-th write, pwrite, fsync and rename of every stage: one clear line, and the run resumes.

    python -m tests.campaign.disk [--long] [--stride N] [--tmpfs N] [--seed N]

A run is cut at its stages: a trial begins with the folder as an undisturbed run left it before a stage, lets one call of this
stage fail (``strace -e inject``, ENOSPC and EIO in turn), does the stage again undisturbed, and compares the folder with what
the undisturbed run had then. So N walks over all calls of all stages, by ``--stride``, and each trial costs one stage and not a
run. Every 20th trial goes on to the end of the run. Then runs on small tmpfs of several sizes, which are full for good until
they are made larger. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.campaign.forked import STAGES, WRITES, Ended, Fault, charter_run, content, differences, run_forked
from tests.campaign.say import arguments, result
from tests.campaign.world import make_world

PARTS = (*STAGES[: STAGES.index("8-audit")], "end")  # the end: summary, audit, report, hashes
ERRORS = ("error=ENOSPC", "error=EIO")
TO_THE_END = 20


class Trials:
    """One world, the folders of an undisturbed run before each of its parts, and what became of runs with a fault."""

    def __init__(self, work: Path) -> None:
        self.work, self.run_file = work, make_world(work)
        self.calls: dict[str, dict[str, int]] = {}
        before = work / "before-1-revise"
        before.mkdir()
        for part in PARTS:
            out = work / f"after-{part}"
            shutil.copytree(before, out)
            self.calls[part] = count_calls(self.part(part, out), work)
            before = out
        self.found: Counter[str] = Counter(
            trials=0,
            failed=0,
            went_on=0,
            corrupt=0,
            not_one_line=0,
            other_exit_codes=0,
            did_not_resume=0,
            differ=0,
            to_the_end=0,
        )
        self.by_part: Counter[str] = Counter()
        self.notes: list[str] = []

    def part(self, part: str, out: Path) -> Any:
        """The run up to the end of a part."""
        return charter_run(self.run_file, out, until=part)

    def before(self, part: str) -> Path:
        """The folder as it was when a part began."""
        place = PARTS.index(part)
        return self.work / (f"after-{PARTS[place - 1]}" if place else "before-1-revise")

    def judge(self, what: str, ended: Ended, out: Path, again: Ended, expected: Path) -> None:
        """What became of a run that had a fault, and of the same command after it."""
        self.found["trials"] += 1
        if ended.status == 0:
            self.found["went_on"] += 1  # the failure didn't matter: a hint, a cache, a page's clean-up
        else:
            self.found["failed"] += 1
            if not ended.is_one_line:
                self.found["not_one_line"] += 1
                self.notes.append(f"{what}: {ended.text[-700:]}")
            if ended.status != 2:
                self.found["other_exit_codes"] += 1
                self.notes.append(f"{what}: exit {ended.status}")
        if again.status != 0:
            self.found["did_not_resume"] += 1
            self.notes.append(f"{what}: again: {again.text[-500:]}")
        changed = differences(content(expected), content(out))
        if changed:
            self.found["differ"] += 1
            self.notes.append(f"{what}: {', '.join(changed[:5])}")

    def inject(self, part: str, fault: Fault) -> None:
        """One trial."""
        out, log = self.work / "trial", self.work / "log"
        shutil.copytree(self.before(part), out)
        ended = run_forked(self.part(part, out), log, fault)
        self.found["corrupt"] += not sound(out)
        again = run_forked(self.part(part, out), log)
        self.judge(f"{part}: {fault} ({fault.number})", ended, out, again, self.work / f"after-{part}")
        self.by_part[part] += 1
        if self.found["trials"] % TO_THE_END == 0:
            end = run_forked(self.part("end", out), log)
            self.found["to_the_end"] += 1
            self.found["did_not_resume"] += end.status != 0
            changed = differences(content(self.work / "after-end"), content(out))
            self.found["differ"] += bool(changed)
            self.notes += [f"{part}: {fault} ({fault.number}), at the end: {', '.join(changed[:5])}"] if changed else []
        shutil.rmtree(out)

    def tmpfs(self, kilobytes: int) -> None:
        """A whole run on a disk that is too small."""
        place, log = self.work / f"small-{kilobytes}", self.work / "log"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)], check=True)
        try:
            out = place / "run"
            ended = run_forked(charter_run(self.run_file, out), log)
            self.found["corrupt"] += not sound(out)
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            again = run_forked(charter_run(self.run_file, out), log)
            self.judge(f"tmpfs of {kilobytes} kB", ended, out, again, self.work / "after-end")
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)


def count_calls(work: Any, folder: Path) -> dict[str, int]:
    """How often a run without a fault makes each of the calls that are to fail."""
    told = folder / "trace"
    ended = run_forked(work, folder / "log", Fault(number=0), trace=told)
    assert ended.status == 0, ended.text
    names = [line.split("(")[0].split()[-1] for line in told.read_text().splitlines() if "(" in line]
    kinds = {"fdatasync": "fsync", "renameat": "rename", "renameat2": "rename"}
    return dict(Counter(kinds.get(name, name) for name in names))


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
    """Every ``stride``-th call of a run that could fail; seeds 0 to ``stride - 1`` together make every one."""
    with tempfile.TemporaryDirectory() as place:
        trials = Trials(Path(place))
        every = [
            (part, call, number)
            for part in PARTS
            for call in WRITES
            for number in range(1, trials.calls[part].get(call, 0) + 1)
        ]
        grid = every[seed % stride :: stride]
        random.Random(seed).shuffle(grid)  # so that what is told on the way is of all stages
        for place_in_grid, (part, call, number) in enumerate(grid, 1):
            trials.inject(part, Fault(call=call, action=ERRORS[(place_in_grid + seed) % 2], number=number))
            if place_in_grid % 20 == 0:
                told = {"of": len(grid), **trials.found, "at": dict(trials.by_part), "notes": trials.notes}
                print(json.dumps(told), flush=True)
        if os.geteuid() == 0:
            for kilobytes in random.Random(seed).sample(range(100, 2000, 50), tmpfs):
                trials.tmpfs(kilobytes)
    told = {"campaign": "disk", "seed": seed, "stride": stride, **trials.found, "at": dict(trials.by_part)}
    bad = ("corrupt", "not_one_line", "other_exit_codes", "did_not_resume", "differ")
    told |= {"calls": trials.calls, "notes": trials.notes}
    return {**told, "violations": sum(trials.found[key] for key in bad)}


if __name__ == "__main__":
    args = arguments(__doc__, stride=(1, 240), tmpfs=(4, 0))
    import transformers.models.llama.modeling_llama  # noqa: F401  the slow imports, before the forks

    import charter.audit.run
    import charter.pipeline
    import charter.report.page  # noqa: F401

    result(campaign(args.stride, args.tmpfs, args.seed))
