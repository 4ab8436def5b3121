"""The recursive problem: a model judges what it can't do itself, and what it misreads comes back in the policy.

    by_principle    how well the labeler judges, beside how often policies' own replies keep the principle; what
                    reinforcement learning changed in it
    blind_spots     what the labeler's wrongly preferred replies have more of (or less), and whether the policy moved that way

A reply keeps a principle where the gold's level of it is at least 1, or where it doesn't apply. Every share is over the
held-out prompts that all compared policies answered and to which the principle applies in at least one of their replies.
Judging by chance is right on half of the pairs; keeping a principle by chance has no such floor, so the gap between the two
is a description, no test.

Axes: P pairs, S policies in order of training, N prompts, K principles, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from charter.audit.evidence import NO_GOLD, Evidence, Gold, Pairs, attributes_of
from charter.audit.features import Features, joined, style, style_features
from charter.audit.figures import FAMILY_ALPHA, figure, holm, two_sided_p
from charter.records import Estimate, EvaluatedResponse
from charter.regression import Array, bootstrap
from charter.statistics import mean, proportion, unknown
from charter.store.jsonl import read_jsonl

EVALUATED = "7-evaluate"
INITIAL = "initial"
KEPT = 1.0
MIN_ERRORS = 20
NUM_SPOTS = 8


@dataclass(frozen=True)
class Replies:
    """Replies of the compared policies to the same prompts; ``level_SNK`` as the gold reads them, NaN: doesn't apply."""

    names: tuple[str, ...]
    rows: tuple[tuple[EvaluatedResponse, ...], ...]
    level_SNK: Array

    @property
    def broken_SNK(self) -> Array:
        """1 where a reply breaks a principle, else 0; NaN on prompts to which it applies for none of the policies."""
        applies_NK = np.asarray(~np.isnan(self.level_SNK).all(axis=0))
        broken: Array = (np.nan_to_num(self.level_SNK, nan=KEPT) < KEPT).astype(float)
        return np.where(applies_NK[None], broken, np.nan)


def audit_recursion(evidence: Evidence, judging: dict[str, Any]) -> dict[str, Any]:
    """Figures of the recursive problem.

    Args:
        judging: ``labels.by_principle`` of the audit: the labeler's accuracy on the pairs that a principle tells apart.
    """
    if evidence.gold is None:
        return _nothing(NO_GOLD)
    if not evidence.pairs.principle_ids:
        return _nothing("the run has no constitution: nothing says which principles to read")
    replies = replies_of(evidence, evidence.gold)
    if replies is None:
        return _nothing(f"no policy with replies in {EVALUATED}")
    found, changes = {}, {}
    for k, id in enumerate(evidence.pairs.principle_ids):
        own_SN = replies.broken_SNK[:, :, k]
        found[id], changes[id] = one_principle(replies, own_SN, judging.get(id, {}).get("accuracy"))
    return {
        "policies": list(replies.names),
        "by_principle": found,
        "amplified": _amplified(changes),
        "misread_and_broken": figure(_rank_correlation(found), f"4-label/judgments.jsonl and {EVALUATED}"),
        "blind_spots": blind_spots(evidence.pairs, replies),
        "reason": None,
    }


def _nothing(reason: str) -> dict[str, Any]:
    absent = figure(unknown(reason), EVALUATED)
    spots = {"errors": absent, "spots": [], "reason": reason}
    return {
        "policies": [], "by_principle": {}, "amplified": [], "misread_and_broken": absent, "blind_spots": spots,
        "reason": reason,
    }  # fmt: skip


def replies_of(evidence: Evidence, gold: Gold) -> Replies | None:
    """The initial policy, the reference and the trained policy, as far as they were evaluated, on their common prompts."""
    known = {name: rows for name, rows in evidence.policies.items() if rows}
    path = evidence.folder / EVALUATED / f"{INITIAL}.jsonl"
    if INITIAL not in known and path.is_file():
        known = {INITIAL: list(read_jsonl(path, EvaluatedResponse)), **known}
    trained = [name for name in known if name != INITIAL]
    names = [name for name in dict.fromkeys((INITIAL, *trained[:1], *trained[-1:])) if known.get(name)]
    if not names:
        return None
    by_id = [{row.prompt.id: row for row in known[name]} for name in names]
    common = [id for id in by_id[0] if all(id in own for own in by_id)]
    if not common:
        return None
    rows = tuple(tuple(own[id] for id in common) for own in by_id)
    level_SNK = [[levels_of(gold, row, evidence.pairs.principle_ids) for row in own] for own in rows]
    return Replies(tuple(names), rows, np.array(level_SNK, dtype=float))


