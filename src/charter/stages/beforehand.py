"""What a run file asks for and won't get, as far as it can be told before any work: lines for charter run and plan."""

from __future__ import annotations

from charter.config import DpoConfig, PolicyConfig, RunConfig, labeler_models
from charter.models.reach import unset_key
from charter.models.vocabulary import named, unknown_in, unknown_words
from charter.stages.inputs import Inputs
from charter.stages.servers import servers_of


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


def unset_keys(config: RunConfig) -> list[str]:
    """Servers of a run for which the environment holds no key; a line each."""
    stages = ["7-evaluate", *(["4-label", "6-policy"] if "rl" in config.phases else [])]
    return [line for model in servers_of(config, stages) if (line := unset_key(model))]


def _no_helpful_answers(config: RunConfig, inputs: Inputs) -> list[str]:
    wanted = config.sft.num_helpful if "sl" in config.phases and config.sft.helpful_data is None else 0
    if not wanted or any(prompt.harmful is False for prompt in inputs.prompts):
        return []
    return [
        f"sft.num_helpful is {wanted} and no prompt is marked harmful: false: no helpful answer is mixed in; mark the "
        "harmless prompts, or name answers of your own with sft.helpful_data"
    ]


def unknown_to_models(config: RunConfig, inputs: Inputs) -> list[str]:
    """Words that the models can't read: what they say about a principle with such words is nonsense."""
    source, constitution = config.model.source, inputs.constitution
    labelers = {model.source for model in labeler_models(config.label.labeler)} if "rl" in config.phases else set()
    prompts = (turn.content for prompt in (*inputs.prompts, *inputs.held_out) for turn in prompt.messages)
    found = {
        "the model doesn't know these words of the principles": unknown_in(source, constitution),
        "the labeler doesn't know these words of the principles": list(
            dict.fromkeys(
                word for labeler in sorted(labelers) for word in unknown_in(labeler, constitution, judges=True)
            )
        ),
        "the model doesn't know these words of the prompts": unknown_words(source, prompts),
    }
    return [f"{says}, and reads each as the same unknown one: {named(words)}" for says, words in found.items() if words]
