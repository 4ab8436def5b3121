"""Rollouts: groups of responses that the policy samples to prompts, drawn so that a killed run makes the same ones.

Every draw is keyed by (seed, step, prompt, sibling), never by what was done before.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from charter.config import PolicyConfig
from charter.errors import TrainingError
from charter.models.decode import Sampled, sample_tokens
from charter.training.packing import PackedRow


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's id and token ids."""

    id: str
    ids: list[int]


@dataclass(frozen=True)
class Rollout:
    """One sampled response: token ids with the stop token, where it stopped by itself.

    ``logprobs`` (nats, one per token) are those with which it was sampled.
    """

    prompt_id: str
    prompt_ids: list[int]
    response_ids: list[int]
    stopped: bool
    logprobs: list[float] = field(default_factory=list)


class Sampler(Protocol):
    """Samples one response per prompt, as ``decode.sample_tokens`` does."""

    def __call__(
        self,
        policy: Any,
        prompts: Sequence[Sequence[int]],
        /,
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        stop_ids: Sequence[int],
    ) -> Sampled: ...


RewardFunction = Callable[[list[Rollout]], list[float | None]]
"""Rewards of rollouts, which come group by group; None where there is none."""


class StepRewards(Protocol):
    """Rewards that depend on all rollouts of a step: several processes score their shares, and each combines all scores."""

    def score(self, rollouts: list[Rollout]) -> list[Any]:
        """What is known of each rollout by itself, as JSON; rollouts come group by group."""
        ...

    def combine(self, scores: list[Any]) -> tuple[list[float | None], dict[str, Any]]:
        """The rewards of a step's rollouts, and figures for its line of metrics."""
        ...


@dataclass(frozen=True)
class EachAlone:
    """A reward function, by which rollouts don't depend on one another."""

    function: RewardFunction

    def score(self, rollouts: list[Rollout]) -> list[Any]:
        return list(self.function(rollouts))

    def combine(self, scores: list[Any]) -> tuple[list[float | None], dict[str, Any]]:
        return scores, {}


def draw_prompts(prompts: Sequence[EncodedPrompt], count: int, seed: int, step: int) -> list[EncodedPrompt]:
    """The prompts of a step (0, 1, ...): without replacement within an epoch; each epoch has its own order."""
    drawn = []
    for place in range(step * count, (step + 1) * count):
        epoch, index = divmod(place, len(prompts))
        drawn.append(prompts[_order(len(prompts), seed, epoch)[index]])
    return drawn


def _order(size: int, seed: int, epoch: int) -> list[int]:
    order = list(range(size))
    random.Random(f"{seed}/policy/{epoch}").shuffle(order)
    return order


def rollout_seed(seed: int, step: int, prompt_id: str, sibling: int) -> int:
    """A seed in [0, 2**64) of its own for every rollout of a run."""
    key = f"{seed}/{step}/{prompt_id}/{sibling}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


def roll_out(
    policy: Any,
    prompts: Sequence[EncodedPrompt],
    config: PolicyConfig,
    *,
    seed: int,
    step: int,
    stop_ids: Sequence[int],
    first_place: int = 0,
    sampler: Sampler | None = None,
) -> list[Rollout]:
    """``config.group_size`` responses to each prompt, group by group.

    Args:
        first_place: of the first prompt in its step.
        sampler: who samples in the policy's name; None: the policy itself, here.
    """
    siblings = [
        (place, prompt, g) for place, prompt in enumerate(prompts, first_place) for g in range(config.group_size)
    ]
    sampled = (sampler or sample_tokens)(
        policy,
        [prompt.ids for _, prompt, _ in siblings],
        # a prompt may come twice in a step, at the seam of two epochs: its place keeps the two groups apart
        seeds=[rollout_seed(seed, step, f"{prompt.id}/{place}", g) for place, prompt, g in siblings],
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        stop_ids=stop_ids,
    )
    return [
        Rollout(prompt.id, prompt.ids, ids, stopped, logprobs)
        for (_, prompt, _), ids, stopped, logprobs in zip(
            siblings, sampled.ids, sampled.stopped, sampled.logprobs, strict=True
        )
    ]


def packed_groups(rollouts: Sequence[Rollout], group_size: int) -> list[PackedRow]:
    """A row per group: its prompt once, then its responses."""
    groups = [rollouts[i : i + group_size] for i in range(0, len(rollouts), group_size)]
    return [PackedRow(group[0].prompt_ids, [rollout.response_ids for rollout in group]) for group in groups]


def sampling_logprobs(rollouts: Sequence[Rollout], device: Any) -> Tensor:
    """float32[R, T]: the log-probabilities with which the tokens were sampled, 0 after the end."""
    longest = max(len(rollout.logprobs) for rollout in rollouts)
    padded = [rollout.logprobs + [0.0] * (longest - len(rollout.logprobs)) for rollout in rollouts]
    return torch.tensor(padded, dtype=torch.float32, device=device)


def known_rewards(rewards: Sequence[float | None], step: int) -> list[float]:
    """The rewards that are there.

    Raises:
        TrainingError: none is, or one is NaN or infinite.
    """
    known = [reward for reward in rewards if reward is not None]
    if not known:
        raise TrainingError(f"step {step}: no rollout got a reward; look at the reward function's abstentions")
    if not all(map(math.isfinite, known)):
        raise TrainingError(f"step {step}: a reward is not finite; check the reward model, or give None for no reward")
    return known
