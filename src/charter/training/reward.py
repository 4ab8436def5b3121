"""The reward model: an ordinary sequence classifier with one output, trained on soft preference labels.

A pair's prompt is computed once for both responses. The reward is read at a response's last token (its end of turn), as
Transformers' own classifiers do, so that what is saved scores the same in plain Transformers.

Axes: R = responses in all rows, B = pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charter.config import RewardConfig
from charter.errors import ModelError
from charter.models.adapters import sharing_copy
from charter.objectives.bradley_terry import bradley_terry_nll, centering_penalty
from charter.training import distributed
from charter.training.batching import Step, shuffled_batches, train_on_batches
from charter.training.optimise import Trainer, fingerprint
from charter.training.packing import PackedRow, hidden_at_ends, prepared, rows_by_tokens


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a prompt and two responses (with their end of turn), and the soft label."""

    prompt_ids: list[int]
    a_ids: list[int]
    b_ids: list[int]
    p_a: float

    @property
    def row(self) -> PackedRow:
        """Prompt, A and B in one row."""
        return PackedRow(self.prompt_ids, [self.a_ids, self.b_ids])


def reward_model_from_policy(policy: Any, tokenizer: Any, *, shared: bool = False) -> Any:
    """A sequence classifier with the policy's body and a zero head: it starts with no opinion.

    Args:
        shared: over the policy's very weights, not a copy of them.

    Raises:
        ModelError: Transformers has no sequence classifier for this architecture.
    """
    from transformers import AutoModelForSequenceClassification

    config = type(policy.config).from_dict(policy.config.to_dict())
    config.num_labels = 1
    config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    try:
        with torch.device("meta" if shared else "cpu"):
            model = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"no sequence classifier exists for {config.model_type!r} in Transformers; start the reward model from another model"
        ) from error
    parameter = next(policy.parameters())
    if shared:
        setattr(model, model.base_model_prefix, sharing_copy(policy.base_model))
        score_head(model).to_empty(device=parameter.device).to(parameter.dtype)
    else:
        model.base_model.load_state_dict(policy.base_model.state_dict())
        model = model.to(device=parameter.device, dtype=parameter.dtype)
    torch.nn.init.zeros_(score_head(model).weight)
    return model.eval()


def score_head(model: Any) -> Any:
    """The linear layer from the last hidden state to the reward.

    Raises:
        ModelError: the classifier reads the reward in a way of its own.
    """
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, torch.nn.Linear) and head.out_features == 1:
            return head
    raise ModelError(
        f"{type(model).__name__} has no linear score head with one output: use a decoder model as reward model, e.g. Qwen or Llama"
    )


def rewards_of(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """float32[R]: the reward (nats) of every response, in the order of rows and within them."""
    rewards: Tensor = score_head(model)(hidden_at_ends(model, prepared(model, rows)))[:, 0].float()
    return rewards


@torch.no_grad()
def score(model: Any, prompts: Sequence[list[int]], responses: Sequence[list[list[int]]]) -> list[list[float]]:
    """Rewards of each prompt's responses (token ids with the end of turn); the prompt is computed once for all of them."""
    rows = [PackedRow(prompt, list(own)) for prompt, own in zip(prompts, responses, strict=True)]
    found: list[list[float]] = [[] for _ in rows]
    for piece in rows_by_tokens(rows):
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
    """Train ``model`` in place with the Bradley-Terry loss.

    Args:
        folder: gets metrics.jsonl, and checkpoints while it trains.

    Returns:
        num_steps, num_tokens, loss (nats per pair, over the last tenth of the steps).

    Raises:
        TrainingError: the loss is not finite, or a checkpoint in ``folder`` is of another run.
    """
    batches = shuffled_batches(len(pairs), config.batch_size, config.epochs, f"{seed}/reward")
    trainer = Trainer(
        model, folder, num_steps=len(batches), learning_rate=config.learning_rate, warmup_fraction=config.warmup_fraction,
        settings=["reward", config.settings(), seed, fingerprint([astuple(pair) for pair in pairs])],
        gradient_checkpointing=config.gradient_checkpointing,
    )  # fmt: skip
    return train_on_batches(
        trainer,
        batches,
        lambda indices: accumulate_reward(
            trainer.model, [pairs[i] for i in indices], config.centering_coef, config.tokens_per_forward
        ),
        checkpoint_every=config.checkpoint_every,
        on_step=on_step,
    )


def accumulate_reward(
    model: Any, pairs: Sequence[EncodedPair], centering_coef: float, tokens_per_forward: int
) -> dict[str, float]:
    """Gradients of this process's share of the batch; returns the batch's loss and how often the sign agrees with the label."""
    rows = [pair.row for pair in pairs]
    total, num_right = 0.0, 0
    for piece, weight in distributed.passes(rows, tokens_per_forward):
        reward_a_B, reward_b_B = rewards_of(model, [rows[i] for i in piece]).view(-1, 2).unbind(1)
        p_a_B = torch.tensor([pairs[i].p_a for i in piece], device=reward_a_B.device, dtype=reward_a_B.dtype)
        nll_B = bradley_terry_nll(reward_a_B, reward_b_B, p_a_B)
        if centering_coef:
            nll_B = nll_B + centering_coef * centering_penalty(reward_a_B, reward_b_B)
        loss = weight * nll_B.sum() / len(pairs)
        loss.backward()
        total += float(loss.detach())
        num_right += int(weight) * int(((reward_a_B > reward_b_B) == (p_a_B > 0.5)).sum())
    accuracy = distributed.total(num_right) / len(pairs)
    return {"loss": distributed.total(total), "accuracy": accuracy, "num_tokens": sum(map(len, rows))}
