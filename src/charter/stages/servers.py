"""The servers that a run asks, and what they were asked so far, over all attempts: the ledger has counted it."""

from __future__ import annotations

from typing import Any

from charter.config import ModelConfig, RunConfig, labeler_models
from charter.models.endpoint import endpoint_fingerprint, is_endpoint
from charter.store.ledger import Ledger


def servers_of(config: RunConfig) -> list[ModelConfig]:
    """Every model behind a server: labelers, scorers and the judge; one that is named twice is here twice."""
    judge = [config.evaluate.judge] if config.evaluate.judge else []
    scorers = [source.by for source in config.policy.reward_sources if source.by != "reward-model"]
    scorer = [model for by in scorers for model in labeler_models(by)]
    models = [*labeler_models(config.label.labeler), *scorer, *judge]
    return [model for model in models if is_endpoint(model.source)]


def spent_on_servers(config: RunConfig, ledger: Ledger) -> list[dict[str, Any]]:
    """Per server: source, calls, prompt_tokens, completion_tokens, money (None: the run file gives no price)."""
    found = []
    for source, model in {model.source: model for model in servers_of(config)}.items():
        calls, read, written = ledger.usage(endpoint_fingerprint(source))
        price = model.endpoint.price if model.endpoint else None
        money = None if price is None else round((read * price[0] + written * price[1]) / 1e6, 6)
        found.append(
            {
                "source": source,
                "calls": calls,
                "prompt_tokens": read,
                "completion_tokens": written,
                "money": money,
                "reason": "the run file gives no price" if price is None else None,
            }
        )
    return found
