"""What a run file asks for and won't get, as far as it can be told before any work: lines for charter run and plan."""

from __future__ import annotations

from charter.config import RunConfig
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
    return [*repeated, *([overlap] if seen else []), *_no_helpful_answers(config, inputs)]


def _no_helpful_answers(config: RunConfig, inputs: Inputs) -> list[str]:
    wanted = config.sft.num_helpful if "sl" in config.phases and config.sft.helpful_data is None else 0
    if not wanted or any(prompt.harmful is False for prompt in inputs.prompts):
        return []
    return [
        f"sft.num_helpful is {wanted} and no prompt is marked harmful: false: no helpful answer is mixed in; mark the "
        "harmless prompts, or name answers of your own with sft.helpful_data"
    ]
