"""Direct preference optimisation: the policy learns from preference pairs without a reward model or rollouts.

Rafailov et al. 2023 (arXiv:2305.18290), with soft labels. The prompt is computed once for both responses; the reference
is read once, before training.

Axes: R = responses (A and B of each pair, in turn), B = pairs, T = response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charter.config import DpoConfig
from charter.objectives.dpo import dpo_nll
from charter.training import distributed
from charter.training.batching import Checkpoint, Step, shuffled_batches, train_on_batches
from charter.training.optimise import Trainer, disable_dropout, fingerprint
from charter.training.packing import PackedRow, response_logprobs
from charter.training.reward import EncodedPair

TIE = 1e-4  # nats; smaller differences are rounding


def train_dpo(
    policy: Any,
    reference: Any,
    pairs: Sequence[EncodedPair],
    config: DpoConfig,
    *,
    seed: int,
    folder: Path,
    on_step: Step | None = None,
    on_checkpoint: Checkpoint | None = None,
) -> dict[str, Any]:
    """Train ``policy`` in place.

    Args:
        reference: the frozen model that the policy starts from.
        folder: gets metrics.jsonl, and checkpoints while it trains.

    Returns:
        num_steps, num_tokens, loss (nats per pair, over the last tenth of the steps).

    Raises:
        TrainingError: the loss is not finite, or a checkpoint in ``folder`` is of another run.
    """
    disable_dropout(policy)
    rows = [pair.row for pair in pairs]
    reference_B2 = reference_logprobs(reference, rows, config.tokens_per_forward)
    batches = shuffled_batches(len(pairs), config.batch_size, config.epochs, f"{seed}/dpo")
    trainer = Trainer(
        policy, folder, num_steps=len(batches), learning_rate=config.learning_rate, warmup_fraction=config.warmup_fraction,
        settings=["dpo", config.settings(), seed, fingerprint([astuple(pair) for pair in pairs])],
        gradient_checkpointing=config.gradient_checkpointing,
    )  # fmt: skip

    def accumulate(indices: list[int]) -> dict[str, float]:
        chosen = [pairs[i] for i in indices]
        return accumulate_dpo(trainer.model, chosen, reference_B2[indices], config.beta, config.tokens_per_forward)

    return train_on_batches(
        trainer, batches, accumulate,
        checkpoint_every=config.checkpoint_every, on_step=on_step, on_checkpoint=on_checkpoint,
    )  # fmt: skip


def pair_logprobs(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """float32[B, 2]: log-probability (nats) of A and of B as a whole, for each row of a pair."""
    return response_logprobs(model, rows).logprobs_RT.sum(1).view(-1, 2)


@torch.no_grad()
def reference_logprobs(reference: Any, rows: Sequence[PackedRow], tokens_per_forward: int) -> Tensor:
    """float32[B, 2]: as ``pair_logprobs``, of all pairs."""
    found_B2 = torch.zeros(len(rows), 2, device=next(reference.parameters()).device)
    for piece, weight in distributed.passes(rows, tokens_per_forward):
        if weight:
            found_B2[piece] = pair_logprobs(reference, [rows[i] for i in piece])
    return distributed.total(found_B2)


def accumulate_dpo(
    policy: Any, pairs: Sequence[EncodedPair], reference_B2: Tensor, beta: float, tokens_per_forward: int
) -> dict[str, float]:
    """Gradients of this process's share of the batch; returns the batch's loss and how often the sign agrees with the label.

    A tie, as of all pairs before the first update, agrees by half.
    """
    rows = [pair.row for pair in pairs]
    total, num_right = 0.0, 0.0
    for piece, weight in distributed.passes(rows, tokens_per_forward):
        logprob_a_B, logprob_b_B = pair_logprobs(policy, [rows[i] for i in piece]).unbind(1)
        reference_a_B, reference_b_B = reference_B2[piece].unbind(1)
        p_a_B = torch.tensor([pairs[i].p_a for i in piece], device=logprob_a_B.device, dtype=logprob_a_B.dtype)
        loss = weight * dpo_nll(logprob_a_B, logprob_b_B, reference_a_B, reference_b_B, p_a_B, beta).sum() / len(pairs)
        loss.backward()
        total += loss.item()
        margin_B = (logprob_a_B - reference_a_B - logprob_b_B + reference_b_B).detach()
        right_B = torch.where(margin_B.abs() < TIE, 0.5, ((margin_B > 0) == (p_a_B > 0.5)).float())
        num_right += weight * float(right_B.sum())
    accuracy = distributed.total(num_right) / len(pairs)
    return {"loss": distributed.total(total), "accuracy": accuracy, "num_tokens": sum(map(len, rows))}
