"""The stages that train: SFT, reward model, DPO and policy optimisation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from charter.config.base import SERVERS, Count, ModelConfig, Probability, Section, Source
from charter.config.labelers import CheckerConfig, DirectConfig


class LoraConfig(Section):
    """Train small matrices beside the frozen ones (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

    rank: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The matrices count alpha / rank times."""
    targets: Annotated[tuple[Source, ...], Field(min_length=1)] | None = None
    """Names of the linear layers that get them, as [q_proj, v_proj]; None: all but the output head."""


class Training(Section):
    """What every section of training has."""

    later: ClassVar[frozenset[str]] = frozenset({"lora"})
    knobs: ClassVar[frozenset[str]] = frozenset({"tokens_per_forward", "gradient_checkpointing"})
    lora: LoraConfig | None = None
    """Train adapters on the frozen model instead of all its weights; wants about ten times the learning rate."""
    tokens_per_forward: Count = 8192
    """Memory against speed: the most tokens, padding among them, that are computed at once. The gradient is the same."""
    gradient_checkpointing: bool = False
    """Memory against speed: forget what the layers computed, and compute it again for the gradient, which is the same."""


class SftConfig(Training):
    rounds: Literal["all", "last"] = "all"
    """Train on revisions of all rounds (the paper) or only on the last."""
    num_helpful: Annotated[int, Field(ge=0)] = 0
    """Unrevised answers of the helpful model to prompts marked ``harmful: false``, mixed in so that it doesn't forget how to
    help. Prompts without that mark may be harmful: they give none."""
    helpful_data: Source | None = None
    """A file of prompt/completion rows to mix in instead."""
    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup_fraction: Probability = 0.05
    checkpoint_every: Count = 50


class RewardConfig(Training):
    later: ClassVar[frozenset[str]] = Training.later | {"ensemble"}
    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup_fraction: Probability = 0.05
    holdout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    centering_coef: Annotated[float, Field(ge=0)] = 0.0
    initialise_from: Literal["helpful", "sl-cai"] = "sl-cai"
    checkpoint_every: Count = 50
    ensemble: Count = 1
    """Reward models to train: the first on all prompts, the others on prompts drawn with replacement, in an order of their own."""


class DpoConfig(Training):
    """Direct preference optimisation: reinforcement learning's alternative, straight from the preference pairs.

    Used where ``policy.algorithm`` is dpo; of ``policy`` only ``initialise_from`` is read then.
    """

    epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    warmup_fraction: Probability = 0.05
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the KL penalty that the objective implies."""
    checkpoint_every: Count = 50


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "kind=several"
    return f"kind={value.get('kind') if isinstance(value, dict) else getattr(value, 'kind', None)}"


def _by(value: Any) -> str:
    return f"kind={value}" if isinstance(value, str) else _kind(value)


class RewardSource(Section):
    """One of several sources of reward."""

    by: Annotated[
        Annotated[Literal["reward-model"], Tag("kind=reward-model")]
        | Annotated[CheckerConfig, Tag("kind=checker")]
        | Annotated[DirectConfig, Tag("kind=direct")],
        Discriminator(_by),
    ]
    weight: Annotated[float, Field(gt=0)] = 1.0
    domains: Literal["all", "rest"] | Annotated[tuple[Source, ...], Field(min_length=1)] = "all"
    """Prompts of which domains it scores; rest: of those that no other source names, and those without a domain."""


PolicyReward = Annotated[
    Annotated[CheckerConfig, Tag("kind=checker")]
    | Annotated[DirectConfig, Tag("kind=direct")]
    | Annotated[tuple[RewardSource, ...], Field(min_length=1), Tag("kind=several")],
    Discriminator(_kind),
]


class MonitorConfig(Section):
    """When reinforcement learning gives the alarm; ratios and rises compare with the first steps of the run."""

    on_alarm: Literal["warn", "stop"] = "warn"
    """stop: end the training at the first alarm; the policy so far is kept."""
    window: Count = 5
    """Steps that are averaged."""
    max_length_ratio: Annotated[float, Field(gt=1)] = 2.0
    min_length_ratio: Probability = 0.25
    min_entropy_ratio: Probability = 0.1
    max_repetition_rise: Probability = 0.25
    """Rise of the share of a response's token pairs that stood in it before."""
    max_stopped_drop: Probability = 0.3
    """Fall of the share of responses that end by themselves."""
    max_refusal_rise: Probability = 0.3
    """Rise of the share of responses with a stock phrase of refusal."""
    max_refusal_drop: Probability = 0.3
    """Fall of the same share: what was declined is done again."""
    max_over_refusal_rise: Probability = 0.2
    """Rise of the share of refusals among responses to prompts that are marked harmless."""
    max_drift: Annotated[float, Field(gt=0)] = 0.1
    """Mean difference, in nats per token, of log-probabilities between sampling and the first training pass."""
    max_kl: Annotated[float, Field(gt=0)] = 50.0
    """Nats per response; kl_budget stops earlier where it is set."""
    holdout: Literal["gold", "judge", "none"] = "gold"
    """Who scores recorded rollouts at each checkpoint, to see whether reward rises while it falls: evaluate.gold, where it is
    given, or evaluate.judge, which is then in memory during training and asked."""
    holdout_z: Annotated[float, Field(gt=0)] = 3.0
    """Standard errors by which reward must have risen and the holdout fallen."""


class PolicyConfig(Training):
    later: ClassVar[frozenset[str]] = Training.later | {
        "reward", "rollouts", "kl_estimator", "kl_in", "kl_target", "entropy_coef", "monitor", "caution",
    }  # fmt: skip
    algorithm: Literal["grpo", "rloo", "ppo", "dpo"] = "grpo"
    """grpo: advantages within the group; rloo: against the mean of the others, unscaled; ppo: from a value model; dpo: no
    reinforcement learning, but the section ``dpo``."""
    reward: PolicyReward | None = None
    """A check, or a labeler's scores (d-RLAIF), instead of a reward model: nothing is labelled then. Or a list of sources."""
    initialise_from: Literal["sl-cai", "helpful"] = "sl-cai"
    """helpful: reinforcement learning only (ablation)."""
    steps: Count = 100
    prompts_per_step: Count = 16
    group_size: Count = 8
    """Responses to each prompt, which are compared with each other; ppo, which compares none, can do with one."""
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
    gae_lambda: Probability = 1.0
    """ppo: 1 trusts the reward alone, 0 the value model alone, which knows nothing of unfinished responses at first."""
    value_coef: Annotated[float, Field(ge=0)] = 0.1
    """ppo: weight of the value loss."""
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    """ppo: how far a value may move per rollout, in units of reward."""
    max_new_tokens: Count = 256
    temperature: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_every: Count = 10
    rollouts: ModelConfig | None = None
    """A vLLM server that samples the rollouts, as http://host:8000/v1#name, and is given the policy's weights before each step;
    None: this process samples."""
    monitor: MonitorConfig = MonitorConfig()
    caution: Literal["min"] | Annotated[float, Field(ge=0)] = 1.0
    """With reward.ensemble: the reward is the members' mean less so many of their standard deviations; or the least of them."""

    @property
    def reward_sources(self) -> tuple[RewardSource, ...]:
        """What scores the rollouts; one alone where the run file names no list."""
        if isinstance(self.reward, tuple):
            return self.reward
        return (RewardSource(by=self.reward or "reward-model"),)

    @property
    def needs_reward_model(self) -> bool:
        """Is a reward model among the sources?"""
        return any(source.by == "reward-model" for source in self.reward_sources)

    @model_validator(mode="after")
    def _rollouts_come_from_a_server(self) -> PolicyConfig:
        if self.rollouts is not None and not self.rollouts.source.startswith(SERVERS):
            raise ValueError(
                f"rollouts.source {self.rollouts.source!r} is no server: write it as http://host:8000/v1#name, or leave rollouts "
                "out: this process then samples"
            )
        return self

    @model_validator(mode="after")
    def _a_group_has_two(self) -> PolicyConfig:
        if self.group_size < 2 and self.algorithm in ("grpo", "rloo"):
            raise ValueError(
                f"group_size is {self.group_size}: {self.algorithm} compares the responses of a group, so that one alone teaches "
                "nothing: give it 2 or more, or choose ppo"
            )
        return self

    @model_validator(mode="after")
    def _dpo_asks_for_no_reward(self) -> PolicyConfig:
        if self.algorithm == "dpo" and self.reward is not None:
            raise ValueError(
                "reward with algorithm: dpo: DPO learns from labelled pairs; leave reward out, or choose grpo, rloo or ppo"
            )
        return self


class TrlConfig(Section):
    """Settings for TRL's own configurations, by their names there; they go before what follows from the run file."""

    sft: dict[str, Any] = {}
    reward: dict[str, Any] = {}
    grpo: dict[str, Any] = {}
