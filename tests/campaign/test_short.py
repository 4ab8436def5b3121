"""The short forms of those scripts of the fault campaign that take seconds: no violation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def told_by(script: str, *options: str) -> dict:
    """The last line of a script; it is a process of its own, because forks don't like the threads of a test run."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"tests.campaign.{script}", *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=own, check=False)
    assert ended.stdout, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_races():
    assert told_by("races") | {"slowest_refusal_seconds": 0} == {
        "campaign": "races", "seed": 0, "races": 20, "double_runs": 0, "no_winner": 0, "unnamed": 0, "not_free_after": 0,
        "slowest_refusal_seconds": 0, "violations": 0,
    }  # fmt: skip


def test_parsers():
    told = told_by("parsers")
    assert told["violations"] == 0, told
    assert all(set(kinds) == {"read", "refused"} for name, kinds in told["parsers"].items() if name in ("yaml", "row"))
