"""A world small enough to run in seconds: two random models, a constitution, prompts, and a run file that does everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.conftest import make_tiny_model, prompt_rows, write_rows
from tests.models.fault_server import FaultServer, completion

CONCURRENCY = 4
RUN = """
name: tiny
num_threads: 1
constitution: constitution.yaml
model: {source: helpful, dtype: float32, device: cpu}
prompts: {source: prompts.jsonl}
revise: {num_prompts: 8, rounds: 2, sampling: {max_new_tokens: 6, batch_size: 4}}
sft: {num_helpful: 4, batch_size: 8, epochs: 2, learning_rate: 0.001, checkpoint_every: 2}
sample: {sampling: {max_new_tokens: 6, batch_size: 8}}
label: {labeler: LABELER}
reward: {batch_size: 4, epochs: 2, learning_rate: 0.001, holdout_fraction: 0.2, checkpoint_every: 2}
policy: {steps: 3, prompts_per_step: 2, group_size: 2, max_new_tokens: 6, learning_rate: 0.001, checkpoint_every: 1}
evaluate:
  prompts: {source: held_out.jsonl}
  sl_rounds: [1]
  num_checkpoints: 1
  sampling: {max_new_tokens: 6, batch_size: 4}
"""
LOCAL = "{model: {source: labeler, dtype: float32, device: cpu}, batch_size: 6}"
BATCH = 6


def make_world(folder: Path, labeler: str = LOCAL) -> Path:
    """Write it, and return its run file."""
    make_tiny_model(folder / "helpful", seed=0)
    make_tiny_model(folder / "labeler", seed=1)
    write_rows(folder / "prompts.jsonl", prompt_rows("train", 16))
    write_rows(folder / "held_out.jsonl", prompt_rows("test", 6))
    (folder / "constitution.yaml").write_text(
        "name: tiny\nprinciples:\n- {id: kind, text: be kind .}\n- {id: help, text: help me ., weight: 2}\n"
    )
    (folder / "run.yaml").write_text(RUN.replace("LABELER", labeler))
    return folder / "run.yaml"


def endpoint_labeler(source: str, **settings: Any) -> str:
    """A labeler behind a server, as the run file has it."""
    endpoint = {
        "concurrency": CONCURRENCY,
        "attempt_seconds": 5,
        "deadline_seconds": 60,
        "dead_seconds": 60,
        **settings,
    }
    return json.dumps({"model": {"source": source, "endpoint": endpoint}, "batch_size": 24})


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    """A server's answer that depends on the question alone, with usage of its own."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    made = completion(logprobs=True, tokens=(20 + digest[0] % 50, 1))
    top = [
        {"token": "A", "logprob": -0.1 - digest[1] / 200, "bytes": None},
        {"token": "B", "logprob": -0.1 - digest[2] / 200, "bytes": None},
    ]
    made["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return made


class CountingServer(FaultServer):
    """A server that answers by the question, or fails as ``plan`` says ("ok": it answers), and keeps a ledger of its own."""

    def __init__(
        self, plan: Callable[[int, dict[str, Any]], object] = lambda number, body: "ok", latency: float = 0.0
    ) -> None:
        def decide(number: int, body: dict[str, Any]) -> object:
            what = plan(number, body)
            return answer_to(body) if what == "ok" else what

        super().__init__(decide, latency)
