"""The run file: one YAML document explains a run completely. Unknown keys are refused.

A *source* string names where a thing comes from:
    path/to/folder, path/to/file      on disk (relative to the run file)
    org/name                          a Hugging Face hub id (models)
    package.module:attribute          Python: a callable or a path that an installed package provides
    http://host:port/v1#model-name    an OpenAI-compatible endpoint (labelers and judges)
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Source = Annotated[str, Field(min_length=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the run file: frozen, typed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PromptsConfig(Section):
    source: Source
    """File, folder, or package.module:function that yields prompts."""
    format: Literal["auto", "jsonl", "csv", "hh-rlhf", "trl", "parquet", "sharegpt", "oasst", "ultrafeedback"] = "auto"
    column: str | None = None
    """CSV column that holds the prompt."""
    limit: Count | None = None
    """Use the first so many, in an order drawn by the seed."""


class EndpointConfig(Section):
    """How an OpenAI-compatible server is asked."""

    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself stands in no file."""
    concurrency: Count = 16
    """Calls at once, at most; fewer while the server says 429."""
    attempt_seconds: Annotated[float, Field(gt=0)] = 60.0
    deadline_seconds: Annotated[float, Field(gt=0)] = 180.0
    """Seconds that one item may take, all its attempts together; then it is an abstention."""
    dead_seconds: Annotated[float, Field(gt=0)] = 900.0
    """Seconds to wait for a server that answers nobody, before the run stops."""
    top_logprobs: Annotated[int, Field(ge=2, le=20)] = 20
    continues_answers: bool = False
    """The server goes on with an answer that is begun (continue_final_message, as vLLM does)."""
    price: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    """Money per million prompt tokens and per million completion tokens."""
    max_spend: Annotated[float, Field(gt=0)] | None = None
    """Stop when so much money is spent, by the price."""
    max_tokens: Count | None = None
    """Stop when so many tokens are used."""

    @model_validator(mode="after")
    def _a_cap_on_money_needs_a_price(self) -> EndpointConfig:
        if self.max_spend is not None and self.price is None:
            raise ValueError(
                "max_spend without price: say what a million prompt and completion tokens cost, as [0.5, 1.5]"
            )
        return self


class ModelConfig(Section):
    source: Source
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU that has it, float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    endpoint: EndpointConfig | None = None
    """How to ask a source that is a server."""


class SamplingConfig(Section):
    max_new_tokens: Count = 256
    temperature: Annotated[float, Field(ge=0)] = 1.0
    batch_size: Count = 128
    """Rows that are generated together; also the unit of resuming."""


class ReviseConfig(Section):
    num_prompts: Count | None = None
    """None: all training prompts."""
    rounds: Annotated[int, Field(ge=0)] = 4
    critique: bool = True
    """False: revise without a critique (ablation)."""
    sampling: SamplingConfig = SamplingConfig()
    critique_temperature: Annotated[float, Field(ge=0)] = 0.7
    revision_temperature: Annotated[float, Field(ge=0)] = 0.7


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


class SampleConfig(Section):
    num_prompts: Count | None = None
    sampling: SamplingConfig = SamplingConfig()


class SoftLabels(Section):
    """How log-odds become a soft label, whoever gave them."""

    sharpness: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the combined log-odds before they become the soft target."""
    min_log_odds: Annotated[float, Field(ge=0)] = 0.0
    """A principle counts only where its log-odds, averaged over both orders, reach this (nats): ties carry biases, not norms."""
    batch_size: Count = 128
    """Pairs that are labelled together."""


class AskingConfig(SoftLabels):
    """A model that is asked which of two responses is better."""

    model: ModelConfig
    chain_of_thought: bool = False
    clamp: tuple[Probability, Probability] | None = None
    """Range to which chain-of-thought probabilities are clamped (the paper: 0.4-0.6)."""
    votes: Count | None = None
    """Sample so many verdicts and count them, for models that give no log-probabilities."""
    principles: Literal["all", "none"] | Count = "all"
    """How many principles are asked of each pair; all of them are combined by weight. none: which is better in general."""
    both_orders: bool = True
    few_shot: bool = False
    """Put two worked examples before each question, for models that don't have the skill."""
    question: Source | None = None
    """package.module:attribute of a wording of the question, for models that know their own; None: Charter's."""
    max_new_tokens: Count = 256

    @model_validator(mode="after")
    def _clamp_treats_both_alike(self) -> AskingConfig:
        if self.clamp is not None and (self.clamp[0] >= 0.5 or abs(sum(self.clamp) - 1) > 1e-9):
            raise ValueError(
                f"clamp is {list(self.clamp)}: give a range around 0.5 that treats A and B alike, as [0.4, 0.6]"
            )
        return self


