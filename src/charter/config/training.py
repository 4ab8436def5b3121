"""The stages that train: SFT, reward model, DPO and policy optimisation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from charter.config.base import Count, Probability, Section, Source
from charter.config.labelers import CheckerConfig, DirectConfig


class SftConfig(Section):
    rounds: Literal["all", "last"] = "all"
    """Train on revisions of all rounds (the paper) or only on the last."""
    num_helpful: Annotated[int, Field(ge=0)] = 0
    """Unrevised answers of the helpful model to prompts not known to be harmful, mixed in so that it doesn't forget how to help."""
    helpful_data: Source | None = None
    """A file of prompt/completion rows to mix in instead."""
    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup_fraction: Probability = 0.05
    checkpoint_every: Count = 50


class RewardConfig(Section):
    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup_fraction: Probability = 0.05
    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    centering_coef: Annotated[float, Field(ge=0)] = 0.0
    initialise_from: Literal["helpful", "sl-cai"] = "sl-cai"
    checkpoint_every: Count = 50


class DpoConfig(Section):
    """Direct preference optimisation: reinforcement learning's alternative, straight from the preference pairs."""

    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    warmup_fraction: Probability = 0.05
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the KL penalty that the objective implies."""
    checkpoint_every: Count = 50


class PolicyConfig(Section):
    later: ClassVar[frozenset[str]] = frozenset({"reward", "kl_estimator", "kl_in", "kl_target", "entropy_coef"})
    algorithm: Literal["grpo", "rloo", "ppo"] = "grpo"
    """grpo: advantages within the group; rloo: against the mean of the others, unscaled; ppo: from a value model."""
    reward: Annotated[CheckerConfig | DirectConfig, Field(discriminator="kind")] | None = None
    """A check, or a labeler's scores (d-RLAIF), instead of a reward model: nothing is labelled then."""
    initialise_from: Literal["sl-cai", "helpful"] = "sl-cai"
    """helpful: reinforcement learning only (ablation)."""
    steps: Count = 100
    prompts_per_step: Count = 16
    group_size: Annotated[int, Field(ge=2)] = 8
    updates_per_rollout: Count = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    warmup_fraction: Probability = 0.05
    kl_coef: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the KL penalty to the frozen reference; with kl_target, the weight to begin with."""
    kl_estimator: Literal["k1", "k3"] | None = None
    """How the penalty estimates the KL of a token; None: k3 in the loss, k1 in the reward."""
    kl_in: Literal["loss", "reward"] | None = None
    """Where the penalty stands; None: in the reward for ppo, in the loss for grpo and rloo."""
    kl_target: Annotated[float, Field(gt=0)] | None = None
    """Adapt kl_coef after each step so that the KL, in nats per response, comes to this (Ziegler et al. 2019)."""
    kl_budget: Annotated[float, Field(gt=0)] | None = None
    """Stop when KL(policy||reference), in nats per response, passes this."""
    entropy_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of an entropy bonus in the loss, estimated from the sampled tokens."""
    clip: Annotated[float, Field(gt=0)] = 0.2
    scale_advantages: Literal["group", "none"] = "group"
    gamma: Probability = 1.0
    """ppo: discount per token."""
    gae_lambda: Probability = 0.95
    """ppo: 1 trusts the reward alone, 0 the value model alone."""
    value_coef: Annotated[float, Field(ge=0)] = 0.1
    """ppo: weight of the value loss."""
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    """ppo: how far a value may move per rollout, in units of reward."""
    max_new_tokens: Count = 256
    temperature: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_every: Count = 10


class TrlConfig(Section):
    """Settings for TRL's own configurations, by their names there; they go before what follows from the run file."""

    sft: dict[str, Any] = {}
    reward: dict[str, Any] = {}
    grpo: dict[str, Any] = {}
