"""What labels of known pairs say about a labeler: pure functions on records, each figure with n and interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from charter.labelers.check.cases import Case
from charter.labelers.combine import averaged_log_odds, by_question, follows_position
from charter.records import Abstention, Estimate, Judgment
from charter.regression import cluster_index, logistic
from charter.statistics import calibration, proportion, share, unknown

Outcome = float | Abstention
STYLE: dict[str, Callable[[str], float]] = {
    "length": lambda text: float(len(text.split())),
    "emphasis": lambda text: float(text.count("!") + text.count("**")),
    "list": lambda text: float(sum(line.lstrip()[:1] in tuple("-*#0123456789") for line in text.splitlines())),
}
"""Traits of a text that should decide nothing once the truth is known."""


def accuracy(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Estimate:
    """Share of right labels among those given; a label of exactly 0.5 counts half."""
    hits = [
        (case.pair.prompt.id, 0.5 if label == 0.5 else float((label > 0.5) == case.a_better))
        for case, label in zip(cases, outcomes, strict=True)
        if case.a_better is not None and isinstance(label, float)
    ]
    return _share(hits, "no labelled pair has a known answer")


def by_principle(cases: Sequence[Case], judged: Sequence[Sequence[Judgment]]) -> dict[str, dict[str, Any]]:
    """Accuracy of each principle's verdicts, averaged over orders, where it tells the two responses apart."""
    hits: dict[str, list[tuple[str, float]]] = {}
    for case, own in zip(cases, judged, strict=True):
        for (_, principle_id), group in by_question(own).items():
            verdict, truth = averaged_log_odds(group), case.by_principle.get(principle_id or "")
            if verdict is not None and truth is not None:
                hit = 0.5 if verdict == 0 else float((verdict > 0) == truth)
                hits.setdefault(str(principle_id), []).append((case.pair.prompt.id, hit))
    return {name: _share(own, "").to_json() for name, own in hits.items()}


def all_principles(cases: Sequence[Case], judged: Sequence[Sequence[Judgment]]) -> Estimate:
    """Accuracy over the verdicts of all principles, clustered by prompt."""
    hits = []
    for case, own in zip(cases, judged, strict=True):
        for (_, principle_id), group in by_question(own).items():
            verdict, truth = averaged_log_odds(group), case.by_principle.get(principle_id or "")
            if verdict is not None and truth is not None:
                hits.append((case.pair.prompt.id, 0.5 if verdict == 0 else float((verdict > 0) == truth)))
    return _share(hits, "no answer by principle is known")


