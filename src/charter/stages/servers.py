"""The servers that a run asks, and what they were asked so far, over all attempts: the ledger has counted it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from charter.config import ModelConfig, RunConfig, labeler_models
from charter.models.endpoint import endpoint_fingerprint, is_endpoint
from charter.store.ledger import Ledger

ASKING = ("4-label", "6-policy", "7-evaluate")


def servers_of(config: RunConfig, stages: Collection[str] = ASKING) -> list[ModelConfig]:
    """Models behind servers that these stages ask: labelers, scorers, the judge, who samples rollouts; each server once."""
    judge = [config.evaluate.judge] if config.evaluate.judge is not None else []
    scorers = [source.by for source in config.policy.reward_sources if source.by != "reward-model"]
    asked = {
        "4-label": labeler_models(config.label.labeler),
        "6-policy": [
            *(model for by in scorers for model in labeler_models(by)),
            *(judge if config.policy.monitor.holdout == "judge" else []),
            *([config.policy.rollouts] if config.policy.rollouts is not None else []),
        ],
        "7-evaluate": judge,
    }
    models = [model for stage in ASKING if stage in stages for model in asked[stage]]
    return list({model.source: model for model in models if is_endpoint(model.source)}.values())


def spent_on_servers(config: RunConfig, ledger: Ledger) -> list[dict[str, Any]]:
    """Per server: source, calls, prompt_tokens, completion_tokens, money (None: the run file gives no price).

    One that samples rollouts isn't counted: no answer of it is kept.
    """
    found = []
    for model in servers_of(config):
        if model == config.policy.rollouts:
            continue
        calls, read, written = ledger.usage(endpoint_fingerprint(model.source))
        price = model.endpoint.price if model.endpoint else None
        money = None if price is None else round((read * price[0] + written * price[1]) / 1e6, 6)
        found.append(
            {
                "source": model.source,
                "calls": calls,
                "prompt_tokens": read,
                "completion_tokens": written,
                "money": money,
                "reason": "the run file gives no price" if price is None else None,
            }
        )
    return found
