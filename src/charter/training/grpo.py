"""Group-relative policy optimisation against a reward function, with a KL penalty to a frozen reference.

Shao et al. 2024 (arXiv:2402.03300). Each step: G responses for each of P prompts, advantages within the group, one or more
clipped updates. Departures: token losses divide by the global token count of the step (DAPO, arXiv:2503.14476), not by each
response's own length; a response without a reward is left out, never scored zero.

Every draw is keyed by (seed, step, prompt, sibling): a killed run that resumes makes the same rollouts.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charter.config import PolicyConfig
from charter.errors import TrainingError
from charter.models.decode import sample_tokens
from charter.objectives.advantage import group_advantages
from charter.objectives.kl import kl_k1, kl_k3
from charter.objectives.ppo import clipped_policy_loss
from charter.objectives.reduce import masked_sum
from charter.training.checkpoint import remove_checkpoints
from charter.training.optimise import Trainer
from charter.training.packing import PackedRow, response_logprobs, rows_by_tokens

TOKENS_PER_FORWARD = 8192


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's id and token ids."""

    id: str
    ids: list[int]


@dataclass(frozen=True)
class Rollout:
    """One sampled response: token ids with the stop token, where it stopped by itself."""

    prompt_id: str
    prompt_ids: list[int]
    response_ids: list[int]
    stopped: bool


RewardFunction = Callable[[list[Rollout]], list[float | None]]
"""Rewards of rollouts, which come group by group; None where there is none."""


@dataclass
class Callbacks:
    """What a stage does along the way."""

    on_step: Callable[[dict[str, Any]], None] | None = None
    on_checkpoint: Callable[[int], None] | None = None
    on_rollouts: Callable[[int, list[Rollout], list[float | None]], None] | None = None


def train_grpo(
    policy: Any,
    reference: Any,
    reward_function: RewardFunction,
    prompts: Sequence[EncodedPrompt],
    config: PolicyConfig,
    *,
    seed: int,
    folder: Path,
    stop_ids: Sequence[int],
    callbacks: Callbacks | None = None,
) -> dict[str, Any]:
    """Train ``policy`` in place.

    Args:
        folder: gets metrics.jsonl (a row per step), and checkpoints while it trains.

    Returns:
        num_steps, num_tokens, kl (nats per response, k1, of the last step), stopped_by ("steps" or "kl_budget").
    """
    callbacks = callbacks or Callbacks()
    loop = _Loop(policy, reference, reward_function, config, seed, list(stop_ids))
    trainer = Trainer(
        policy, folder, num_steps=config.steps * config.updates_per_rollout, learning_rate=config.learning_rate,
        warmup_fraction=config.warmup_fraction, decay=False,
    )  # fmt: skip
    stopped_by = "steps"
    for step in range(trainer.step // config.updates_per_rollout, config.steps):
        if config.kl_budget is not None and _last_kl(folder) > config.kl_budget:
            stopped_by = "kl_budget"
            break
        started = time.monotonic()
        row, rollouts, rewards = loop.step(trainer, _draw_prompts(prompts, config.prompts_per_step, seed, step), step)
        trainer.log({"step": trainer.step, "rollout": step + 1, **row, "seconds": time.monotonic() - started})
        if callbacks.on_rollouts:
            callbacks.on_rollouts(step + 1, rollouts, rewards)
        if callbacks.on_step:
            callbacks.on_step({"step": step + 1, **row})
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            if callbacks.on_checkpoint:
                callbacks.on_checkpoint(step + 1)
            trainer.checkpoint()
    policy.eval()
    remove_checkpoints(folder / "checkpoint")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "num_steps": len(rows),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "kl": rows[-1]["kl_k1"] if rows else 0.0,
        "stopped_by": stopped_by,
    }


def _last_kl(folder: Path) -> float:
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return float(json.loads(lines[-1])["kl_k1"]) if lines else 0.0


def _draw_prompts(prompts: Sequence[EncodedPrompt], count: int, seed: int, step: int) -> list[EncodedPrompt]:
    """Without replacement within an epoch; each epoch has its own order."""
    drawn = []
    for place in range(step * count, (step + 1) * count):
        epoch, index = divmod(place, len(prompts))
        drawn.append(prompts[_order(len(prompts), seed, epoch)[index]])
    return drawn


def _order(size: int, seed: int, epoch: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed}/policy/{epoch}").shuffle(order)
    return order


def _rollout_seed(seed: int, step: int, prompt_id: str, sibling: int) -> int:
    key = f"{seed}/{step}/{prompt_id}/{sibling}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


