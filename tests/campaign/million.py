"""A ledger of a million labels: seconds to write it, to find all of it again on a resume, and the memory of both.

    python -m tests.campaign.million [--long] [--labels N] [--seed N]

The last line is one JSON object.
"""

from __future__ import annotations

import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.campaign.say import arguments, result

from charter.store.hashing import hash_json
from charter.store.ledger import Ledger

BATCH = 5000  # keys that a resume looks up at once
MAX_SECONDS, MAX_PAGE_SECONDS, MAX_MIB = 10.0, 0.5, 500.0


def batches(labels: int, seed: int) -> Any:
    for begin in range(0, labels, BATCH):
        yield [hash_json([seed, number]) for number in range(begin, min(labels, begin + BATCH))]


def campaign(labels: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "ledger.sqlite"
        began = time.monotonic()
        with Ledger(path) as ledger:
            for keys in batches(labels, seed):
                ledger.put_many({key: {"logprobs": [-rng.random(), -rng.random()], "num_tokens": 200} for key in keys})
        written = time.monotonic() - began
        began, cpu, hashing, found, first = time.monotonic(), time.process_time(), 0.0, 0, 0.0
        with Ledger(path) as ledger:
            sizes = iter(batches(labels, seed))
            while True:
                at = time.monotonic()
                keys = next(sizes, None)
                hashing += time.monotonic() - at
                if keys is None:
                    break
                found += len(ledger.get_many(keys))
                first = first or time.monotonic() - began
        resumed, cpu = time.monotonic() - began, time.process_time() - cpu
        size = path.stat().st_size / 2**20
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bad = (found != labels) + (cpu > MAX_SECONDS) + (first > MAX_PAGE_SECONDS) + (memory > MAX_MIB)
    return {
        "campaign": "million", "seed": seed, "labels": labels, "found": found, "write_seconds": round(written, 2),
        "resume_seconds": round(resumed, 2), "resume_cpu_seconds": round(cpu, 2), "of_it_hashing": round(hashing, 2),
        f"first_{BATCH}_seconds": round(first, 3), "file_mib": round(size), "memory_mib": round(memory), "violations": bad,
    }  # fmt: skip


if __name__ == "__main__":
    args = arguments(__doc__, labels=(1_000_000, 20_000))
    result(campaign(args.labels, args.seed))
