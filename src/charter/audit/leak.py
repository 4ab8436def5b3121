"""Held-out pairs that the reward model was trained on after all: the same pair, or the same prompt, under another id.

A pair that stands on both sides of the split says nothing of what the reward model would make of new ones: its agreement is
memory. A shared prompt with other responses is less: it is told, and is no fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.evidence import Pairs
from charter.audit.figures import REWARD_MODEL, Finding, figure
from charter.audit.links import agreement
from charter.records import Estimate, ResponsePair
from charter.statistics import proportion, unknown

SOURCE = "5-reward/held_out.jsonl against 4-label/preferences.jsonl"
MIN_LEAKED = 3
MIN_SHARE = 0.02  # two short answers may be the same by chance


def audit_leak(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """``{pairs, prompts}``: shares of the held-out pairs that were, or whose prompt was, in training too.

    Also how often reward model and label agree where the prompt was trained on, word for word, and where it is new.
    """
    held_out_P = ~np.isnan(pairs.margin_P)
    trained_P = ~np.isnan(pairs.label_P) & ~held_out_P
    if not held_out_P.any() or not trained_P.any():
        nothing = figure(unknown("no held-out pair, or none to train on"), SOURCE)
        return {"pairs": nothing, "prompts": nothing, "agreement_seen": nothing, "agreement_new": nothing}, []
    seen = {_content(pairs.pairs[i]) for i in np.flatnonzero(trained_P).tolist()}
    prompts = {prompt for prompt, _ in seen}
    held_out = [pairs.pairs[i] for i in np.flatnonzero(held_out_P).tolist()]
    clusters = [pair.prompt.id for pair in held_out]
    leaked = [_content(pair) in seen for pair in held_out]
    share = proportion(leaked, clusters)
    shared = [_content(pair)[0] in prompts for pair in held_out]
    of_prompts = proportion(shared, clusters)
    shared_P = np.zeros(len(pairs.pairs), dtype=bool)
    shared_P[np.flatnonzero(held_out_P)] = shared
    faults = []
    if sum(leaked) >= MIN_LEAKED and (share.value or 0.0) >= MIN_SHARE:
        says = f"{share.value:.0%} of the held-out pairs were trained on too, under another id: agreement on them is memory"
        faults.append(Finding(REWARD_MODEL, "leak", "held-out pairs", share, "share of held-out pairs", 0.0, 0.0, says))
    return {
        "pairs": figure(share, SOURCE),
        "prompts": figure(of_prompts, SOURCE),
        "agreement_seen": figure(_agreement(pairs, shared_P), SOURCE),
        "agreement_new": figure(_agreement(pairs, held_out_P & ~shared_P), SOURCE),
    }, faults


def _agreement(pairs: Pairs, among_P: np.ndarray) -> Estimate:
    """Of the reward model with the labels, on some of the pairs."""
    return agreement(np.where(among_P, pairs.margin_P, np.nan), pairs.label_P, pairs)


def _content(pair: ResponsePair) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """What a pair says, whatever its id and its order."""
    prompt = tuple((message.role, message.content.strip()) for message in pair.prompt.messages)
    return prompt, frozenset((pair.response_a.strip(), pair.response_b.strip()))
