"""The verdict of every link on the same held-out pairs, and the waterfall of agreement lost from one to the next.

    gold -> perfect reading of the constitution -> labeler's combined label -> reward model -> policy

Agreement is the share of pairs, among those where gold decides, on which a link prefers the response with the higher gold;
a link that doesn't decide gets half a point. The loss of a link is the agreement of the one before minus its own, on the
same pairs, so that losses add up to what the whole chain lost. Intervals: cluster bootstrap over prompts, both links drawn
together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.evidence import NO_GOLD, Pairs
from charter.audit.figures import LINKS, figure
from charter.records import Estimate
from charter.regression import Array, bootstrap, cluster_index
from charter.statistics import unknown

NAMES = ("gold", "constitution", "labeler", "reward model", "policy")
SOURCES = {
    "gold": "gold",
    "constitution": "gold's reading of constitution.yaml",
    "labeler": "4-label/preferences.jsonl",
    "reward model": "5-reward/held_out.jsonl",
    "policy": "6-policy/model against its reference",
}
NUM_FAILURES = 3
TIES = "pairs where gold doesn't decide are left out; a link that doesn't decide gets half a point"


def credit(verdict_P: Array, truth_P: Array) -> Array:
    """1 where the signs agree, 0.5 where the verdict is 0, else 0; NaN where either isn't known or truth is 0."""
    hit_P = np.where(verdict_P == 0, 0.5, (np.sign(verdict_P) == np.sign(truth_P)).astype(float))
    return np.where(np.isnan(verdict_P) | np.isnan(truth_P) | (truth_P == 0), np.nan, hit_P)


def agreement(verdict_P: Array, truth_P: Array, pairs: Pairs) -> Estimate:
    """Mean credit over the pairs where both are known, with its cluster bootstrap interval."""
    credit_P = credit(verdict_P, truth_P)
    known_P = ~np.isnan(credit_P)
    if not known_P.any():
        return unknown("no pair has both verdicts")
    own = cluster_index(pairs.index_P[known_P].tolist())
    found = bootstrap(credit_P[known_P], own)
    if found.low is None or found.high is None:
        return found
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high), found.n, found.reason)


def verdicts(pairs: Pairs, policy_P: Array) -> dict[str, Array]:
    """Signed verdicts of the links by name; NaN where a link says nothing."""
    return {
        "gold": pairs.gold_P,
        "constitution": pairs.constitution_P,
        "labeler": pairs.label_P,
        "reward model": pairs.margin_P,
        "policy": policy_P,
    }


def waterfall(pairs: Pairs, policy_P: Array, why_no_policy: str) -> dict[str, Any]:
    """Agreement with gold and loss of each link, on the pairs that all links with any verdict have in common."""
    if np.isnan(pairs.gold_P).all():
        return _without_gold(pairs, policy_P)
    said = verdicts(pairs, policy_P)
    decided_P = (pairs.gold_P != 0) & ~np.isnan(pairs.gold_P)
    present = [name for name in NAMES if not np.isnan(said[name][decided_P]).all()]
    common_P = decided_P & ~np.any([np.isnan(said[name]) for name in present], axis=0)
    rows = []
    before = "gold"
    for link, name in zip(LINKS, NAMES[1:], strict=True):
        row = _step(pairs, said, common_P, before, name) if name in present else _absent(name, why_no_policy)
        rows.append({"link": link, "from": before, "to": name, **row})
        before = name if name in present else before
    found = failures(pairs, said, present, common_P)
    unlabelled = _unlabelled(pairs, decided_P)
    return {"num_pairs": int(common_P.sum()), "ties": TIES, "links": rows, "failures": found, "unlabelled": unlabelled}