class ConstitutionalConfig(AskingConfig):
    """One principle per question; plain: no principle at all (RLAIF without a constitution)."""

    kind: Literal["constitutional", "plain"] = "constitutional"


class DebateConfig(AskingConfig):
    """Two debaters argue for the two responses; the labeler decides with the debate before it."""

    kind: Literal["debate"]
    debater: ModelConfig | None = None
    """Model that argues for both sides; None: the labeler's own."""
    turns: Count = 1
    argument: Source | None = None
    """package.module:attribute of a wording of the request to argue; None: Charter's."""


class AssistedConfig(AskingConfig):
    """The labeler sees critiques of both responses by a named model: one step of recursive reward modelling."""

    kind: Literal["assisted"]
    critic: ModelConfig


class DirectConfig(SoftLabels):
    """Each response is scored on its own (d-RLAIF); the higher score is better."""

    kind: Literal["direct"]
    model: ModelConfig
    principles: Literal["all", "none"] = "all"
    options: dict[str, float] = {str(n): float(n) for n in range(1, 11)}
    """What the model can answer, and its worth; the score is the expected worth."""
    chain_of_thought: bool = False
    question: Source | None = None
    """package.module:attribute of a wording that gives the conversation to put; None: Charter's."""
    max_new_tokens: Count = 256

    @model_validator(mode="after")
    def _options_differ(self) -> DirectConfig:
        if len(self.options) < 2 or len(set(self.options.values())) < 2:
            raise ValueError("options must hold at least two answers of different worth")
        return self


class HumanConfig(SoftLabels):
    """Labels that people gave, on the page of charter rate or in a file."""

    kind: Literal["human"]
    labels: Source
    """File of preference pairs, database of charter rate, or postgresql:// URL."""


class CheckerConfig(SoftLabels):
    """Verifiable: a response is right or wrong by the prompt's answer."""

    kind: Literal["checker"]
    check: Literal["exact", "math", "code"] | Source = "exact"
    """exact: the prompt's answer; math: equal to it; code: passes the tests in it; or package.module:function(prompt, response)
    that gives a score in [0, 1], or None where it can't tell."""
    allow_code: bool = False
    """code: run what a model wrote, in a process of its own without network."""
    seconds: Annotated[float, Field(gt=0)] = 5.0
    memory_mb: Count = 512


def _kind(value: Any) -> str:
    kind = value.get("kind", "constitutional") if isinstance(value, dict) else getattr(value, "kind", "constitutional")
    return f"kind={'constitutional' if kind == 'plain' else kind}"


MemberConfig = Annotated[
    Annotated[ConstitutionalConfig, Tag("kind=constitutional")]
    | Annotated[DebateConfig, Tag("kind=debate")]
    | Annotated[AssistedConfig, Tag("kind=assisted")]
    | Annotated[DirectConfig, Tag("kind=direct")]
    | Annotated[HumanConfig, Tag("kind=human")]
    | Annotated[CheckerConfig, Tag("kind=checker")],
    Discriminator(_kind),
]


class CommitteeConfig(SoftLabels):
    """Several labelers, whose labels are combined."""

    kind: Literal["committee"]
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=2)]
    method: Literal["mean", "median", "majority"] = "mean"
    """mean: of the members' log-odds; median: of their probabilities; majority: share of the members that prefer A."""


