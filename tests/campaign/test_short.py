"""The short forms of those scripts of the fault campaign that take seconds: no violation."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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


@pytest.mark.skipif(
    CHROMIUM is None or not importlib.util.find_spec("playwright") or not importlib.util.find_spec("uvicorn"),
    reason="Chromium, playwright or uvicorn is not installed",
)
def test_pages():
    told = told_by("pages")
    assert told["violations"] == 0, told
    assert told["control_executions"] > 0 < told["control_outside_requests"]


def test_flips():
    told = told_by("flips")
    assert (told["found"], told["not_named"], told["false_alarms"]) == (told["flips"], 0, 0), told


def test_mutants():
    told = told_by("mutants")
    assert told["violations"] == 0, told
    assert {end.split(": ")[1] for end in told["ends"]} == {"used", "refused"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_disk():
    told = told_by("disk")
    assert told["violations"] == 0, told
    assert told["failed"] > 0 and sum(map(sum, (calls.values() for calls in told["calls"].values()))) > 500