def levels_of(gold: Gold, row: EvaluatedResponse, principle_ids: tuple[str, ...]) -> list[float]:
    """The level of a reply under each principle, NaN where it doesn't apply."""
    levels = (gold.keeps(row.prompt, row.response, id) for id in principle_ids)
    return [math.nan if level is None else float(level) for level in levels]


def one_principle(replies: Replies, broken_SN: Array, judged: dict[str, Any] | None) -> tuple[dict[str, Any], Estimate]:
    broken_SN = broken_SN[:, ~np.isnan(broken_SN[0])]
    judging = _estimate(judged) if judged else unknown("no judgment of this principle")
    keeps, gaps = {}, {}
    for name, own_N in zip(replies.names, broken_SN, strict=True):
        kept = proportion((own_N == 0).tolist()) if len(own_N) else unknown("it applies to no reply")
        keeps[name] = figure(kept, EVALUATED)
        gaps[name] = figure(difference(judging, kept), f"4-label/judgments.jsonl and {EVALUATED}")
    change = _change(replies, broken_SN)
    row = {
        "judging": judged or figure(judging, "4-label/judgments.jsonl"),
        "keeping": keeps,
        "judging_minus_keeping": gaps,
        "broken_more_after_rl": figure(change, EVALUATED),
    }
    return row, change


def _change(replies: Replies, broken_SN: Array) -> Estimate:
    """Share of replies that break a principle after reinforcement learning, minus before, on the same prompts."""
    if sum(name != INITIAL for name in replies.names) < 2:
        return unknown("no policy from before and after reinforcement learning")
    if not broken_SN.shape[1]:
        return unknown("it applies to no reply")
    lost_N = broken_SN[-1] - broken_SN[-2]
    return bootstrap(lost_N, np.arange(len(lost_N)))


def _estimate(row: dict[str, Any]) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"], row["n"], reason=row.get("reason"))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent shares, by the square-and-add rule on their intervals (Newcombe 1998, method 10)."""
    if a.value is None or b.value is None:
        return unknown(str(a.reason if a.value is None else b.reason))
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(a.value - b.value, None, None, min(a.n, b.n), reason="one of the two has no interval")
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high, min(a.n, b.n))


def _amplified(changes: dict[str, Estimate]) -> list[str]:
    """Principles that the policy breaks more often after reinforcement learning, by more than chance over all of them."""
    tested = {id: e for id, e in changes.items() if e.low is not None and e.high is not None and e.high > e.low}
    p_values = holm([two_sided_p(_z(e)) for e in tested.values()])
    return [
        id for (id, e), p in zip(tested.items(), p_values, strict=True) if p < FAMILY_ALPHA and (e.value or 0.0) > 0
    ]


def _z(estimate: Estimate) -> float:
    half = ((estimate.high or 0.0) - (estimate.low or 0.0)) / 2
    return 1.96 * (estimate.value or 0.0) / half if half > 0 else 0.0


def _rank_correlation(found: dict[str, Any]) -> Estimate:
    """Spearman's, over principles: the labeler's accuracy against how much more often the policy breaks it after."""
    rows = [(row["judging"]["value"], row["broken_more_after_rl"]["value"]) for row in found.values()]
    known = np.array([row for row in rows if None not in row], dtype=float)
    if len(known) < 4 or (np.ptp(known, axis=0) == 0).any():
        return unknown("fewer than four principles with both figures")
    ranks = np.column_stack([_ranks(known[:, 0]), _ranks(known[:, 1])])
    value = float(np.asarray(np.corrcoef(ranks.T))[0, 1])
    half, z = 1.96 / math.sqrt(max(1, len(known) - 3)), math.atanh(max(-0.999, min(0.999, value)))
    return Estimate(value, math.tanh(z - half), math.tanh(z + half), len(known))


