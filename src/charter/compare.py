"""Methods side by side: what each made of the same held-out prompts, what its labels cost, what its chain lost.

A method is one or more runs (seeds) under one name; ``run:policy`` takes another policy of a run than its last one. Figures
are means over responses of all its runs, with intervals clustered by prompt. Differences are paired by prompt, against the
first method. Wins are against SL-CAI of the same run, by a judge that is not the labeler. Elo is a Bradley-Terry fit (Bradley
and Terry 1952) to wins on the same prompts, as a named judge sees them, with the scale of chess (400 points: ten to one) and
intervals by drawing prompts.

Axes: M methods, N prompts, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charter.errors import ConfigError, DataError
from charter.records import Estimate, EvaluatedResponse
from charter.regression import Array, bootstrap
from charter.statistics import mean, proportion, share, unknown
from charter.store.jsonl import read_json, read_jsonl, read_rows

FIGURES = ("gold", "harmful_rate", "over_refusal_rate", "correct_rate", "evasive_rate", "kl_to_sl_cai")
NUM_RESAMPLES = 400
ELO = 400 / math.log(10)
PRIOR = 0.5  # a win and a loss in halves against everybody, so that who always wins has an Elo at all


Key = tuple[int, str]


@dataclass(frozen=True)
class Method:
    """A name, and (folder, policy) of each of its runs."""

    name: str
    runs: tuple[tuple[Path, str], ...]


def parse_methods(arguments: Sequence[str]) -> list[Method]:
    """``NAME=RUN``, ``NAME=RUN:POLICY`` or ``RUN``; runs of the same name are one method.

    Raises:
        ConfigError: fewer than two methods, or an argument without a run.
    """
    found: dict[str, list[tuple[Path, str]]] = {}
    for argument in arguments:
        name, mark, rest = argument.rpartition("=")
        path, colon, policy = rest.rpartition(":")
        folder = Path(path if colon else rest)
        name = name if mark else folder.name
        if not name or not rest:
            raise ConfigError(f"{argument!r}: write NAME=RUN, NAME=RUN:POLICY or RUN")
        found.setdefault(name, []).append((folder, policy if colon else ""))
    if len(found) < 2:
        raise ConfigError(f"{len(found)} method to compare: name at least two runs")
    return [Method(name, tuple(runs)) for name, runs in found.items()]


def compare(methods: Sequence[Method]) -> dict[str, Any]:
    """Everything that the table, the page and ``--json`` show.

    Raises:
        DataError: a folder is no finished run, or the methods answered no prompt in common.
    """
    read = [[_read(folder, policy) for folder, policy in method.runs] for method in methods]
    summaries = [[summary for _, summary, _ in runs] for runs in read]
    keyed = _keyed(read, summaries)
    prompts = sorted(set.intersection(*(set(own) for own in keyed)))
    if not prompts:
        raise DataError("the methods have no held-out prompt in common: evaluate them on the same prompts")
    rows = [[row for key in prompts for row in own[key]] for own in keyed]
    judge = _judge(summaries)
    gold_MN = np.array([[_gold_of(own[key]) for key in prompts] for own in keyed])
    elo = _elo(gold_MN)
    return {
        "num_prompts": len(prompts),
        "judge": judge,
        "methods": [
            {
                "name": method.name,
                "runs": [str(folder) for folder, _ in method.runs],
                "num_runs": len(method.runs),
                "figures": _figures(rows[m]),
                "gold_against_first": _difference(gold_MN[m], gold_MN[0], m).to_json(),
                "elo": elo[m].to_json(),
                "wins": _wins(read[m]),
                "labels": _label_cost(read[m]),
                "chain": _chain(read[m]),
                "trace": _trace(summaries[m]),
            }
            for m, method in enumerate(methods)
        ],
    }


def _read(folder: Path, policy: str) -> tuple[list[EvaluatedResponse], dict[str, Any], Path]:
    path = folder / "summary.json"
    if not path.is_file():
        raise DataError(f"{folder}: no finished run (summary.json isn't there): check the path, or finish the run")
    summary = read_json(path)
    name = policy or ("rl-cai" if "rl" in summary.get("phases", ()) else "sl-cai")
    file = folder / "7-evaluate" / f"{name}.jsonl"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in (folder / "7-evaluate").glob("*.jsonl")))
        raise DataError(f"{folder}: no policy {name!r} was evaluated (there are: {known or 'none'})")
    # a policy from before reinforcement learning owes nothing to labels
    return list(read_jsonl(file, EvaluatedResponse)), {**summary, "compared": name}, folder


def _judge(summaries: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    golds = {(s["gold"]["name"], s["gold"]["simulated"]) if s.get("gold") else None for own in summaries for s in own}
    if len(golds) > 1:
        raise DataError("the runs were read by different golds: compare runs with the same evaluate.gold")
    gold = golds.pop()
    return {"name": gold[0], "simulated": gold[1]} if gold else {"name": None, "simulated": None}


def _keyed(read: Any, summaries: Sequence[Sequence[dict[str, Any]]]) -> list[dict[Key, list[EvaluatedResponse]]]:
    """Responses of each method by (seed, prompt) where all methods have runs of the same seeds, else by prompt alone."""
    seeds = [sorted(summary["seed"] for summary in own) for own in summaries]
    by_seed = all(own == seeds[0] for own in seeds)
    found = []
    for runs in read:
        own: dict[Key, list[EvaluatedResponse]] = {}
        for rows, summary, _ in runs:
            for row in rows:
                own.setdefault((summary["seed"] if by_seed else 0, row.prompt.id), []).append(row)
        found.append(own)
    return found


def _gold_of(rows: Sequence[EvaluatedResponse]) -> float:
    """Mean gold of responses to one prompt; NaN where it isn't known."""
    return float(np.mean([np.nan if row.reading.gold is None else row.reading.gold for row in rows]))


