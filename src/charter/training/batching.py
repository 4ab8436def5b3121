"""Which examples make a batch, and one loop over batches for all supervised training (SFT, reward model, DPO)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from charter.training.distributed import is_main
from charter.training.optimise import Trainer

Step = Callable[[dict[str, Any]], None]
"""Told of every step: its metrics."""

Checkpoint = Callable[[int], None]
"""Called with the step, before the state of training is saved."""

Accumulate = Callable[[list[int]], dict[str, float]]
"""Leaves the gradients of a batch (indices) in the model; returns its metrics, with ``loss`` and ``num_tokens``."""


def shuffled_batches(num_examples: int, batch_size: int, epochs: int, seed: str) -> list[list[int]]:
    """Indices, each once per epoch; each epoch has its own order."""
    batches: list[list[int]] = []
    for epoch in range(epochs):
        order = list(range(num_examples))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        batches += [order[i : i + batch_size] for i in range(0, num_examples, batch_size)]
    return batches


def train_on_batches(
    trainer: Trainer,
    batches: list[list[int]],
    accumulate: Accumulate,
    *,
    checkpoint_every: int,
    on_step: Step | None,
    on_checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Do the batches that are left; returns num_steps, num_tokens, and the loss over the last tenth of the steps."""
    trainer.model.train()
    for indices in batches[trainer.step :]:
        started = time.monotonic()
        measured = accumulate(indices)
        norm = trainer.update(measured["loss"])
        row = {"step": trainer.step, **measured, "grad_norm": norm, "seconds": time.monotonic() - started}
        trainer.log(row)
        if on_step and is_main():
            on_step(row)
        if trainer.step % checkpoint_every == 0 or trainer.step == len(batches):
            if on_checkpoint:
                trainer.gather()
                if is_main():
                    on_checkpoint(trainer.step)
            trainer.checkpoint()  # the last one too: a kill before the model is saved trains nothing again
    trainer.gather()
    trainer.model.eval()
    rows = trainer.rows()
    tail = rows[-max(1, len(rows) // 10) :]
    return {
        "num_steps": len(rows),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "loss": sum(row["loss"] for row in tail) / max(1, len(tail)),
    }
