"""The reward model: an ordinary sequence classifier with one output, trained on soft preference labels.

A pair's prompt is computed once for both responses. The reward is read at a response's last token (its end of turn), as
Transformers' own classifiers do, so that what is saved scores the same in plain Transformers.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charter.config import RewardConfig
from charter.errors import ModelError
from charter.objectives.bradley_terry import bradley_terry_nll, centering_penalty
from charter.training.checkpoint import remove_checkpoints
from charter.training.optimise import Trainer
from charter.training.packing import PackedRow, pack, rows_by_tokens

TOKENS_PER_FORWARD = 8192
Step = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a prompt and two responses (with their end of turn), and the soft label."""

    prompt_ids: list[int]
    a_ids: list[int]
    b_ids: list[int]
    p_a: float


def reward_model_from_policy(policy: Any, tokenizer: Any) -> Any:
    """A sequence classifier with the policy's body and a zero head: it starts with no opinion.

    Raises:
        ModelError: Transformers has no sequence classifier for this architecture.
    """
    from transformers import AutoModelForSequenceClassification

    config = type(policy.config).from_dict(policy.config.to_dict())
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    try:
        model = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"no sequence classifier exists for {config.model_type!r} in Transformers; start the reward model from another model"
        ) from error
    model.base_model.load_state_dict(policy.base_model.state_dict())
    model = model.to(next(policy.parameters()).dtype).to(next(policy.parameters()).device)
    torch.nn.init.zeros_(model.score.weight)
    return model.eval()


def rewards_of(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """float32[R]: the reward of every response, in the order of rows and within them."""
    parameter = next(model.parameters())
    batch = pack(rows, parameter.device, parameter.dtype)
    hidden_BLD = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
    rewards: Tensor = model.score(hidden_BLD[batch.row_R, batch.last_R])[:, 0].float()
    return rewards


@torch.no_grad()
def score(model: Any, prompts: Sequence[list[int]], responses: Sequence[list[list[int]]]) -> list[list[float]]:
    """Rewards of each prompt's responses (token ids with the end of turn); the prompt is computed once for all of them."""
    rows = [PackedRow(prompt, list(own)) for prompt, own in zip(prompts, responses, strict=True)]
    found: list[list[float]] = [[] for _ in rows]
    for piece in rows_by_tokens(rows, TOKENS_PER_FORWARD):
        flat = rewards_of(model, [rows[i] for i in piece]).tolist()
        for i in piece:
            count = len(rows[i].responses)
            found[i], flat = flat[:count], flat[count:]
    return found


def train_reward(
    model: Any,
    pairs: Sequence[EncodedPair],
    config: RewardConfig,
    *,
    seed: int,
    folder: Path,
    on_step: Step | None = None,
) -> dict[str, Any]:
    """Train ``model`` in place with the Bradley-Terry loss; returns num_steps, num_tokens, loss (nats per pair)."""
    batches = _batches(len(pairs), config, seed)
    trainer = Trainer(
        model, folder, num_steps=len(batches), learning_rate=config.learning_rate, warmup_fraction=config.warmup_fraction
    )
    model.train()
    for indices in batches[trainer.step :]:
        started = time.monotonic()
        chosen = [pairs[i] for i in indices]
        loss, accuracy = _accumulate(model, chosen, config.centering_coef)
        norm = trainer.update(loss)
        row = {
            "step": trainer.step,
            "loss": loss,
            "accuracy": accuracy,
            "grad_norm": norm,
            "num_tokens": sum(len(p.prompt_ids) + len(p.a_ids) + len(p.b_ids) for p in chosen),
            "seconds": time.monotonic() - started,
        }
        trainer.log(row)
        if on_step:
            on_step(row)
        if trainer.step % config.checkpoint_every == 0:
            trainer.checkpoint()
    model.eval()
    remove_checkpoints(folder / "checkpoint")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tail = rows[-max(1, len(rows) // 10) :]
    return {
        "num_steps": len(rows),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "loss": sum(row["loss"] for row in tail) / len(tail),
    }


def _batches(num_pairs: int, config: RewardConfig, seed: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for epoch in range(config.epochs):
        order = list(range(num_pairs))
        random.Random(f"{seed}/reward/{epoch}").shuffle(order)
        batches += [order[i : i + config.batch_size] for i in range(0, num_pairs, config.batch_size)]
    return batches


def _accumulate(model: Any, pairs: list[EncodedPair], centering_coef: float) -> tuple[float, float]:
    """Gradients of the whole batch, piece by piece; returns its loss and how often the sign agrees with the label."""
    rows = [PackedRow(pair.prompt_ids, [pair.a_ids, pair.b_ids]) for pair in pairs]
    total, right = 0.0, 0
    for piece in rows_by_tokens(rows, TOKENS_PER_FORWARD):
        reward_R = rewards_of(model, [rows[i] for i in piece])
        reward_a_B, reward_b_B = reward_R[0::2], reward_R[1::2]
        p_a_B = torch.tensor([pairs[i].p_a for i in piece], device=reward_R.device, dtype=reward_R.dtype)
        nll_B = bradley_terry_nll(reward_a_B, reward_b_B, p_a_B)
        if centering_coef:
            nll_B = nll_B + centering_coef * centering_penalty(reward_a_B, reward_b_B)
        loss = nll_B.sum() / len(pairs)
        loss.backward()
        total += float(loss.detach())
        right += int(((reward_a_B > reward_b_B) == (p_a_B > 0.5)).sum())
    return total, right / len(pairs)
