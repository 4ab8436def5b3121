"""Supervised fine-tuning on responses.

Rows of similar length are computed together; only response tokens count and only they go through the head; losses divide
by the token count of the whole batch, so that the size of a forward pass never changes a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import SftConfig
from charter.objectives.sft import sft_loss
from charter.training import distributed
from charter.training.batching import Step, shuffled_batches, train_on_batches
from charter.training.optimise import Trainer, fingerprint
from charter.training.packing import PackedRow, response_logprobs


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
        num_steps, num_tokens (all epochs), loss (mean over the last tenth of the steps, nats per token).

    Raises:
        TrainingError: the loss is not finite, or a checkpoint in ``folder`` is of another run.
    """
    rows = [PackedRow(prompt, [response]) for prompt, response in examples]
    batches = shuffled_batches(len(rows), config.batch_size, config.epochs, f"{seed}/sft")
    trainer = Trainer(
        model, folder, num_steps=len(batches), learning_rate=config.learning_rate, warmup_fraction=config.warmup_fraction,
        settings=["sft", config.settings(), seed, fingerprint(examples)],
        gradient_checkpointing=config.gradient_checkpointing,
    )  # fmt: skip
    return train_on_batches(
        trainer,
        batches,
        lambda indices: accumulate_sft(trainer.model, [rows[i] for i in indices], config.tokens_per_forward),
        checkpoint_every=config.checkpoint_every,
        on_step=on_step,
    )


def accumulate_sft(model: Any, rows: Sequence[PackedRow], tokens_per_forward: int) -> dict[str, float]:
    """Gradients of this process's share of the batch, piece by piece; returns the batch's loss in nats per response token."""
    num_counted = sum(len(row.responses[0]) for row in rows)
    total = 0.0
    for piece, weight in distributed.passes(rows, tokens_per_forward):
        found = response_logprobs(model, [rows[i] for i in piece])
        loss = weight * sft_loss(found.logprobs_RT, found.mask_RT, num_counted)
        loss.backward()
        total += float(loss.detach())
    return {"loss": distributed.total(total), "num_tokens": sum(map(len, rows))}
