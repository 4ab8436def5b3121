"""The whole run, and the stages that sample and evaluate."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from charter.config.base import Count, ModelConfig, PromptsConfig, SamplingConfig, Section, Source
from charter.config.labelers import LabelConfig, labeler_models
from charter.config.scale import ScaleConfig
from charter.config.training import DpoConfig, PolicyConfig, RewardConfig, SftConfig, TrlConfig


class ReviseConfig(Section):
    num_prompts: Count | None = None
    """None: all training prompts."""
    rounds: Annotated[int, Field(ge=0)] = 4
    critique: bool = True
    """False: revise without a critique (ablation)."""
    sampling: SamplingConfig = SamplingConfig()
    critique_temperature: Annotated[float, Field(ge=0)] = 0.7
    revision_temperature: Annotated[float, Field(ge=0)] = 0.7


class SampleConfig(Section):
    num_prompts: Count | None = None
    sampling: SamplingConfig = SamplingConfig()


class WinsConfig(Section):
    """How evaluate.judge says which of two policies' responses to a prompt is better; both orders are asked."""

    principles: Literal["all", "none"] = "none"
    """none: which is better in general; all: by every principle of the constitution, combined by weight."""
    min_log_odds: Annotated[float, Field(ge=0)] = 0.0
    """A principle counts only where its log-odds, averaged over both orders, reach this (nats)."""
    question: Source | None = None
    """package.module:attribute of a wording of the question; None: Charter's."""


class EvaluateConfig(Section):
    later: ClassVar[frozenset[str]] = frozenset({"wins"})
    prompts: PromptsConfig
    gold: Source | None = None
    """package.module:attribute of an exact oracle, where the true goal can be computed."""
    judge: ModelConfig | None = None
    """A held-out model that judges the policies; must differ from the labeler."""
    wins: WinsConfig = WinsConfig()
    """Where a judge is named: the last policy's wins against SL-CAI and the initial one."""
    sl_rounds: tuple[int, ...] = ()
    """Also train and evaluate SL-CAI after these numbers of revision rounds."""
    num_checkpoints: Annotated[int, Field(ge=0)] = 3
    """How many checkpoints of the RL policy are evaluated on the way, spread evenly."""
    sampling: SamplingConfig = SamplingConfig()


class RunConfig(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    num_threads: Count | None = None
    """CPU threads; None: all cores."""
    tracker: Literal["tensorboard", "trackio", "wandb", "mlflow"] | None = None
    """Shows the metrics of training too, once a stage is done; metrics.jsonl is always written. Nothing leaves the
    machine."""
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
    dpo: DpoConfig = DpoConfig()
    evaluate: EvaluateConfig
    scale: ScaleConfig = ScaleConfig()
    engine: Literal["charter", "trl"] = "charter"
    """Who trains: Charter's own loops, or TRL's trainers, with the same files in and out."""
    trl: TrlConfig = TrlConfig()
    """engine trl: settings handed on, as deepspeed or use_vllm."""

    @model_validator(mode="after")
    def _every_process_has_a_prompt(self) -> RunConfig:
        if self.policy.algorithm != "dpo" and self.policy.prompts_per_step < self.scale.processes:
            raise ValueError(
                f"policy.prompts_per_step is {self.policy.prompts_per_step} for {self.scale.processes} processes: give every "
                "process a prompt, or lower scale.processes"
            )
        return self

    @model_validator(mode="after")
    def _trl_can_do_it(self) -> RunConfig:
        if self.engine == "charter":
            if self.trl != TrlConfig():
                raise ValueError("trl has settings and engine is charter: write engine: trl, or leave trl out")
            return self
        policy = self.policy
        wrong = {
            f"policy.algorithm {policy.algorithm}": policy.algorithm != "grpo",
            "policy.kl_in reward": policy.kl_in == "reward",
            "policy.kl_estimator k1": policy.kl_estimator == "k1",
            "policy.kl_target": policy.kl_target is not None,
            "policy.kl_budget": policy.kl_budget is not None,
            "policy.monitor.on_alarm stop": policy.monitor.on_alarm == "stop",
            "policy.rollouts (trl.grpo.use_vllm says it there)": policy.rollouts is not None,
            "scale.processes": self.scale.processes > 1,
        }
        for what in (name for name, found in wrong.items() if found):
            raise ValueError(f"engine trl knows grpo with a k3 penalty in the loss, in one process: leave {what} out")
        return self

    @model_validator(mode="after")
    def _labeler_is_not_the_judge(self) -> RunConfig:
        judge = self.evaluate.judge
        if judge is not None and judge.source in [model.source for model in labeler_models(self.label.labeler)]:
            raise ValueError(
                f"evaluate.judge and label.labeler.model are both {judge.source!r}: a labeler can't judge its own "
                "labels; name another model, or leave evaluate.judge out"
            )
        return self
