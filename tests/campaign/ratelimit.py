"""A server with a rate limit that it doesn't tell: how much of it does the client get?

    python -m tests.campaign.ratelimit [--long] [--seconds N] [--rate N] [--seed N]

A token bucket answers 429, without Retry-After, to what comes above ``--rate`` calls per second. After so many seconds, the
share of the limit that the last quarter of them got is told. The last line is one JSON object.
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
WANTED = 0.85


class Bucket:
    """So many calls per second, and as many at once after a quiet second."""

    def __init__(self, rate: int) -> None:
        self._rate, self._tokens, self._at = rate, float(rate), time.monotonic()
        self._lock = threading.Lock()
        self.served: list[float] = []
        self.refused: list[float] = []

    def __call__(self, number: int, body: dict[str, Any]) -> object:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(float(self._rate), self._tokens + (now - self._at) * self._rate)
            self._at = now
            if self._tokens < 1:
                self.refused.append(now)
                return 429
            self._tokens -= 1
            self.served.append(now)
            return "ok"


def campaign(seconds: int, rate: int, seed: int) -> dict[str, Any]:
    bucket = Bucket(rate)
    with FaultServer(bucket, LATENCY) as server:
        settings = EndpointConfig(concurrency=64, attempt_seconds=10, deadline_seconds=120, dead_seconds=120)
        model = EndpointModel(ModelConfig(source=f"{server.url}#m", endpoint=settings))
        asked = [Question((Message("user", f"{seed} {i}"),), ("A", "B")) for i in range(seconds * rate)]
        began = time.monotonic()
        found = model.choose(asked)
        took = time.monotonic() - began
    late = (began + 0.75 * seconds, began + seconds)
    window = [sum(late[0] <= at < late[1] for at in times) for times in (bucket.served, bucket.refused)]
    share = window[0] / (rate * 0.25 * seconds)
    lost = sum(choice.logprobs is None for choice in found)
    return {
        "campaign": "ratelimit", "seed": seed, "rate": rate, "items": len(asked), "lost": lost, "seconds": round(took, 1),
        "share_of_the_limit": round(share, 3), "refused_share_of_calls": round(window[1] / max(1, sum(window)), 3),
        "share_overall": round(len(asked) / took / rate, 3), "violations": lost + (share < WANTED),
    }  # fmt: skip


if __name__ == "__main__":
    args = arguments(__doc__, seconds=(80, 20), rate=(40, 40))
    result(campaign(args.seconds, args.rate, args.seed))
