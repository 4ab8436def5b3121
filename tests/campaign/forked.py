"""Runs of ``charter`` that something kills or lets fail, each a fork of a process that has done its imports.

A fault is a signal after some seconds, or what happens to the N-th call of a kind (``strace -e inject``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAGES = (
    "1-revise",
    "2-sft",
    "2-sft-round-1",
    "3-sample",
    "4-label",
    "5-reward",
    "6-policy",
    "7-evaluate",
    "8-audit",
    "report",
)
WRITES = ("write", "pwrite64", "fsync", "rename")
TRACED = {"fsync": "fsync,fdatasync", "rename": "rename,renameat,renameat2", "mkdir": "mkdir,mkdirat"}


@dataclass(frozen=True)
class Fault:
    """``seconds``: SIGKILL then. Otherwise ``action`` (as ``signal=KILL`` or ``error=ENOSPC``) at the ``number``-th ``call``."""

    seconds: float | None = None
    call: str = "write"
    action: str = "signal=KILL"
    number: int = 1

    def __str__(self) -> str:
        return "at a random time" if self.seconds is not None else f"{self.action} at the N-th {self.call}"


@dataclass
class Ended:
    """How an attempt ended: exit status (negative: the signal), what it printed, and what it reported on the way."""

    status: int
    text: str
    heard: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_one_line(self) -> bool:
        """One line for people on standard error, and no traceback."""
        lines = self.text.strip().splitlines()
        return sum(line.startswith("charter: ") for line in lines) == 1 and "Traceback" not in self.text


def run_forked(
    work: Callable[[Callable[[dict[str, Any]], None]], None],
    log: Path,
    fault: Fault | None = None,
    trace: Path | None = None,
) -> Ended:
    """Do ``work`` in a child; it gets a function by which it reports rows that survive its death.

    Args:
        trace: no fault then; all calls that could fail are written there.
    """
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    log.write_bytes(b"")
    traced = fault is not None and fault.seconds is None
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(work, theirs, log, traced)
    theirs.close()
    tracer = _attach(pid, fault, trace) if traced and fault is not None else None
    deadline = None if fault is None or fault.seconds is None else time.monotonic() + fault.seconds
    status, heard = _watch(pid, ours, deadline)
    if tracer is not None:
        tracer.wait(30)
    return Ended(status, log.read_text(errors="replace"), heard)


def _child(
    work: Callable[[Callable[[dict[str, Any]], None]], None], report: socket.socket, log: Path, traced: bool
) -> None:
    code = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if traced:
            os.kill(os.getpid(), signal.SIGSTOP)
        work(lambda row: report.sendall(json.dumps(row).encode() + b"\n"))
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _attach(pid: int, fault: Fault, trace: Path | None) -> subprocess.Popen[bytes]:
    os.waitpid(pid, os.WUNTRACED)  # it has stopped itself
    command = ["strace", "-f", "-qq", "-e", "signal=none", "-p", str(pid)]
    if trace is not None:
        calls = ",".join(TRACED.get(call, call) for call in WRITES)
        command += ["-o", str(trace), "-s", "0", "-e", f"trace={calls}"]
    else:
        calls = TRACED.get(fault.call, fault.call)
        command += ["-o", "/dev/null", "-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:{fault.action}:when={fault.number}"]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > until or tracer.poll() is not None:
            raise RuntimeError("strace can't attach: it needs the right to trace (CAP_SYS_PTRACE)")
        time.sleep(0.005)
    os.kill(pid, signal.SIGCONT)
    return tracer


def _watch(pid: int, report: socket.socket, deadline: float | None) -> tuple[int, list[dict[str, Any]]]:
    data, is_open, ended = b"", True, None
    while ended is None or is_open:
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        if is_open and select.select([report], [], [], 0.005)[0]:
            more = report.recv(1 << 20)
            data, is_open = data + more, bool(more)
        if ended is None:
            found, status = os.waitpid(pid, os.WNOHANG if is_open else 0)
            if found:
                ended, deadline = os.waitstatus_to_exitcode(status), None
    report.close()
    return ended, [json.loads(line) for line in data.split(b"\n")[:-1]]


def charter_run(
    run_file: Path, out: Path, *more: str, until: str | None = None
) -> Callable[[Callable[[dict[str, Any]], None]], None]:
    """``charter run`` as the command line does it; reports questions that are asked and answers that are kept.

    Args:
        until: the stage after which it ends.
    """

    def work(report: Callable[[dict[str, Any]], None]) -> None:
        from charter import pipeline
        from charter.cli.main import main
        from charter.models.local import LocalModel
        from charter.store.ledger import Ledger

        put_many, choose, do_stage = Ledger.put_many, LocalModel.choose, pipeline.do_stage

        def reported_put(self: Ledger, answers: dict[str, Any]) -> None:
            put_many(self, answers)
            report({"kept": answers})

        def reported_choose(self: LocalModel, questions: Sequence[Any]) -> list[Any]:
            report({"asked": [repr(question) for question in questions]})
            return choose(self, questions)

        def until_then(folder: Any, name: str, *rest: Any) -> str:
            key = do_stage(folder, name, *rest)
            if name == until:
                raise SystemExit(0)
            return key

        pipeline.do_stage = until_then
        Ledger.put_many, LocalModel.choose = reported_put, reported_choose  # type: ignore[method-assign]
        sys.argv = ["charter", "run", str(run_file), "--out", str(out), "--quiet", *more]
        main()

    return work


def stage_of(out: Path) -> str:
    """The first stage of a run folder that isn't finished."""
    for name in STAGES:
        if name == "report":
            return name
        done = out / name / ("audit.json" if name == "8-audit" else "done.json")
        if not done.is_file():
            return name if (out / name).is_dir() or name != "1-revise" else "start"
    raise AssertionError


def content(folder: Path) -> dict[str, bytes]:
    """All that a run wrote, without what tells when and how long."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if (
            path.is_file()
            and not hidden
            and not name.startswith("ledger")
            and path.name not in ("attempts.jsonl", "done.json", "files.json")
        ):
            data = _timeless(path.name, path.read_bytes()).replace(str(folder).encode(), b"OUT")
            found[name] = data.replace(f"({folder.name})".encode(), b"(OUT)")  # the page's title
    return found


def _timeless(name: str, data: bytes) -> bytes:
    if name == "metrics.jsonl":
        rows = [json.loads(line) for line in data.splitlines()]
        return json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]).encode()
    if name in ("summary.json", "audit.json"):
        # the audit's hash of its inputs covers the manifests, and with them the times
        data = re.sub(rb'"(wall_)?seconds": [0-9.e-]+|"inputs": "[0-9a-f]{64}"', b"", data)
        return re.sub(rb'"servers": \[[^\]]*\]', b"", data)  # what was asked again was paid for again
    if name == "report.html":
        data = re.sub(rb"charter run \S+ --out \S+", b"", data)  # names the folder
        data = re.sub(rb"<caption><span>Servers: .*?</table>", b"", data)
        return re.sub(rb"([0-9.]+ (ms|s|min|h)\b ?)+", b"", data)
    return data


def differences(expected: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, new or different."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
