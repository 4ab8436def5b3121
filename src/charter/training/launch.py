"""Start the processes that train together, watch them, and start them again from the last checkpoint where one dies.

Nothing waits forever: a process that fails ends the others, and silence counts as death.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import charter.errors
from charter.config import ScaleConfig
from charter.errors import CharterError, TrainingError
from charter.store.jsonl import read_json, write_json

LOG, ERROR, RESULT = ".processes.log", ".error.json", ".result.json"  # hidden: no content of a stage
LOOK_SECONDS, GRACE_SECONDS = 0.2, 5.0
WATCH = "CHARTER_WATCH"


def launch(
    config: ScaleConfig, arguments: Sequence[str], folder: Path, notice: Callable[[str], None], threads: int
) -> dict[str, Any]:
    """Run ``python ARGUMENTS`` in as many processes as asked for, until all are done; return what the first one found.

    Args:
        folder: the stage's; a file that changes there is a sign of life. Gets the processes' own output (LOG).
        notice: told when the processes are started again.
        threads: of each process.

    Raises:
        CharterError: what a process says is the user's to mend.
        TrainingError: processes died more often than the run file allows.
    """
    for attempt in range(config.restarts + 1):
        for name in (ERROR, RESULT):
            (folder / name).unlink(missing_ok=True)
        fault = _attempt(config, arguments, folder, threads)
        if (folder / ERROR).exists():
            said = read_json(folder / ERROR)
            kind = getattr(charter.errors, said["kind"], TrainingError)
            raise (kind if issubclass(kind, CharterError) else TrainingError)(said["message"])
        if fault is None:
            result: dict[str, Any] = read_json(folder / RESULT)
            return result
        if attempt < config.restarts:
            notice(f"{folder.name}: {fault}: starting again from the last checkpoint")
    raise TrainingError(
        f"{folder.name}: {fault}, {config.restarts + 1} times in all: read {folder / LOG}, then run the same command again"
    )


def _attempt(config: ScaleConfig, arguments: Sequence[str], folder: Path, threads: int) -> str | None:
    """Start the processes and wait for them; returns why they ended before they were done, None where they were."""
    with (folder / LOG).open("ab") as log, tempfile.TemporaryDirectory() as place:
        processes = _start(config, arguments, log, Path(place) / "store", threads)
        try:
            return _wait(processes, folder, config.stall_seconds)
        finally:
            _end(processes)


def _start(
    config: ScaleConfig, arguments: Sequence[str], log: Any, store: Path, threads: int
) -> list[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), WATCH: "1"}
    if config.launch:
        commands = [([*config.launch, *arguments], environment)]
    else:  # they meet in a file, and talk over the loopback interface: nobody else can listen
        environment |= {"WORLD_SIZE": str(config.processes), "CHARTER_STORE": str(store), "GLOO_SOCKET_IFNAME": "lo"}
        commands = [
            ([sys.executable, *arguments], {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(config.processes)
        ]
    return [
        subprocess.Popen(  # their input is a pipe of ours: it ends when we do, however we end
            command, env=own, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
        for command, own in commands
    ]


def _wait(processes: Sequence[subprocess.Popen[bytes]], folder: Path, patience: float) -> str | None:
    alive_at, seen = time.monotonic(), _state(folder)
    while True:
        codes = [process.poll() for process in processes]
        died = [code for code in codes if code]
        if died:
            return _say(died[0])
        if all(code == 0 for code in codes):
            return None
        now = _state(folder)
        if now != seen:
            alive_at, seen = time.monotonic(), now
        if time.monotonic() - alive_at > patience:
            return f"no sign of life for {patience:.0f} s"
        time.sleep(LOOK_SECONDS)


def _state(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in [*folder.iterdir(), *folder.glob("checkpoint/*")]:
        with contextlib.suppress(FileNotFoundError):  # renamed or removed just now
            status = path.stat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
    return sorted(found)


def _say(code: int) -> str:
    if code < 0:
        return f"a process was ended by {signal.Signals(-code).name}"
    return f"a process failed (exit code {code})"


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        limit = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < limit and any(process.poll() is None for process in processes):
            time.sleep(LOOK_SECONDS / 4)
    for process in processes:
        if process.stdin:
            process.stdin.close()
        process.wait()


def watch_parent() -> None:
    """End this process when the one that launched it is gone."""
    import threading

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    if os.environ.get(WATCH):
        threading.Thread(target=wait, daemon=True).start()


def tell_error(folder: Path, error: CharterError) -> None:
    """Leave word for the launcher of what the user can mend."""
    write_json(folder / ERROR, {"kind": type(error).__name__, "message": str(error)})