@dataclass
class _Loop:
    """One step of the optimisation: roll out, reward, update."""

    policy: Any
    reference: Any
    reward_function: RewardFunction
    config: PolicyConfig
    seed: int
    stop_ids: list[int]

    def step(
        self, trainer: Trainer, prompts: list[EncodedPrompt], step: int
    ) -> tuple[dict[str, Any], list[Rollout], list[float | None]]:
        rollouts = self._roll_out(prompts, step)
        rewards = self.reward_function(rollouts)
        known = [r for r in rewards if r is not None]
        if not known:
            raise TrainingError(f"step {step + 1}: no rollout got a reward; look at the reward function's abstentions")
        group_shape = (len(prompts), self.config.group_size)
        valid_PG = torch.tensor([r is not None for r in rewards]).view(group_shape)
        reward_PG = torch.tensor([0.0 if r is None else r for r in rewards]).view(group_shape)
        advantage_R = group_advantages(reward_PG, valid_PG, self.config.scale_advantages == "group").flatten()
        rows = self._packed(prompts, rollouts)
        update = self._update(trainer, rows, advantage_R, valid_PG.flatten())
        lengths = [len(r.response_ids) for r in rollouts]
        spread = torch.tensor(known)
        row = {
            "reward_mean": float(spread.mean()),
            "reward_std": float(spread.std()) if len(known) > 1 else 0.0,
            "num_without_reward": len(rewards) - len(known),
            "response_length": sum(lengths) / len(lengths),
            "stopped_fraction": sum(r.stopped for r in rollouts) / len(rollouts),
            "num_tokens": sum(lengths) + sum(len(p.ids) for p in prompts),
            **update,
        }
        return row, rollouts, rewards

    def _roll_out(self, prompts: list[EncodedPrompt], step: int) -> list[Rollout]:
        siblings = [(prompt, g) for prompt in prompts for g in range(self.config.group_size)]
        self.policy.eval()
        sampled = sample_tokens(
            self.policy,
            [prompt.ids for prompt, _ in siblings],
            seeds=[_rollout_seed(self.seed, step, prompt.id, g) for prompt, g in siblings],
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            stop_ids=self.stop_ids,
        )
        return [
            Rollout(prompt.id, prompt.ids, ids, stopped)
            for (prompt, _), ids, stopped in zip(siblings, sampled.ids, sampled.stopped, strict=True)
        ]

    def _packed(self, prompts: list[EncodedPrompt], rollouts: list[Rollout]) -> list[PackedRow]:
        size = self.config.group_size
        return [
            PackedRow(prompt.ids, [r.response_ids for r in rollouts[i * size : (i + 1) * size]])
            for i, prompt in enumerate(prompts)
        ]

    def _update(
        self, trainer: Trainer, rows: list[PackedRow], advantage_R: Tensor, valid_R: Tensor
    ) -> dict[str, float]:
        """All updates on one rollout; returns what the first of them measured, and the loss of the last."""
        self.policy.train()
        pieces = rows_by_tokens(rows, TOKENS_PER_FORWARD)
        valid = valid_R.tolist()
        num_tokens = sum(
            len(response)
            for row, start in zip(rows, range(0, len(valid), self.config.group_size), strict=True)
            for response, counts in zip(row.responses, valid[start:], strict=False)
            if counts
        )
        frozen = [self._frozen_logprobs([rows[i] for i in piece]) for piece in pieces]
        measured: dict[str, float] = {}
        for update in range(self.config.updates_per_rollout):
            totals: dict[str, float] = {}
            for piece, (reference_RT, old_RT) in zip(pieces, frozen, strict=True):
                own = torch.tensor([i * self.config.group_size + g for i in piece for g in range(self.config.group_size)])
                terms = self._loss([rows[i] for i in piece], reference_RT, old_RT, advantage_R[own], valid_R[own])
                (terms["loss"] / num_tokens).backward()
                for name, value in terms.items():
                    totals[name] = totals.get(name, 0.0) + float(value.detach())
            norm = trainer.update(totals["loss"] / num_tokens)
            if update == 0:
                per_response = max(1, sum(valid))
                measured = {
                    "loss": totals["loss"] / num_tokens,
                    "kl_k1": totals["kl_k1"] / per_response,
                    "kl_k3": totals["kl_k3"] / per_response,
                    "entropy": totals["entropy"] / num_tokens,
                    "clip_fraction": totals["clipped"] / num_tokens,
                    "grad_norm": norm,
                }
        return measured

    @torch.no_grad()
    def _frozen_logprobs(self, rows: list[PackedRow]) -> tuple[Tensor, Tensor | None]:
        """Of the reference, and of the sampling policy where more than one update needs them."""
        reference_RT = response_logprobs(self.reference, rows)[0]
        once = self.config.updates_per_rollout == 1
        return reference_RT, None if once else response_logprobs(self.policy, rows)[0]

    def _loss(
        self, rows: list[PackedRow], reference_RT: Tensor, old_RT: Tensor | None, advantage_R: Tensor, valid_R: Tensor
    ) -> dict[str, Tensor]:
        logprobs_RT, mask_RT, entropy_RT = response_logprobs(self.policy, rows)
        mask_RT = mask_RT & valid_R.to(mask_RT.device)[:, None]
        old_RT = logprobs_RT.detach() if old_RT is None else old_RT
        advantage_R1 = advantage_R.to(logprobs_RT)[:, None]
        policy_RT = clipped_policy_loss(logprobs_RT, old_RT, advantage_R1, self.config.clip)
        k3_RT = kl_k3(logprobs_RT, reference_RT)
        ratio_RT = torch.exp(logprobs_RT.detach() - old_RT)
        return {
            "loss": masked_sum(policy_RT + self.config.kl_coef * k3_RT, mask_RT),
            "kl_k1": masked_sum(kl_k1(logprobs_RT.detach(), reference_RT), mask_RT),
            "kl_k3": masked_sum(k3_RT.detach(), mask_RT),
            "entropy": masked_sum(entropy_RT, mask_RT),
            "clipped": masked_sum(((ratio_RT - 1).abs() > self.config.clip).float(), mask_RT),
        }