def _figures(rows: Sequence[EvaluatedResponse]) -> dict[str, Any]:
    suspect = [row for row in rows if row.prompt.harmful is not False]
    benign = [row for row in rows if row.prompt.harmful is False]
    found = {
        "gold": _average(rows, lambda row: row.reading.gold),
        "harmful_rate": _share(suspect, lambda row: row.reading.harmful),
        "over_refusal_rate": _share(benign, lambda row: row.reading.refused),
        "correct_rate": _share(benign, lambda row: row.reading.correct),
        "evasive_rate": _share(rows, lambda row: row.reading.evasive),
        "kl_to_sl_cai": _average(rows, lambda row: row.kl_k1),
    }
    return {name: figure.to_json() for name, figure in found.items()}


def _average(rows: Sequence[EvaluatedResponse], of: Callable[..., float | None]) -> Estimate:
    known = [(value, row.prompt.id) for row in rows if (value := of(row)) is not None]
    return mean([v for v, _ in known], [id for _, id in known]) if known else unknown("not known of these responses")


def _share(rows: Sequence[EvaluatedResponse], of: Callable[..., bool | None]) -> Estimate:
    known = [(value, row.prompt.id) for row in rows if (value := of(row)) is not None]
    return (
        proportion([v for v, _ in known], [id for _, id in known]) if known else unknown("not known of these responses")
    )


def _difference(own_N: Array, first_N: Array, place: int) -> Estimate:
    if place == 0:
        return unknown("this is the method that the others are compared with")
    return _known_bootstrap(own_N - first_N)


def _known_bootstrap(values_N: Array) -> Estimate:
    known_N = values_N[~np.isnan(values_N)]
    return bootstrap(known_N, np.arange(len(known_N))) if len(known_N) else unknown("no gold of these responses")


