"""What a run file asks for and won't get, as far as it can be told before any work: lines for charter run and plan."""

from __future__ import annotations

from charter.config import DpoConfig, ModelConfig, PolicyConfig, RunConfig, labeler_models
from charter.models.endpoint import is_endpoint
from charter.models.reach import unset_key
from charter.stages.inputs import Inputs


def warnings(config: RunConfig, inputs: Inputs) -> list[str]:
    """A line each, in words; nothing of it stops the run."""
    repeated = [
        f"{key}: {count:,} rows repeat a conversation that came before; each is taken once"
        for key, count in inputs.num_repeated.items()
        if count
    ]
    seen = len(inputs.seen())
    overlap = (
        f"evaluate.prompts: {seen:,} of {len(inputs.held_out):,} occur word for word among the training prompts; they "
        "stay, and the summary and the report give the figures without them too"
    )
    return [*repeated, *([overlap] if seen else []), *_no_helpful_answers(config, inputs), *_not_read_by_dpo(config)]


def _not_read_by_dpo(config: RunConfig) -> list[str]:
    """Settings under ``policy`` that were changed for nothing, because DPO has a section of its own."""
    if config.policy.algorithm != "dpo" or "rl" not in config.phases:
        return []
    default, read = PolicyConfig(), ("algorithm", "initialise_from")
    fields = [name for name in PolicyConfig.model_fields if name not in read]
    changed = [name for name in fields if getattr(config.policy, name) != getattr(default, name)]
    moved = [name for name in changed if name in DpoConfig.model_fields]
    idle = [name for name in changed if name not in moved]
    told = "policy.algorithm is dpo, which doesn't read"
    return [
        *([f"{told} {_listed('policy', moved)}: set {_listed('dpo', moved)}"] if moved else []),
        *([f"{told} {_listed('policy', idle)}: without effect in this run"] if idle else []),
    ]


def _listed(section: str, names: list[str]) -> str:
    return ", ".join(f"{section}.{name}" for name in names)


def servers_of(config: RunConfig, stage: str) -> list[ModelConfig]:
    """The servers that a stage asks."""
    judge = [config.evaluate.judge] if config.evaluate.judge is not None else []
    scorers = [source.by for source in config.policy.reward_sources if source.by != "reward-model"]
    asked = {
        "4-label": labeler_models(config.label.labeler),
        "6-policy": [
            *(model for by in scorers for model in labeler_models(by)),
            *(judge if config.policy.monitor.holdout == "judge" else []),
        ],
        "7-evaluate": judge,
    }
    return [model for model in asked.get(stage, []) if is_endpoint(model.source)]


def unset_keys(config: RunConfig) -> list[str]:
    """Servers of a run for which the environment holds no key; a line each."""
    stages = ["7-evaluate", *(["4-label", "6-policy"] if "rl" in config.phases else [])]
    servers = {model.source: model for stage in stages for model in servers_of(config, stage)}
    return [line for model in servers.values() if (line := unset_key(model))]


def _no_helpful_answers(config: RunConfig, inputs: Inputs) -> list[str]:
    wanted = config.sft.num_helpful if "sl" in config.phases and config.sft.helpful_data is None else 0
    if not wanted or any(prompt.harmful is False for prompt in inputs.prompts):
        return []
    return [
        f"sft.num_helpful is {wanted} and no prompt is marked harmful: false: no helpful answer is mixed in; mark the "
        "harmless prompts, or name answers of your own with sft.helpful_data"
    ]
