"""Group-relative policy optimisation against a reward function, with a KL penalty to a frozen reference.

Each step: G responses for each of P prompts, advantages within the group, one or more clipped updates.
GRPO: Shao et al. 2024 (arXiv:2402.03300); unscaled: Dr. GRPO (arXiv:2503.20783); RLOO: Ahmadian et al. 2024
(arXiv:2402.14740). Departures: token losses divide by the global token count of the step (DAPO, arXiv:2503.14476), not by
each response's own length; the KL penalty is weighted so that its gradient is that of KL(policy||reference)
(objectives/kl.py); a response without a reward is left out, never scored zero.

Axes: P = prompts, G = group, R = responses of all groups (P x G), T = response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charter.config import PolicyConfig
from charter.errors import ConfigError
from charter.objectives.advantage import group_advantages, leave_one_out_advantages
from charter.objectives.kl import kl_k1, kl_k3
from charter.objectives.ppo import clipped_policy_loss, is_clipped
from charter.objectives.reduce import masked_sum
from charter.training import distributed
from charter.training.optimise import Trainer, disable_dropout, fingerprint
from charter.training.packing import TOKENS_PER_FORWARD, PackedRow, response_logprobs
from charter.training.penalty import loss_penalty, reward_penalty
from charter.training.policy_loop import Callbacks, PolicyLoop
from charter.training.rollout import (
    EncodedPrompt,
    RewardFunction,
    Rollout,
    Sampler,
    StepRewards,
    packed_groups,
    sampling_logprobs,
)

TERMS = ("loss", "kl_k1", "kl_k3", "entropy", "clipped", "drift")

__all__ = ["Callbacks", "EncodedPrompt", "RewardFunction", "Rollout", "train_grpo"]


def train_grpo(
    policy: Any,
    reference: Any,
    reward_function: RewardFunction | StepRewards,
    prompts: Sequence[EncodedPrompt],
    config: PolicyConfig,
    *,
    seed: int,
    folder: Path,
    stop_ids: Sequence[int],
    callbacks: Callbacks | None = None,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    """Train ``policy`` in place.

    Args:
        folder: gets metrics.jsonl (a row per step), and checkpoints while it trains.
        sampler: who samples the rollouts; None: the policy itself, here.

    Returns:
        num_steps, num_tokens, kl (nats per response, k1, of the last step), stopped_by ("steps" or "kl_budget").

    Raises:
        TrainingError: a loss or reward is not finite, no rollout got a reward, or a checkpoint is of another run.
    """
    if config.algorithm == "ppo":
        raise ConfigError("policy.algorithm: ppo needs a value model: call train_ppo, or choose grpo or rloo")
    disable_dropout(policy)
    trainer = Trainer(
        policy, folder, num_steps=config.steps * config.updates_per_rollout, learning_rate=config.learning_rate,
        warmup_fraction=config.warmup_fraction, decay=False,
        settings=["policy", config.settings(), seed, fingerprint([astuple(p) for p in prompts])],
        gradient_checkpointing=config.gradient_checkpointing,
    )  # fmt: skip
    update = GroupUpdate(trainer.model, reference, config, config.tokens_per_forward, sampler is not None)
    told = callbacks or Callbacks()
    loop = PolicyLoop(policy, update, reward_function, prompts, config, seed, stop_ids, told, sampler)
    return loop.run(trainer)


def advantages_of(rewards: Sequence[float | None], config: PolicyConfig) -> tuple[Tensor, Tensor]:
    """Advantages float[R] and bool[R], True where there is a reward."""
    shape = (-1, config.group_size)
    valid_PG = torch.tensor([reward is not None for reward in rewards]).view(shape)
    # in float32 the mean of equal rewards may differ from them by rounding, of which Adam's first step would make a whole one
    known = [0.0 if reward is None else reward for reward in rewards]
    reward_PG = torch.tensor(known, dtype=torch.float64).view(shape)
    if config.algorithm == "rloo":
        advantage_PG = leave_one_out_advantages(reward_PG, valid_PG)
    else:
        advantage_PG = group_advantages(reward_PG, valid_PG, config.scale_advantages == "group")
    return advantage_PG.flatten().float(), valid_PG.flatten()


@dataclass(frozen=True)
class Piece:
    """Groups of one forward pass, and what stays fixed while the policy is updated on them.

    ``weight`` is 1, or 0 where the pass is made only because other processes make one.
    """

    rows: list[PackedRow]
    weight: float
    advantage_R1: Tensor
    valid_R1: Tensor
    reference_RT: Tensor
    old_RT: Tensor | None  # None: the policy itself, which hasn't been updated since
    sampled_RT: Tensor  # log-probabilities as the tokens were sampled


@dataclass(frozen=True)
class GroupUpdate:
    """All updates on one rollout, by advantages within groups."""

    policy: Any
    reference: Any
    config: PolicyConfig
    tokens_per_forward: int = TOKENS_PER_FORWARD
    sampled_elsewhere: bool = False
    """Then the policy is another one than that which sampled, by rounding, also in the first update."""

    def __call__(self, trainer: Trainer, rollouts: list[Rollout], rewards: Sequence[float | None]) -> dict[str, float]:
        """KL and entropy are those of the policy that sampled; clip fraction and gradient norm are means over updates."""
        self.policy.train()
        pieces = self._pieces(rollouts, rewards)
        lengths = [len(rollout.response_ids) for rollout in rollouts]
        num_counted = sum(n for n, reward in zip(lengths, rewards, strict=True) if reward is not None)
        num_valid = sum(reward is not None for reward in rewards)
        updates = [self._update(trainer, pieces, num_counted) for _ in range(self.config.updates_per_rollout)]
        first = updates[0]
        return {
            "loss": first["loss"] / num_counted,
            "kl_k1": first["kl_k1"] / num_valid,
            "kl_k3": first["kl_k3"] / num_valid,
            "entropy": first["entropy"] / num_counted,
            "drift_mean": first["drift"] / num_counted,
            "drift_max": first["drift_max"],
            "clip_fraction": sum(u["clipped"] for u in updates) / num_counted / len(updates),
            "grad_norm": sum(u["grad_norm"] for u in updates) / len(updates),
        }

    def _update(self, trainer: Trainer, pieces: Sequence[Piece], num_counted: int) -> dict[str, float]:
        """One update on the whole rollout; returns sums over its tokens."""
        totals: dict[str, float] = {}
        drift_max = 0.0
        for piece in pieces:
            terms = self.terms(piece)
            (piece.weight * terms["loss"] / num_counted).backward()
            drift_max = max(drift_max, float(terms.pop("drift_max")))
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + piece.weight * float(value.detach())
        totals = {name: distributed.total(totals.get(name, 0.0)) for name in TERMS}
        totals["drift_max"] = distributed.largest(drift_max)
        totals["grad_norm"] = trainer.update(totals["loss"] / num_counted)
        return totals

    @torch.no_grad()
    def _pieces(self, rollouts: list[Rollout], rewards: Sequence[float | None]) -> list[Piece]:
        size = self.config.group_size
        rows = packed_groups(rollouts, size)
        device = next(self.policy.parameters()).device
        differs = self.config.updates_per_rollout > 1 or self.sampled_elsewhere
        cost_R, found = torch.zeros(len(rollouts), device=device), []
        for indices, weight in distributed.passes(rows, self.tokens_per_forward):
            own = [i * size + g for i in indices for g in range(size)]
            chosen = [rows[i] for i in indices]
            reference = response_logprobs(self.reference, chosen, temperature=self.config.temperature)
            old_RT = sampling_logprobs([rollouts[r] for r in own], device)
            penalty_RT = reward_penalty(self.config, old_RT, reference.logprobs_RT)
            if penalty_RT is not None and weight:
                cost_R[own] = (penalty_RT * reference.mask_RT).sum(1)
            found.append((own, chosen, weight, reference.logprobs_RT, old_RT))
        costs = distributed.total(cost_R).tolist()
        paid = [None if reward is None else reward - cost for reward, cost in zip(rewards, costs, strict=True)]
        advantage_R, valid_R = (values.to(device) for values in advantages_of(paid, self.config))
        return [
            Piece(
                chosen,
                weight,
                advantage_R[own, None],
                valid_R[own, None],
                reference_RT,
                old_RT if differs else None,
                old_RT,
            )
            for own, chosen, weight, reference_RT, old_RT in found
        ]

    def terms(self, piece: Piece) -> dict[str, Tensor]:
        """Sums over the tokens that count: the loss with its gradient, and what is measured."""
        found = response_logprobs(self.policy, piece.rows, temperature=self.config.temperature, with_entropy=True)
        logprobs_RT, mask_RT = found.logprobs_RT, found.mask_RT & piece.valid_R1
        assert found.entropy_RT is not None
        now_RT = logprobs_RT.detach()
        drift_RT = (now_RT - piece.sampled_RT).abs().masked_fill(~mask_RT, 0.0)
        old_RT = now_RT if piece.old_RT is None else piece.old_RT
        loss_RT = clipped_policy_loss(logprobs_RT, old_RT, piece.advantage_R1, self.config.clip)
        loss_RT = loss_RT + loss_penalty(self.config, logprobs_RT, old_RT, piece.reference_RT)
        return {
            "loss": masked_sum(loss_RT, mask_RT),
            "kl_k1": masked_sum(kl_k1(now_RT, piece.reference_RT), mask_RT),
            "kl_k3": masked_sum(kl_k3(now_RT, piece.reference_RT), mask_RT),
            "entropy": masked_sum(found.entropy_RT, mask_RT),
            "drift": drift_RT.sum(),
            "drift_max": drift_RT.max(),
            "clipped": masked_sum(is_clipped(now_RT, old_RT, piece.advantage_R1, self.config.clip).float(), mask_RT),
        }