def baselines(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """What those get who read nothing: always A, the longer, the shorter response (equal lengths count half)."""
    known = [case for case in cases if case.a_better is not None]
    rules: dict[str, Callable[[Case], float]] = {
        "always A": lambda case: 1.0,
        "longer": lambda case: _sign(len(case.pair.response_a.split()) - len(case.pair.response_b.split())),
        "shorter": lambda case: -_sign(len(case.pair.response_a.split()) - len(case.pair.response_b.split())),
    }
    found = {}
    for name, rule in rules.items():
        hits = [(c.pair.prompt.id, 0.5 if rule(c) == 0 else float((rule(c) > 0) == c.a_better)) for c in known]
        found[name] = _share(hits, "no known answer").to_json()
    return found


def calibration_of(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Calibration curve and expected calibration error of the labels against the known answers."""
    told = [
        (label, float(case.a_better))
        for case, label in zip(cases, outcomes, strict=True)
        if case.a_better is not None and isinstance(label, float)
    ]
    return calibration([p for p, _ in told], [truth for _, truth in told])


def position(cases: Sequence[Case], judged: Sequence[Sequence[Judgment]]) -> dict[str, Any]:
    """How often a verdict stays with the position when the responses are swapped, and how often the first is chosen.

    Only questions whose principle tells the responses apart count, where that is known: on ties somebody must be first.
    """
    stays, firsts = [], []
    for case, own in zip(cases, judged, strict=True):
        for (_, principle_id), group in by_question(own).items():
            if case.by_principle and principle_id not in case.by_principle:
                continue
            stayed = follows_position(group)
            if stayed is not None:
                stays.append((case.pair.prompt.id, float(stayed)))
            for judgment in group:
                if judgment.p_a is not None and judgment.p_a != 0.5:
                    firsts.append((case.pair.prompt.id, float((judgment.p_a > 0.5) == (judgment.order == "ab"))))
    return {
        "keeps_position": _share(stays, "no pair was judged in both orders").to_json(),
        "picks_first": _share(firsts, "no verdict").to_json(),
    }


def drivers(cases: Sequence[Case], outcomes: Sequence[Outcome], own_name: str | None = None) -> dict[str, Any]:
    """What moves a label beside the truth: one logistic regression of "A preferred" on truth and differences in style.

    Coefficients are log-odds per standard deviation of the difference (truth: right against wrong). Self-preference is one
    of the columns where responses name the model that wrote them (``prompt.meta["model_a"]``, ``["model_b"]``).
    """
    rows = [
        (case, float(label > 0.5) if label != 0.5 else 0.5)
        for case, label in zip(cases, outcomes, strict=True)
        if case.a_better is not None and isinstance(label, float)
    ]
    if len(rows) < 20:
        return {"reason": "fewer than 20 labelled pairs with a known answer", "terms": {}}
    columns = {"truth": np.array([1.0 if case.a_better else -1.0 for case, _ in rows])}
    for name, trait in STYLE.items():
        columns[name] = np.array([trait(case.pair.response_a) - trait(case.pair.response_b) for case, _ in rows])
    if own_name is not None:
        columns["self"] = np.array([_self(case, own_name) for case, _ in rows])
    kept = {name: column for name, column in columns.items() if column.std() > 0}
    design = np.column_stack([np.ones(len(rows)), *(column / column.std() for column in kept.values())])
    fit = logistic(design, np.array([p for _, p in rows]), cluster_index([case.pair.prompt.id for case, _ in rows]))
    terms = {name: fit.estimate(i).to_json() for i, name in enumerate(["A", *kept])}
    absent = {name: unknown("all pairs are alike in this").to_json() for name in columns if name not in kept}
    if own_name is None:
        absent["self"] = unknown("the data doesn't say which model wrote a response").to_json()
    return {"terms": {**terms, **absent}}


def transitivity(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Estimate:
    """Share of triples of responses to one prompt, labelled in all three pairs, whose labels don't go round in a circle."""
    beats: dict[str, dict[tuple[str, str], bool]] = {}
    for case, label in zip(cases, outcomes, strict=True):
        if isinstance(label, float) and label != 0.5:
            a, b = case.pair.response_a, case.pair.response_b
            won = beats.setdefault(case.pair.prompt.id, {})
            won[a, b], won[b, a] = label > 0.5, label < 0.5
    straight, clusters = [], []
    for prompt_id, won in beats.items():
        texts = sorted({text for pair in won for text in pair})
        for i, x in enumerate(texts):
            for j, y in enumerate(texts[i + 1 :], i + 1):
                for z in texts[j + 1 :]:
                    if (x, y) in won and (y, z) in won and (x, z) in won:
                        straight.append(not (won[x, y] == won[y, z] != won[x, z]))
                        clusters.append(prompt_id)
    return proportion(straight, clusters) if straight else unknown("no three responses to one prompt were compared")


def abstentions(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Coverage, and the reasons of what is missing."""
    return {
        "coverage": proportion([isinstance(label, float) for label in outcomes]).to_json(),
        "reasons": dict(Counter(label.value for label in outcomes if isinstance(label, Abstention))),
    }


def agreement(one: Sequence[Outcome], other: Sequence[Outcome], clusters: Sequence[str]) -> Estimate:
    """Share of pairs, labelled both times, on which two labellings prefer the same response."""
    both = [
        (cluster, float((x > 0.5) == (y > 0.5)))
        for x, y, cluster in zip(one, other, clusters, strict=True)
        if isinstance(x, float) and isinstance(y, float)
    ]
    return _share(both, "no pair was labelled both times")


def _self(case: Case, own_name: str) -> float:
    meta: Mapping[str, Any] = case.pair.prompt.meta
    return float(meta.get("model_a") == own_name) - float(meta.get("model_b") == own_name)


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def _share(hits: Sequence[tuple[str, float]], reason: str) -> Estimate:
    if not hits:
        return unknown(reason)
    return share([hit for _, hit in hits], [cluster for cluster, _ in hits])