LabelerConfig = Annotated[
    Annotated[ConstitutionalConfig, Tag("kind=constitutional")]
    | Annotated[DebateConfig, Tag("kind=debate")]
    | Annotated[AssistedConfig, Tag("kind=assisted")]
    | Annotated[DirectConfig, Tag("kind=direct")]
    | Annotated[HumanConfig, Tag("kind=human")]
    | Annotated[CheckerConfig, Tag("kind=checker")]
    | Annotated[CommitteeConfig, Tag("kind=committee")],
    Discriminator(_kind),
]
AnyLabeler = (
    ConstitutionalConfig | DebateConfig | AssistedConfig | DirectConfig | HumanConfig | CheckerConfig | CommitteeConfig
)


def labeler_models(config: AnyLabeler) -> list[ModelConfig]:
    """Every model that a labeler asks, critics and debaters among them."""
    match config:
        case CommitteeConfig():
            return [model for member in config.members for model in labeler_models(member)]
        case DebateConfig():
            return [config.model, *([config.debater] if config.debater else [])]
        case AssistedConfig():
            return [config.model, config.critic]
        case ConstitutionalConfig() | DirectConfig():
            return [config.model]
    return []


class CheckConfig(Section):
    """Is the labeler fit to label? Asked before anything is labelled."""

    pairs: Source | None = None
    """Pairs with a known answer: a file of human preferences, or package.module:function that gives cases."""
    undefended: Source | None = None
    """package.module:attribute of the question's wording without its defences, to attack beside; None: Charter's."""
    attacks: Source | None = None
    """package.module:attribute of more attacks, by name, in words that the labeler knows."""
    num_pairs: Count = 200
    min_accuracy: Probability = 0.6
    min_coverage: Probability = 0.2
    max_position_bias: Probability = 0.3
    """Share of known pairs in which a verdict may stay with the position before there is a warning."""
    max_calibration_error: Probability = 0.15
    on_unfit: Literal["stop", "warn"] = "stop"
    num_controls: Annotated[int, Field(ge=0)] = 20
    """Honest responses against which texts that answer nothing are put up, in every labelling run; 0: none."""


class LabelConfig(Section):
    labeler: LabelerConfig
    check: CheckConfig = CheckConfig()
    min_coverage: Probability = 0.8
    """Stop when fewer pairs than this fraction get a usable label."""
    min_margin: Probability = 0.0
    """Abstain (undecided) where |p_a - 0.5| is below this."""


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
    """Weight of the KL penalty to the frozen reference (k3 estimator, in the loss)."""
    kl_budget: Annotated[float, Field(gt=0)] | None = None
    """Stop when KL(policy||reference), in nats per response, passes this."""
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


class EvaluateConfig(Section):
    prompts: PromptsConfig
    gold: Source | None = None
    """package.module:attribute of an exact oracle, where the true goal can be computed."""
    judge: ModelConfig | None = None
    """A held-out model that judges the policies; must differ from the labeler."""
    sl_rounds: tuple[int, ...] = ()
    """Also train and evaluate SL-CAI after these numbers of revision rounds."""
    num_checkpoints: Annotated[int, Field(ge=0)] = 3
    """How many checkpoints of the RL policy are evaluated on the way, spread evenly."""
    sampling: SamplingConfig = SamplingConfig()


class RunConfig(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    num_threads: Count | None = None
    """CPU threads; None: all cores."""
    tracker: Literal["tensorboard"] | None = None
    """Shows the metrics of training too, once a stage is done; metrics.jsonl is always written."""
    constitution: Source
    model: ModelConfig
    """The helpful-only model that both phases start from."""
    prompts: PromptsConfig
    phases: tuple[Literal["sl", "rl"], ...] = ("sl", "rl")
    """Leave one out for an ablation."""
    revise: ReviseConfig = ReviseConfig()
    sft: SftConfig = SftConfig()
    sample: SampleConfig = SampleConfig()
    label: LabelConfig
    reward: RewardConfig = RewardConfig()
    policy: PolicyConfig = PolicyConfig()
    evaluate: EvaluateConfig

    @model_validator(mode="after")
    def _labeler_is_not_the_judge(self) -> RunConfig:
        judge = self.evaluate.judge
        if judge is not None and judge.source in [model.source for model in labeler_models(self.label.labeler)]:
            raise ValueError(
                f"evaluate.judge and label.labeler.model are both {judge.source!r}: a labeler can't judge its own "
                "labels; name another model, or leave evaluate.judge out"
            )
        return self
