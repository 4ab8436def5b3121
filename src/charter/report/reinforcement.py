"""How phase 2 went: reward, gold, KL, length and refusals by step, what each source of reward said, what the monitors warned of.

reads   summary.json (curves), 6-policy/{warnings,holdout}.jsonl, 6-policy/done.json
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from charter.report.artifacts import Artifacts
from charter.report.charts import Series, line_with_band
from charter.report.figures import Figure, figure, finite, kind_of, number
from charter.report.sections import Chart, part, rows_at
from charter.report.settings import needs_labels, rewards_of, short_source
from charter.statistics import mean

Rows = list[dict[str, Any]]


def reinforcement(artifacts: Artifacts) -> list[Chart]:
    """Charts over the steps; of DPO, which samples nothing, what its own steps and checkpoints tell."""
    summary = artifacts.summary
    curve = rows_at(summary, "curves", "rl")
    if not curve:
        return []
    if not any("reward_mean" in row for row in curve):
        return _from_pairs(summary, curve)
    charts = [_reward(artifacts, curve), _gold(summary, curve), _kl(curve)]
    charts.append(_of_one(curve, "response_length", "Length", "tokens", "Tokens per response."))
    if any(finite(row.get("refusal_rate")) is not None for row in curve):
        charts.append(_refusals(curve))
    if any(finite(row.get("reward_spread")) is not None for row in curve):
        told = "Deviation between the reward models of the ensemble, mean over the step’s rollouts (nats)."
        charts.append(_of_one(curve, "reward_spread", "Spread of the ensemble", "spread", told))
    return [*charts, *_sources(curve), *_holdout(artifacts)]


def warnings(artifacts: Artifacts) -> tuple[list[str], bool]:
    """What the monitors warned of, and whether it is known that they watched."""
    rows = list(artifacts.rows("6-policy/warnings.jsonl")) or [
        row for row in artifacts.stage("6-policy").get("warnings") or () if isinstance(row, dict)
    ]
    told = [f"step {finite(row.get('step')) or 0:g}: {row.get('text')}" for row in rows]
    return told, bool(rows) or "warnings" in artifacts.stage("6-policy")


def _steps(curve: Rows) -> list[float]:
    return [finite(row.get("rollout", row.get("step"))) or 0.0 for row in curve]


def _points(curve: Rows, name: str, kind: str = "gold") -> list[tuple[float, Figure]]:
    return [
        (step, figure(row.get(name), kind, "it isn't measured in this run"))
        for step, row in zip(_steps(curve), curve, strict=True)
    ]


def _of_one(curve: Rows, name: str, title: str, series: str, told: str) -> Chart:
    svg = line_with_band(
        f"g-{name}", f"{title} by step", [Series(series, _points(curve, name), "rl")], "step", "number"
    )
    return Chart(title, svg, f"{told} {len(curve)} steps.")


def _reward(artifacts: Artifacts, curve: Rows) -> Chart:
    points = [
        (step, _spread(found, finite(row.get("reward_std"))))
        for (step, found), row in zip(_points(curve, "reward_mean"), curve, strict=True)
    ]
    if isinstance(artifacts.section("policy", "reward"), list):
        scale = "each source normalised over the step: the mean stays near 0, and the sources’ own scales are below"
    elif needs_labels(artifacts):
        scale = "nats, up to a constant"
    else:
        kind = (rewards_of(artifacts)[0].get("by") or {}).get("kind")
        scale = "the check’s score" if kind == "checker" else "the labeler’s score"
    missing = sum(int(finite(row.get("num_without_reward")) or 0) for row in curve)
    none = f" {missing:,} rollouts got no reward." if missing else ""
    caption = (
        f"Mean reward of the rollouts of a step ({scale}); band: their standard deviation. {len(curve)} steps.{none}"
    )
    svg = line_with_band("g-reward", "Reward by step", [Series("reward", points, "rl")], "step", "number")
    return Chart("Reward", svg, caption)


def _gold(summary: dict[str, Any], curve: Rows) -> Chart:
    series = [
        Series("rollouts", _points(curve, "gold"), "rl"),
        Series("held-out prompts", _checkpoints(summary, "gold"), "sl", marks=True),
    ]
    known = any(found.value is not None for one in series for _, found in one.points)
    caption = "Line: sampled rollouts of each step. Rings: checkpoints on held-out prompts. Both with 95 % intervals."
    return Chart("Gold", line_with_band("g-gold", "Gold by step", series, "step", "number"), caption if known else "")


def _kl(curve: Rows) -> Chart:
    """By k1 where it was measured; TRL measures k3 alone."""
    name = next((n for n in ("kl_k1", "kl", "kl_k3") if any(finite(row.get(n)) is not None for row in curve)), "kl_k1")
    svg = line_with_band("g-kl", "KL by step", [Series("KL", _points(curve, name), "rl")], "step", "number")
    estimator = "k3" if name == "kl_k3" else "k1"
    caption = f"Nats per response, estimator {estimator}, on training prompts. {len(curve)} steps."
    return Chart("KL to the reference", svg, caption)


def _refusals(curve: Rows) -> Chart:
    every = _points(curve, "refusal_rate", "refusal_rate")
    harmless = _points(curve, "over_refusal_rate", "over_refusal_rate")
    series = [Series("all prompts", every, "rl")]
    known = any(found.value is not None for _, found in harmless)
    if known:
        series.append(Series("harmless ones", harmless, "initial"))
    svg = line_with_band("g-refusals", "Refusals by step", series, "step", "rate")
    beside = "; beside it the same among prompts that are marked harmless" if known else ""
    return Chart("Refusals", svg, f"Share of rollouts with a stock phrase of refusal{beside}. {len(curve)} steps.")


def _sources(curve: Rows) -> list[Chart]:
    """Of several sources of reward, what each said on its own scale, and how much of the rollouts it scored."""
    told = [part(row, "sources") for row in curve]
    names = list(dict.fromkeys(name for row in told for name in row))
    if len(names) < 2:
        return []
    total = sum(int(finite(part(row, name).get("num")) or 0) for row in told for name in names)
    charts = []
    for place, name in enumerate(names):
        points = [
            (
                step,
                _spread(
                    figure(part(row, name).get("mean"), "gold", "it scored nothing"), finite(part(row, name).get("std"))
                ),
            )
            for step, row in zip(_steps(curve), told, strict=True)
        ]
        scored = sum(int(finite(part(row, name).get("num")) or 0) for row in told)
        reasons: Counter[str] = Counter()
        for row in told:
            reasons.update({str(k): int(finite(v) or 0) for k, v in part(row, name, "abstained").items()})
        why = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in reasons.most_common())
        share = f"{scored:,} scores, {number(scored / total, 'rate')} of all" if total else "no scores"
        svg = line_with_band(f"g-source-{place}", f"{name} by step", [Series("score", points, "rl")], "step", "number")
        caption = (
            f"Mean score on its own scale; band: standard deviation. {share}{'; abstained: ' + why if why else ''}."
        )
        charts.append(Chart(f"Source: {short_source(name)}", svg, caption))
    return charts


def _holdout(artifacts: Artifacts) -> list[Chart]:
    """What a judge made of recorded rollouts; gold's reading of them is in the chart of gold."""
    rows = [row for row in artifacts.rows("6-policy/holdout.jsonl") if isinstance(row.get("holdout"), list)]
    gold = part(artifacts.summary, "gold").get("name")
    if not rows or all(row.get("reader") == gold for row in rows):
        return []
    points = []
    for row in rows:
        values = [value for value in map(finite, row["holdout"]) if value is not None]
        if values:
            points.append((finite(row.get("step")) or 0.0, figure(mean(values).to_json(), "gold")))
    reader = rows[-1].get("reader")
    series = [Series("holdout", points, "sl", marks=True)]
    svg = line_with_band("g-holdout", "Holdout judge by step", series, "step", "number")
    caption = (
        f"Rollouts since the checkpoint before, as {reader} reads them: 1 less the share of faults; 95 % intervals."
    )
    return [Chart("Holdout judge", svg, caption)]


