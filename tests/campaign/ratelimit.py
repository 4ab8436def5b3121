"""A server with a rate limit that it doesn't tell: how much of it does the client get, also once the limit changes?

    python -m tests.campaign.ratelimit [--long] [--seconds N] [--seed N]

A token bucket answers 429, without Retry-After, to what comes above the limit. Told for each limit: the share of it that was
served in the last quarter of so many seconds (for a limit that changes: so many seconds after the change), the share of those
calls that were refused, and calls per item over all. The last line is one JSON object.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.campaign.say import arguments, result
from tests.models.fault_server import FaultServer

from charter.config import EndpointConfig, ModelConfig
from charter.models.endpoint import EndpointModel
from charter.models.protocol import Question
from charter.records import Message

LATENCY = 0.1  # seconds; so the limit is reached with a tenth of the rate in flight
WANTED, CALLS = 0.85, 1.15
LIMITS = ((5, 5), (20, 20), (40, 40), (100, 100), (20, 100), (100, 20), (5, 40))  # calls per second, at first and then
SHORT = ((20, 20), (20, 60))


class Bucket:
    """So many calls per second, and as many at once after a quiet second; ``then`` from ``change`` seconds on."""

    def __init__(self, rate: int, then: int, change: float) -> None:
        self._rates, self._change = (rate, then), change
        self._tokens, self._at, self._began = float(rate), time.monotonic(), time.monotonic()
        self._lock = threading.Lock()
        self.served: list[float] = []
        self.refused: list[float] = []

    def __call__(self, number: int, body: dict[str, Any]) -> object:
        with self._lock:
            now = time.monotonic()
            rate = self._rates[now - self._began >= self._change]
            self._tokens = min(float(rate), self._tokens + (now - self._at) * rate)
            self._at = now
            if self._tokens < 1:
                self.refused.append(now)
                return 429
            self._tokens -= 1
            self.served.append(now)
            return "ok"


def one(rate: int, then: int, seconds: int, seed: int) -> dict[str, Any]:
    """One server with one limit, or with one that changes to ``then``."""
    whole = seconds if rate == then else 2 * seconds
    count = seconds * rate + (whole - seconds) * then
    settings = EndpointConfig(concurrency=64, attempt_seconds=10, deadline_seconds=120, dead_seconds=120)
    asked = [Question((Message("user", f"{seed} {rate} {then} {i}"),), ("A", "B")) for i in range(count)]
    bucket = Bucket(rate, then, seconds)
    with FaultServer(bucket, LATENCY) as server:
        model = EndpointModel(ModelConfig(source=f"{server.url}#m", endpoint=settings))
        began, cpu = time.monotonic(), time.process_time()
        found = model.choose(asked)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
    late = (began + whole - 0.25 * seconds, began + whole)
    served, refused = (sum(late[0] <= at < late[1] for at in times) for times in (bucket.served, bucket.refused))
    calls = (len(bucket.served) + len(bucket.refused)) / count
    share, lost = served / (then * 0.25 * seconds), sum(choice.logprobs is None for choice in found)
    return {
        "limit": rate, "then": then, "items": count, "lost": lost, "share_of_the_limit": round(share, 3),
        "refused_share_of_calls": round(refused / max(1, served + refused), 3), "calls_per_item": round(calls, 3),
        "seconds": round(took, 1), "seconds_at_the_limit": whole, "cpu_seconds": round(cpu, 1),
        "violations": lost + (share < WANTED) + (calls > CALLS),
    }  # fmt: skip


def campaign(limits: tuple[tuple[int, int], ...], seconds: int, seed: int) -> dict[str, Any]:
    told = [one(rate, then, seconds, seed) for rate, then in limits]
    bad = sum(row["violations"] for row in told)
    return {"campaign": "ratelimit", "seed": seed, "limits": told, "violations": bad}


if __name__ == "__main__":
    args = arguments(__doc__, seconds=(60, 40))
    result(campaign(LIMITS if args.long else SHORT, args.seconds, args.seed))
