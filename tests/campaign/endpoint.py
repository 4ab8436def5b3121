"""The endpoint client against llama.cpp's server behind a proxy that fails in every way.

    CHARTER_LLAMA_PYTHON=... python -m tests.campaign.endpoint [--items 10000] [--faults 0.1] [--seed 0]

One call in ten fails: reset, cut off, malformed, empty, a page of HTML, an error inside a 200, hanging, dripping, 500, 502,
503, 429 with and without Retry-After. One item in five hundred fails at every call, so that it comes to its deadline. Half of
the items are asked without faults first, for comparison. The last line is one JSON object: silent losses, answers that differ,
calls per item that can be answered, seconds of the item that took longest, files in which the key stands.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.campaign.say import result
from tests.models.fault_server import FaultServer
from tests.models.llama_server import NEEDS, LlamaServer, interpreter
from tests.models.tiny import WORDS, save_tiny_model

from charter.config import EndpointConfig, ModelConfig
from charter.labelers.recorded import RecordedModel
from charter.models.endpoint import EndpointModel
from charter.models.protocol import Question
from charter.records import Message
from charter.store.ledger import Ledger

FAULTS = ["reset", "cut", "malformed", "empty", "html", "error_in_200", "null_choices", "hang", "drip", 500, 502,
          (503, {"retry-after": "0"}), 429, (429, {"retry-after": "0.2"})]  # fmt: skip
KEY = "sk-canary-campaign-0123456789"
DEADLINE, GRACE = 20.0, 1.0  # seconds of one item, and what it may take beyond them
HOPELESS = 500  # one item in so many is never answered


def questions(count: int, seed: int) -> list[Question]:
    rng = random.Random(seed)
    small = [word for word in WORDS if word.islower()]
    texts = dict.fromkeys(" ".join(rng.choices(small, k=10)) for _ in range(2 * count))
    return [Question((Message("user", f"{text} ?"),), ("yes", "no")) for text in list(texts)[:count]]


def model(source: str, notices: list[str] | None = None) -> EndpointModel:
    settings = EndpointConfig(attempt_seconds=2, deadline_seconds=DEADLINE, dead_seconds=60, concurrency=16)
    return EndpointModel(ModelConfig(source=source, endpoint=settings), None if notices is None else notices.append)


def timed(endpoint: EndpointModel) -> list[float]:
    """Seconds of each item from now on, from its first call until it has its answer or has failed."""
    taken: list[float] = []
    call = endpoint._caller.call

    async def timed_call(attempt: Any) -> Any:
        began: list[float] = []

        def first_noted() -> Any:
            began.append(time.monotonic())
            return attempt()

        try:
            return await call(first_noted)
        finally:
            taken.append(time.monotonic() - began[0])

    endpoint._caller.call = timed_call  # type: ignore[method-assign]
    return taken


def text_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


def hits_of_the_key(folder: Path) -> int:
    return sum(KEY.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def campaign(items: int, share: float, seed: int, python: str) -> dict[str, Any]:
    rng = random.Random(seed)
    asked = questions(items, seed)
    texts = [question.conversation[0].content for question in asked]
    # none near the end: alone with the server they would make it look dead, and a pause for all counts for no item
    hopeless = set(texts[HOPELESS // 2 : items * 7 // 10 : HOPELESS])

    def plan(number: int, body: dict[str, Any]) -> object:
        fails = text_of(body) in hopeless or rng.random() < share
        return rng.choice(FAULTS) if fails else "ok"

    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        folder = save_tiny_model(work / "model", "qwen3")
        with LlamaServer(python, folder, work) as server:
            straight = model(server.source).choose(asked[: items // 2])
            began = time.monotonic()
            with FaultServer(plan, behind=server.base_url) as proxy, Ledger(work / "ledger.sqlite") as ledger:
                endpoint = model(f"{proxy.url}#model", notices := [])
                taken = timed(endpoint)
                found = RecordedModel(endpoint, ledger).choose(asked)
                stored, calls = ledger.count(), [text_of(body) for body in proxy.bodies]
                kinds = dict(proxy.done)
            seconds = time.monotonic() - began
        wrong = sum(
            (a.logprobs is None) != (text in hopeless or b.logprobs is None)
            or (
                a.logprobs is not None
                and b.logprobs is not None
                and max(abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)) > 1e-2
            )
            for a, b, text in zip(found, straight, texts, strict=False)
        )
        failed = Counter(choice.reason for choice in found if choice.logprobs is None)
        told: dict[str, Any] = {
            "campaign": "endpoint", "items": items, "seed": seed, "answers": len(found), "without_answer": dict(failed),
            "hopeless": len(hopeless),
            "silent_losses": sum(choice.logprobs is None and not choice.reason for choice in found),
            "lost": sum(c.reason == "endpoint_failed" and text not in hopeless for c, text in zip(found, texts, strict=True)),
            "differ_from_no_faults": wrong, "stored": stored,
            "calls_per_item": round(sum(text not in hopeless for text in calls) / (items - len(hopeless)), 4),
            "longest_item_seconds": round(max(taken), 2), "deadline_seconds": DEADLINE,
            "pauses": len(notices), "past_deadline": sum(each > DEADLINE + GRACE for each in taken),
            "seconds": round(seconds, 1), "key_hits": hits_of_the_key(work), "faults": kinds,
        }  # fmt: skip
    bad = sum(told[key] for key in ("silent_losses", "lost", "differ_from_no_faults", "past_deadline", "key_hits"))
    return {**told, "violations": bad + (told["calls_per_item"] > 1.15)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10000)
    parser.add_argument("--faults", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    python = interpreter()
    if python is None:
        raise SystemExit(f"no interpreter with {NEEDS}: name it in CHARTER_LLAMA_PYTHON")
    os.environ["OPENAI_API_KEY"] = KEY
    result(campaign(args.items, args.faults, args.seed, python))


if __name__ == "__main__":
    main()
