"""Supervised fine-tuning on responses.

Rows of similar length are computed together; only response tokens count and only they go through the head; losses divide
by the token count of the whole batch, so that ``TOKENS_PER_FORWARD`` never changes a gradient.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from charter.config import SftConfig
from charter.objectives.sft import sft_loss
from charter.training.checkpoint import remove_checkpoints
from charter.training.optimise import Trainer
from charter.training.packing import PackedRow, response_logprobs, rows_by_tokens

TOKENS_PER_FORWARD = 8192
Step = Callable[[dict[str, Any]], None]


def train_sft(
    model: Any,
    examples: Sequence[tuple[list[int], list[int]]],
    config: SftConfig,
    *,
    seed: int,
    folder: Path,
    on_step: Step | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place.

    Args:
        examples: (prompt ids, response ids with the end of turn), shuffled anew each epoch by ``seed``.
        folder: gets metrics.jsonl, and checkpoints while it trains.

    Returns:
        num_steps, num_tokens (forward, all epochs), loss (mean over the last tenth of the steps), nats per token.
    """
    batches = _batches(len(examples), config, seed)
    trainer = Trainer(
        model, folder, num_steps=len(batches), learning_rate=config.learning_rate, warmup_fraction=config.warmup_fraction
    )
    model.train()
    for indices in batches[trainer.step :]:
        started = time.monotonic()
        rows = [PackedRow(examples[i][0], [examples[i][1]]) for i in indices]
        loss = _accumulate(model, rows)
        norm = trainer.update(loss)
        row = {"step": trainer.step, "loss": loss, "grad_norm": norm, "num_tokens": sum(map(len, rows)),
               "seconds": time.monotonic() - started}  # fmt: skip
        trainer.log(row)
        if on_step:
            on_step(row)
        if trainer.step % config.checkpoint_every == 0:
            trainer.checkpoint()
    model.eval()
    remove_checkpoints(folder / "checkpoint")
    return _summary(folder)


def _batches(num_examples: int, config: SftConfig, seed: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for epoch in range(config.epochs):
        order = list(range(num_examples))
        random.Random(f"{seed}/sft/{epoch}").shuffle(order)
        batches += [order[i : i + config.batch_size] for i in range(0, num_examples, config.batch_size)]
    return batches


def _accumulate(model: Any, rows: list[PackedRow]) -> float:
    """Gradients of the whole batch, piece by piece; returns its loss."""
    num_tokens = sum(len(row.responses[0]) for row in rows)
    total = 0.0
    for piece in rows_by_tokens(rows, TOKENS_PER_FORWARD):
        logprobs_RT, mask_RT, _ = response_logprobs(model, [rows[i] for i in piece])
        loss = sft_loss(logprobs_RT, mask_RT, num_tokens)
        loss.backward()
        total += float(loss.detach())
    return total


def _summary(folder: Path) -> dict[str, Any]:
    import json

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tail = rows[-max(1, len(rows) // 10) :]
    return {
        "num_steps": len(rows),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "loss": sum(row["loss"] for row in tail) / len(tail),
    }