def _unlabelled(pairs: Pairs, decided_P: np.ndarray) -> dict[str, Any]:
    """Pairs without a label, which no link after it ever sees, and the labels' agreement when they get half a point each."""
    none_P = decided_P & np.isnan(pairs.label_P)
    every_P = np.where(none_P, 0.0, pairs.label_P)
    return {
        "num": int(none_P.sum()),
        "agreement_labelled": figure(agreement(pairs.label_P, pairs.gold_P, pairs), SOURCES["labeler"]),
        "agreement_all": figure(agreement(every_P, pairs.gold_P, pairs), SOURCES["labeler"]),
    }


def failures(pairs: Pairs, said: dict[str, Array], present: list[str], common_P: np.ndarray) -> list[dict[str, Any]]:
    """Pairs on which a link is wrong and the one before was right: those where gold minds most, at most 3 of each link."""
    rows = []
    before = "gold"
    for link, name in zip(LINKS, NAMES[1:], strict=True):
        if name not in present:
            continue
        truth_P = np.where(common_P, pairs.gold_P, np.nan)
        wrong_P = (credit(said[before], truth_P) == 1) & (credit(said[name], truth_P) == 0)
        order = np.argsort(-np.abs(np.nan_to_num(pairs.gold_P)) * wrong_P, kind="stable")[:NUM_FAILURES]
        before = name
        for i in order[wrong_P[order]].tolist():
            verdicts = {key.replace(" ", "_"): float(said[key][i]) for key in present}
            rows.append({"link": link, "pair_id": pairs.pairs[i].id, "gold": float(pairs.gold_P[i]), **verdicts})
    return rows


def _step(pairs: Pairs, said: dict[str, Array], common_P: np.ndarray, before: str, name: str) -> dict[str, Any]:
    truth_P = np.where(common_P, pairs.gold_P, np.nan)
    lost_P = credit(said[before], truth_P) - credit(said[name], truth_P)
    on_all_P = credit(said[before], pairs.gold_P) - credit(said[name], pairs.gold_P)
    source = SOURCES[name]
    return {
        "agreement": figure(agreement(said[name], truth_P, pairs), source),
        "loss": figure(_mean_loss(lost_P, pairs), source),
        "loss_on_all_pairs": figure(_mean_loss(on_all_P, pairs), source),
        "agreement_with_previous": figure(agreement(said[name], said[before], pairs), source),
        "agreement_on_all_pairs": figure(agreement(said[name], pairs.gold_P, pairs), source),
    }


def _mean_loss(lost_P: Array, pairs: Pairs) -> Estimate:
    known_P = ~np.isnan(lost_P)
    if not known_P.any():
        return unknown("no pair has the verdicts of all links")
    return bootstrap(lost_P[known_P], cluster_index(pairs.index_P[known_P].tolist()))


def _absent(name: str, why_no_policy: str) -> dict[str, Any]:
    why = why_no_policy if name == "policy" else f"{SOURCES[name]} has no verdict on these pairs"
    nothing = figure(unknown(why), SOURCES[name])
    keys = ("agreement", "loss", "loss_on_all_pairs", "agreement_with_previous", "agreement_on_all_pairs")
    return {key: nothing for key in keys}


def _without_gold(pairs: Pairs, policy_P: Array) -> dict[str, Any]:
    """Without gold only the agreement of a link with the one before can be known, and no loss."""
    said = verdicts(pairs, policy_P)
    nothing = figure(unknown(NO_GOLD), "gold")
    rows = []
    for link, before, name in zip(LINKS, NAMES, NAMES[1:], strict=False):
        with_previous = agreement(said[name], said[before], pairs)
        if with_previous.value is None:
            with_previous = unknown(f"no verdict of {before} to compare with")
        row = {"agreement": nothing, "loss": nothing, "loss_on_all_pairs": nothing, "agreement_on_all_pairs": nothing}
        row["agreement_with_previous"] = figure(with_previous, SOURCES[name])
        rows.append({"link": link, "from": before, "to": name, **row})
    return {"num_pairs": 0, "ties": TIES, "links": rows, "failures": []}
