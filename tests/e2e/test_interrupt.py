"""Ctrl-C: answered at once, also where the main thread computes; what is done stays; the second one ends the process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from charter.cli.interrupt import interrupts

SCRIPT = """
import signal, sys, time
from charter.cli.interrupt import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as those of nohup do
with interrupts("stopping"):
    try:
        {before}
        print("ready", flush=True)
        time.sleep(300)
    except KeyboardInterrupt:
        sys.exit(130)
"""
DEAF = "signal.signal(signal.SIGINT, lambda *_: None)"  # as a long computation is


@contextmanager
def started(code: str) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


def test_the_first_is_answered_the_second_ends():
    with started(SCRIPT.format(before=DEAF)) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "stopping\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_the_first_raises_as_ever():
    with started(SCRIPT.format(before="")) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and process.stderr.read() == "stopping\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_schedulers_and_closed_terminals_are_answered_too(number):
    with started(SCRIPT.format(before="")) as process:
        process.send_signal(number)
        assert process.wait(60) == 130 and process.stderr.read() == "stopping\n"
    with started(SCRIPT.format(before=DEAF.replace("signal.SIGINT", str(int(number))))) as process:
        process.send_signal(number)
        assert process.stderr.readline() == "stopping\n"
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith interrupts"
    with started(SCRIPT.format(before="").replace("with interrupts", ignored, 1)) as process:
        process.send_signal(signal.SIGHUP)  # as nohup wants it
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and process.stderr.read() == "stopping\n"


def test_nothing_is_left_behind():
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with interrupts("x") as heard:
        told = []
        heard.tell = told.append
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            pass
        until = time.monotonic() + 60
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    signal.signal(signal.SIGINT, handler)
    assert told == ["x"]
    assert signal.set_wakeup_fd(before) == before


def test_a_run_says_where_it_stopped_and_goes_on(tiny_world, tmp_path):
    folder = tmp_path / "my run"
    command = [sys.executable, "-m", "charter", "run", str(tiny_world / "run.yaml"), "--out", str(folder)]
    lines = []
    begins = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **begins) as process:
        for line in process.stderr:
            lines.append(line)
            if line.startswith("revise"):
                process.send_signal(signal.SIGINT)
                break
        rest, out = process.stderr.read().splitlines(), process.stdout.read()
        assert process.wait(60) == 130 and out == "", (lines, rest)
    assert [line for line in rest if line.startswith("stopping")][0].startswith("stopping after the current step (what")
    assert rest[-1].startswith("stopped in 1-revise; go on with: charter run ")
    assert rest[-1].endswith(f"run.yaml --out '{folder}' (the same command)") and "Traceback" not in "".join(rest)
