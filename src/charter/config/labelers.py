"""Who labels, and the check of whether they are fit to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from charter.config.base import Count, ModelConfig, Probability, Section, Source


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
    """Honest responses against which five texts that answer nothing are put up, in every labelling run, but at most a fifth of
    the pairs; 0: none."""


class LabelConfig(Section):
    labeler: LabelerConfig
    check: CheckConfig = CheckConfig()
    min_coverage: Probability = 0.8
    """Stop when fewer pairs than this fraction get a usable label."""
    min_margin: Probability = 0.0
    """Abstain (undecided) where |p_a - 0.5| is below this."""