def _from_pairs(summary: dict[str, Any], curve: Rows) -> list[Chart]:
    """Loss and accuracy by step; gold and KL of the checkpoints."""
    charts = []
    told = {"loss": "Nats per pair.", "accuracy": "Pairs of the batch that the policy orders as their label does."}
    for name, caption in told.items():
        points = [(finite(row.get("step")) or 0.0, figure(row.get(name), name)) for row in curve]
        kind = kind_of(name)
        svg = line_with_band(f"g-{name}", f"{name.title()} by step", [Series(name, points, "rl")], "step", kind)
        charts.append(Chart(name.title(), svg, f"{caption} {len(curve)} steps."))
    for name, title in (("gold", "Gold"), ("kl_to_sl_cai", "KL to SL-CAI")):
        series = [Series("held-out prompts", _checkpoints(summary, name), "sl", marks=True)]
        svg = line_with_band(f"g-{name}", f"{title} by step", series, "step", "number")
        charts.append(Chart(title, svg, "Rings: checkpoints on held-out prompts, with 95 % intervals."))
    return charts


def _spread(found: Figure, deviation: float | None) -> Figure:
    if found.value is None or deviation is None:
        return found
    return Figure(found.value, found.value - deviation, found.value + deviation)


def _checkpoints(summary: dict[str, Any], name: str) -> list[tuple[float, Figure]]:
    rows = [(finite(row.get("step")), figure(row.get(name), name)) for row in rows_at(summary, "curves", "checkpoints")]
    return [(step, found) for step, found in rows if step is not None]
