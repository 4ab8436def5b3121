"""The endpoint client against llama.cpp's server behind a proxy that fails in every way.

    CHARTER_LLAMA_PYTHON=... python -m tests.campaign.endpoint [--items 10000] [--faults 0.1] [--seed 0]

One call in ten fails: reset, cut off, malformed, empty, a page of HTML, an error inside a 200, hanging, dripping, 500, 502,
503, 429 with and without Retry-After. Half of the items are asked without faults first, for comparison. The last line is one
JSON object: silent losses, answers that differ, calls per item, files in which the key stands.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

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


def questions(count: int, seed: int) -> list[Question]:
    rng = random.Random(seed)
    small = [word for word in WORDS if word.islower()]
    texts = dict.fromkeys(" ".join(rng.choices(small, k=10)) for _ in range(2 * count))
    return [Question((Message("user", f"{text} ?"),), ("yes", "no")) for text in list(texts)[:count]]


def model(source: str) -> EndpointModel:
    settings = EndpointConfig(attempt_seconds=2, deadline_seconds=60, dead_seconds=60, concurrency=16)
    return EndpointModel(ModelConfig(source=source, endpoint=settings))


def hits_of_the_key(folder: Path) -> int:
    return sum(KEY.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def campaign(items: int, share: float, seed: int, python: str) -> dict[str, object]:
    rng = random.Random(seed)
    plan = [rng.choice(FAULTS) if rng.random() < share else "ok" for _ in range(4 * items)]
    asked = questions(items, seed)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        folder = save_tiny_model(work / "model", "qwen3")
        with LlamaServer(python, folder, work) as server:
            straight = model(server.source).choose(asked[: items // 2])
            began = time.monotonic()
            with (
                FaultServer(lambda number, body: plan[number], behind=server.base_url) as proxy,
                Ledger(work / "ledger.sqlite") as ledger,
            ):
                endpoint = model(f"{proxy.url}#model")
                recorded = RecordedModel(endpoint, ledger)
                found = recorded.choose(asked)
                stored, calls = ledger.count(), len(proxy.bodies)
                kinds = dict(proxy.done)
            seconds = time.monotonic() - began
        wrong = sum(
            (a.logprobs is None) != (b.logprobs is None)
            or (a.logprobs is not None and max(abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)) > 1e-2)
            for a, b in zip(found, straight, strict=False)
        )
        failed = Counter(choice.reason for choice in found if choice.logprobs is None)
        return {
            "items": items, "seed": seed, "answers": len(found), "without_answer": dict(failed),
            "silent_losses": sum(choice.logprobs is None and not choice.reason for choice in found),
            "differ_from_no_faults": wrong, "stored": stored, "calls_per_item": round(calls / items, 4),
            "seconds": round(seconds, 1), "key_hits": hits_of_the_key(work), "faults": kinds,
        }  # fmt: skip


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
    print(json.dumps(campaign(args.items, args.faults, args.seed, python)))


if __name__ == "__main__":
    main()
