"""Two processes on one run folder, again and again: one works, the other ends at once and says who works there.

    python -m tests.campaign.races [--long] [--races N] [--seed N]

Each race starts two processes that open the run folder at the same moment; the winner holds it until the loser has ended.
In every second race the winner is then killed with SIGKILL, and a third process must get the folder. The last line is one
JSON object.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.campaign.say import arguments, result

from charter.errors import StoreError
from charter.store.folder import RunFolder


def contender(folder: Path, gate: float, told: int, hold: bool) -> int:
    """A process that opens the folder at a moment and reports ``won``, or the error, to a pipe."""
    pid = os.fork()
    if pid:
        return pid
    try:
        while time.monotonic() < gate:
            pass
        began = time.monotonic()
        try:
            opened = RunFolder.open(folder)
            os.write(told, f"{os.getpid()}|won|{time.monotonic() - began}\n".encode())
            if hold:
                signal.pause()
            opened.close()
        except StoreError as error:
            os.write(told, f"{os.getpid()}|{error}|{time.monotonic() - began}\n".encode())
    finally:
        os._exit(0)


def read_lines(descriptor: int, count: int) -> list[tuple[int, str, float]]:
    data = b""
    while data.count(b"\n") < count:
        data += os.read(descriptor, 65536)
    rows = [line.split("|") for line in data.decode().splitlines()]
    return [(int(pid), said, float(seconds)) for pid, said, seconds in rows]


def campaign(races: int, seed: int) -> dict[str, Any]:
    rng, found, slowest = random.Random(seed), Counter(double_runs=0, no_winner=0, unnamed=0, not_free_after=0), 0.0
    with tempfile.TemporaryDirectory() as place:
        for number in range(races):
            folder = Path(place) / f"run-{number % 7}"
            reader, writer = os.pipe()
            gate = time.monotonic() + 0.02
            pids = [contender(folder, gate + rng.uniform(0, 0.002), writer, True) for _ in range(2)]
            rows = read_lines(reader, 2)
            winners = [pid for pid, said, _ in rows if said == "won"]
            found["double_runs"] += len(winners) > 1
            found["no_winner"] += not winners
            for _, said, seconds in rows:
                if said != "won":
                    slowest = max(slowest, seconds)
                    named = re.search(r"process (\d+) on (\S+) works in this run folder", said)
                    found["unnamed"] += not (named and int(named[1]) in winners and named[2] == socket.gethostname())
            for pid in pids:
                os.kill(pid, signal.SIGKILL if number % 2 else signal.SIGTERM)
                os.waitpid(pid, 0)
            third = contender(folder, 0, writer, False)
            found["not_free_after"] += read_lines(reader, 1)[0][1] != "won"
            os.waitpid(third, 0)
            os.close(reader)
            os.close(writer)
    told = {"campaign": "races", "seed": seed, "races": races, **found, "slowest_refusal_seconds": round(slowest, 3)}
    return {**told, "violations": sum(found.values())}


if __name__ == "__main__":
    args = arguments(__doc__, races=(100, 20))
    result(campaign(args.races, args.seed))