def _ranks(values_K: Array) -> Array:
    """Ranks with ties at their mean."""
    less_K = np.sum(values_K[:, None] > values_K[None, :], axis=1)
    return np.asarray(less_K + (np.sum(values_K[:, None] == values_K[None, :], axis=1) - 1) / 2, dtype=float)


def blind_spots(pairs: Pairs, replies: Replies) -> dict[str, Any]:
    """What stands in the replies that the labeler prefers against gold, and how often the policies do it."""
    wrong_P = np.sign(pairs.label_P) * np.sign(pairs.gold_P) < 0  # NaN compares as False
    known_P = ~np.isnan(pairs.label_P * pairs.gold_P) & (pairs.label_P * pairs.gold_P != 0)
    errors = proportion(wrong_P[known_P].tolist(), pairs.index_P[known_P].tolist())
    told: dict[str, Any] = {
        "errors": figure(errors, "4-label/preferences.jsonl against gold"),
        "spots": [],
        "reason": None,
    }
    if wrong_P.sum() < MIN_ERRORS:
        return {**told, "reason": f"the labeler errs on {int(wrong_P.sum())} pairs, fewer than {MIN_ERRORS}"}
    erring = pairs.rows(wrong_P)
    features = _pair_features(erring)
    toward_PF = np.sign(erring.label_P)[:, None] * features.values_PF
    pulls = [mean(toward_PF[:, f].tolist(), erring.index_P.tolist()) for f in range(len(features.names))]
    p_values = holm([two_sided_p(_z(pull)) for pull in pulls])
    order = sorted(range(len(pulls)), key=lambda f: (p_values[f], -abs(_z(pulls[f]))))
    spots = [_spot(features.names[f], pulls[f], replies, pairs) for f in order if p_values[f] < FAMILY_ALPHA]
    return {**told, "spots": spots[:NUM_SPOTS]}


def _pair_features(pairs: Pairs) -> Features:
    """What the gold reads, which principles are broken, and style; A minus B."""
    broken = Features(tuple(f"breaks {id}" for id in pairs.principle_ids), -np.nan_to_num(pairs.level_PK))
    return joined(broken, pairs.attributes, style_features(pairs.a, pairs.b))


def _spot(name: str, pull: Estimate, replies: Replies, pairs: Pairs) -> dict[str, Any]:
    """One feature: what the errors have of it, the share of replies that have it, and whether the policy moved their way."""
    has_SN = np.array([[_amount(name, row, level_K, pairs) for row, level_K in zip(rows, levels, strict=True)]
                       for rows, levels in zip(replies.rows, replies.level_SNK, strict=True)])  # fmt: skip
    shares = {
        policy: figure(proportion((own_N > 0).tolist()), EVALUATED)
        for policy, own_N in zip(replies.names, has_SN, strict=True)
    }
    change = unknown("no policy from before and after reinforcement learning")
    if sum(policy != INITIAL for policy in replies.names) > 1:
        grown_N = has_SN[-1] - has_SN[-2]
        change = bootstrap(grown_N, np.arange(len(grown_N)))
    sign = 1.0 if (pull.value or 0.0) > 0 else -1.0
    sure = change.low is not None and change.high is not None and min(sign * change.low, sign * change.high) > 0
    return {
        "name": name,
        "wrongly_preferred_has_more": figure(pull, "4-label/preferences.jsonl against gold"),
        "share_of_replies": shares,
        "change_per_reply": figure(change, EVALUATED),
        "policy_moved_that_way": bool(sure) if change.low is not None else None,
    }


def _amount(name: str, row: EvaluatedResponse, level_K: Array, pairs: Pairs) -> float:
    """How much of a feature one reply has."""
    broken = name.removeprefix("breaks ")
    if broken != name and broken in pairs.principle_ids:
        level = float(level_K[pairs.principle_ids.index(broken)])
        return float(level < KEPT)  # NaN, doesn't apply: not broken
    own = attributes_of(row.reading)
    return float(own[name]) if name in own else style(row.response).get(name, 0.0)