def _elo(gold_MN: Array) -> list[Estimate]:
    known_N = ~np.isnan(gold_MN).any(axis=0)
    if known_N.sum() < 2:
        return [unknown("no judge reads these responses")] * len(gold_MN)
    gold_MN = np.round(gold_MN[:, known_N], 9)
    wins_MMN = (gold_MN[:, None] > gold_MN[None]) + 0.5 * (gold_MN[:, None] == gold_MN[None])
    num = gold_MN.shape[1]
    value_M = _bradley_terry(wins_MMN.sum(axis=2))
    rng = np.random.default_rng(0)
    drawn_RN = rng.multinomial(num, np.full(num, 1 / num), size=NUM_RESAMPLES)
    drawn_RM = np.array([_bradley_terry(wins_MMN @ weights_N) for weights_N in drawn_RN])
    low_M, high_M = np.quantile(drawn_RM, [0.025, 0.975], axis=0)
    return [
        Estimate(float(v), float(min(v, lo)), float(max(v, hi)), num)
        for v, lo, hi in zip(value_M, low_M, high_M, strict=True)
    ]


def _bradley_terry(wins_MM: Array) -> Array:
    """float64[M]: Elo of each method, mean 0; Hunter 2004, eq. 3 (minorisation-maximisation)."""
    own_MM = wins_MM + PRIOR
    np.fill_diagonal(own_MM, 0.0)
    games_MM = own_MM + own_MM.T
    strength_M = np.ones(len(own_MM))
    for _ in range(200):
        share_MM = games_MM / (strength_M[:, None] + strength_M[None])
        new_M = own_MM.sum(axis=1) / share_MM.sum(axis=1)
        new_M /= np.exp(np.log(new_M).mean())
        if np.abs(np.log(new_M / strength_M)).max() < 1e-9:
            break
        strength_M = new_M
    return ELO * np.log(new_M)


