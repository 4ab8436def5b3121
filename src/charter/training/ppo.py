"""Proximal policy optimisation with a value model, as in the paper that Charter follows.

Schulman et al. 2017 (arXiv:1707.06347); for language models Ziegler et al. 2019 (arXiv:1909.08593), section 2.1: the reward
stands at the last token, and each token pays ``kl_coef`` times its log-ratio to the reference. Rollouts, groups and
callbacks are those of GRPO. Departures: no learned scale of rewards; advantages are whitened over the whole rollout;
lambda of the advantages is 1, not .95: the value model starts as a reward model, which was trained at the ends of responses
alone, and a smaller lambda pays early tokens by its guesses (EXPERIMENTS.md, 2026-11-25).

Axes: R = responses, T = response tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charter.config import PolicyConfig
from charter.objectives.advantage import generalised_advantages, whiten
from charter.objectives.kl import kl_k1, kl_k3
from charter.objectives.ppo import clipped_policy_loss, clipped_value_loss, is_clipped
from charter.objectives.reduce import masked_sum
from charter.training import distributed
from charter.training.optimise import Trainer, disable_dropout, fingerprint
from charter.training.packing import (
    TOKENS_PER_FORWARD,
    PackedRow,
    hidden_before_tokens,
    prepared,
    response_logprobs,
)
from charter.training.penalty import loss_penalty, reward_penalty
from charter.training.policy_loop import Callbacks, PolicyLoop
from charter.training.reward import score_head
from charter.training.rollout import (
    EncodedPrompt,
    RewardFunction,
    Rollout,
    Sampler,
    StepRewards,
    packed_groups,
    sampling_logprobs,
)

TERMS = ("loss", "value_loss", "entropy", "clipped", "drift")


def value_model_from(reward_model: Any) -> Any:
    """A copy of the reward model that is trained to foresee, before each token, what the response will earn."""
    return copy.deepcopy(reward_model).requires_grad_(True)


def values_of(value_model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """float32[R, T]: expected return before each response token, 0 after the end."""
    hidden_ND, batch = hidden_before_tokens(value_model, prepared(value_model, rows))
    value_N = score_head(value_model)(hidden_ND)[:, 0].float()
    return torch.zeros(batch.mask_RT.shape, device=value_N.device).masked_scatter(batch.mask_RT, value_N)


def train_ppo(
    policy: Any,
    reference: Any,
    value_model: Any,
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
    """Train ``policy`` and ``value_model`` in place; see ``train_grpo`` for the rest.

    Args:
        value_model: a sequence classifier with one output, see ``value_model_from``.
    """
    disable_dropout(policy)
    disable_dropout(value_model)
    trainer = Trainer(
        torch.nn.ModuleDict({"policy": policy, "value": value_model}), folder,
        num_steps=config.steps * config.updates_per_rollout, learning_rate=config.learning_rate,
        warmup_fraction=config.warmup_fraction, decay=False,
        settings=["ppo", config.settings(), seed, fingerprint([astuple(p) for p in prompts])],
        gradient_checkpointing=config.gradient_checkpointing,
    )  # fmt: skip
    models = trainer.model
    update = ActorCriticUpdate(models["policy"], reference, models["value"], config, config.tokens_per_forward)
    told = callbacks or Callbacks()
    loop = PolicyLoop(policy, update, reward_function, prompts, config, seed, stop_ids, told, sampler)
    return loop.run(trainer)


@dataclass(frozen=True)
class Fixed:
    """What stays the same while the models are updated on a rollout; float[R, T], ``mask_RT`` and ``valid_R`` bool."""

    mask_RT: Tensor
    old_RT: Tensor
    reference_RT: Tensor
    value_RT: Tensor
    advantage_RT: Tensor
    return_RT: Tensor


@dataclass(frozen=True)
class ActorCriticUpdate:
    """All updates on one rollout, by advantages from a value model."""

    policy: Any
    reference: Any
    value_model: Any
    config: PolicyConfig
    tokens_per_forward: int = TOKENS_PER_FORWARD

    def __call__(self, trainer: Trainer, rollouts: list[Rollout], rewards: Sequence[float | None]) -> dict[str, float]:
        """As in GRPO; ``value_loss`` is that of the first update, per token."""
        self.policy.train()
        self.value_model.train()
        fixed = self._fix(rollouts, rewards)
        num_counted, num_valid = int(fixed.mask_RT.sum()), sum(reward is not None for reward in rewards)
        updates = [self._update(trainer, rollouts, fixed, num_counted) for _ in range(self.config.updates_per_rollout)]
        first = updates[0]
        return {
            "loss": first["loss"] / num_counted,
            "value_loss": first["value_loss"] / num_counted,
            "kl_k1": float(masked_sum(kl_k1(fixed.old_RT, fixed.reference_RT), fixed.mask_RT)) / num_valid,
            "kl_k3": float(masked_sum(kl_k3(fixed.old_RT, fixed.reference_RT), fixed.mask_RT)) / num_valid,
            "entropy": first["entropy"] / num_counted,
            "drift_mean": first["drift"] / num_counted,
            "drift_max": first["drift_max"],
            "clip_fraction": sum(u["clipped"] for u in updates) / num_counted / len(updates),
            "grad_norm": sum(u["grad_norm"] for u in updates) / len(updates),
        }

    @torch.no_grad()
    def _fix(self, rollouts: list[Rollout], rewards: Sequence[float | None]) -> Fixed:
        device = next(self.policy.parameters()).device
        old_RT = sampling_logprobs(rollouts, device)
        lengths_R = torch.tensor([len(rollout.response_ids) for rollout in rollouts], device=device)
        valid_R = torch.tensor([reward is not None for reward in rewards], device=device)
        mask_RT = (torch.arange(old_RT.shape[1], device=device) < lengths_R[:, None]) & valid_R[:, None]
        reference_RT, value_RT = torch.zeros_like(old_RT), torch.zeros_like(old_RT)
        for rows, own, weight in self._pieces(rollouts):
            values = values_of(self.value_model, rows)
            if not weight:
                continue
            reference = response_logprobs(self.reference, rows, temperature=self.config.temperature).logprobs_RT
            reference_RT[own, : reference.shape[1]] = reference
            value_RT[own, : values.shape[1]] = values
        reference_RT, value_RT = distributed.total(reference_RT), distributed.total(value_RT)
        penalty_RT = reward_penalty(self.config, old_RT, reference_RT)
        reward_RT = torch.zeros_like(old_RT) if penalty_RT is None else -penalty_RT
        score_R = torch.tensor([0.0 if reward is None else reward for reward in rewards], device=device)
        reward_RT[torch.arange(len(rollouts)), lengths_R - 1] += score_R
        advantage_RT = generalised_advantages(reward_RT, value_RT, mask_RT, self.config.gamma, self.config.gae_lambda)
        return_RT = advantage_RT + value_RT
        return Fixed(mask_RT, old_RT, reference_RT, value_RT, whiten(advantage_RT, mask_RT), return_RT)

    def _pieces(self, rollouts: list[Rollout]) -> list[tuple[list[PackedRow], list[int], float]]:
        """Groups of each forward pass of this process, the indices of their rollouts, and their weight."""
        size = self.config.group_size
        rows = packed_groups(rollouts, size)
        pieces = distributed.passes(rows, self.tokens_per_forward)
        return [
            ([rows[i] for i in piece], [i * size + g for i in piece for g in range(size)], w) for piece, w in pieces
        ]

    def _update(self, trainer: Trainer, rollouts: list[Rollout], fixed: Fixed, num_counted: int) -> dict[str, float]:
        totals: dict[str, float] = {}
        drift_max = 0.0
        for rows, own, weight in self._pieces(rollouts):
            terms = self.terms(rows, own, fixed)
            (weight * terms["loss"] / num_counted).backward()
            drift_max = max(drift_max, float(terms.pop("drift_max")))
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + weight * float(value.detach())
        totals = {name: distributed.total(totals.get(name, 0.0)) for name in TERMS}
        totals["drift_max"] = distributed.largest(drift_max)
        totals["grad_norm"] = trainer.update(totals["loss"] / num_counted)
        return totals

    def terms(self, rows: list[PackedRow], own: list[int], fixed: Fixed) -> dict[str, Tensor]:
        """Sums over the tokens that count: the loss with its gradient, and what is measured."""
        found = response_logprobs(self.policy, rows, temperature=self.config.temperature, with_entropy=True)
        assert found.entropy_RT is not None
        width = found.logprobs_RT.shape[1]

        def part(values_RT: Tensor) -> Tensor:
            return values_RT[own, :width]

        mask_RT, old_RT, advantage_RT = part(fixed.mask_RT), part(fixed.old_RT), part(fixed.advantage_RT)
        policy_RT = clipped_policy_loss(found.logprobs_RT, old_RT, advantage_RT, self.config.clip)
        policy_RT = policy_RT + loss_penalty(self.config, found.logprobs_RT, old_RT, part(fixed.reference_RT))
        value_RT = clipped_value_loss(
            values_of(self.value_model, rows), part(fixed.value_RT), part(fixed.return_RT), self.config.value_clip
        )
        clipped_RT = is_clipped(found.logprobs_RT.detach(), old_RT, advantage_RT, self.config.clip)
        value_loss = masked_sum(value_RT, mask_RT)
        drift_RT = (
            (found.logprobs_RT.detach() - old_RT).abs().masked_fill(~mask_RT, 0.0)
        )  # of the first update: sampling's
        return {
            "loss": masked_sum(policy_RT, mask_RT) + self.config.value_coef * value_loss,
            "value_loss": value_loss,
            "entropy": masked_sum(found.entropy_RT, mask_RT),
            "drift": drift_RT.sum(),
            "drift_max": drift_RT.max(),
            "clipped": masked_sum(clipped_RT.float(), mask_RT),
        }