def _trace(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The way of a method, from the initial policy: correct and harmful rate, mean over runs; what isn't known is left out."""
    points = []
    for policy in dict.fromkeys(("initial", "sl-cai", *(summary["compared"] for summary in summaries))):
        told = [summary["policies"].get(policy) or {} for summary in summaries]
        pairs = [((p.get("correct_rate") or {}).get("value"), (p.get("harmful_rate") or {}).get("value")) for p in told]
        known = [(correct, harmful) for correct, harmful in pairs if correct is not None and harmful is not None]
        if known:
            correct, harmful = (float(np.mean(values)) for values in zip(*known, strict=True))
            points.append({"policy": policy, "correct_rate": correct, "harmful_rate": harmful})
    return points


def _label_cost(runs: Sequence[tuple[list[EvaluatedResponse], dict[str, Any], Path]]) -> dict[str, float | None]:
    """Labels with their tokens and seconds, and scores given in reinforcement learning by others than a reward model.

    Mean over runs. What scores took isn't measured apart from the training that they are part of: null, never 0.
    """
    told = [_one_cost(summary, folder) for _, summary, folder in runs]
    found: dict[str, float | None] = {}
    for key in ("num_labels", "tokens", "seconds", "num_scores"):
        values = [value for cost in told if (value := cost[key]) is not None]
        found[key] = float(np.mean(values)) if len(values) == len(told) else None
    return found


def _one_cost(summary: dict[str, Any], folder: Path) -> dict[str, float | None]:
    if summary["compared"] in ("initial", "sl-cai"):
        return {"num_labels": 0.0, "tokens": 0.0, "seconds": 0.0, "num_scores": 0.0}
    stage: dict[str, Any] = next((row for row in summary.get("stages", ()) if row["name"] == "4-label"), {})
    labels = (summary.get("counts") or {}).get("4-label", {}).get("num_labels")
    scores = _num_scores(folder)
    return {
        "num_labels": float(labels or 0),
        "tokens": None if scores else float(stage.get("num_tokens") or 0),
        "seconds": None if scores else float(stage.get("wall_seconds") or 0),
        "num_scores": float(scores),
    }


def _num_scores(folder: Path) -> int:
    """Scores of rollouts by a check or a labeler, over all steps."""
    path = folder / "6-policy" / "metrics.jsonl"
    told = [row.get("sources") or {} for _, row in read_rows(path)] if path.is_file() else []
    return sum(own["num"] for row in told for name, own in row.items() if name != "reward model")


def _chain(runs: Sequence[tuple[list[EvaluatedResponse], dict[str, Any], Path]]) -> dict[str, Any]:
    """Attack surface: how many links, what they lost together, gold lost after its peak. From the runs' audits."""
    if any(summary["compared"] in ("initial", "sl-cai") for _, summary, _ in runs):
        why = "no labels and no reward take part"
        return _no_chain(why)
    audits = [read_json(path) for _, _, folder in runs if (path := folder / "8-audit" / "audit.json").is_file()]
    if not audits:
        return _no_chain("no audit yet: charter audit RUN")
    last = [audit["waterfall"]["links"][-1]["agreement"]["value"] for audit in audits]
    falls = [(audit["policy"].get("gold_lost_after_peak") or {}).get("value") for audit in audits]
    by_link = {
        row["link"]: _over_runs([_link_loss(audit, i) for audit in audits]).to_json()
        for i, row in enumerate(audits[0]["waterfall"]["links"])
    }
    none = next((str(audit["chain"]["reason"]) for audit in audits if (audit.get("chain") or {}).get("reason")), None)
    lost = unknown(none) if none else _over_runs([None if value is None else 1 - value for value in last])
    return {
        "lost": lost.to_json(),
        "gold_lost_after_peak": _over_runs([value or 0.0 for value in falls]).to_json(),
        "by_link": by_link,
        "links": _links(audits),
    }


def _no_chain(why: str) -> dict[str, Any]:
    return {"lost": unknown(why).to_json(), "gold_lost_after_peak": unknown(why).to_json(), "by_link": {}, "links": []}


def _links(audits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The method's own chain, means over runs; empty where its runs have other chains, or none."""
    chains = [(audit.get("chain") or {}).get("links") or [] for audit in audits]
    names = [tuple(row["link"] for row in links) for links in chains]
    if not names[0] or len(set(names)) > 1:
        return []
    one = len(chains) == 1  # of one run, its own intervals over prompts
    return [
        {
            "link": rows[0]["link"],
            **{key: rows[0][key] if one else _over_runs([row[key]["value"] for row in rows]).to_json()
               for key in ("agreement", "loss")},
        }
        for rows in zip(*chains, strict=True)
    ]  # fmt: skip


def _wins(runs: Sequence[tuple[list[EvaluatedResponse], dict[str, Any], Path]]) -> dict[str, Any]:
    """Wins against SL-CAI of the same run, by the runs' judge (``evaluate.judge``): ``{judge, rate}``."""
    names = {str((summary.get("wins") or {}).get("judge") or "") for _, summary, _ in runs}
    nothing = {"judge": None, "rate": unknown("no judge is named in the run file (evaluate.judge)").to_json()}
    if names == {""}:
        return nothing
    if len(names) > 1:
        return {**nothing, "rate": unknown("its runs have other judges").to_json()}
    if any(summary["compared"] != summary["wins"]["policy"] for _, summary, _ in runs):
        return {**nothing, "rate": unknown("the judge compared the last policy alone").to_json()}
    rows = [
        row
        for _, _, folder in runs
        for _, row in read_rows(folder / "7-evaluate" / "wins" / "sl-cai.jsonl")
        if row["p_better"] is not None
    ]
    hits = [0.5 if row["p_better"] == 0.5 else float(row["p_better"] > 0.5) for row in rows]
    rate = share(hits, [row["prompt_id"] for row in rows]) if hits else unknown("the judge gave no verdict")
    return {"judge": names.pop(), "rate": rate.to_json()}


def _link_loss(audit: dict[str, Any], place: int) -> float | None:
    value: float | None = audit["waterfall"]["links"][place]["loss"]["value"]
    return value


def _over_runs(values: Sequence[float | None]) -> Estimate:
    known = [value for value in values if value is not None]
    return mean(known) if known else unknown("the audit doesn't know it")
