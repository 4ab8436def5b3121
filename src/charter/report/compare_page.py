"""``compare.html``: methods side by side on one self-contained page, with the style and the rules of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from charter.report.audit import LINK_NAMES, points
from charter.report.charts import Fall, Row, dot_interval, plane, waterfall
from charter.report.figures import Figure, figure, name_of
from charter.report.page import asset, content_security_policy, environment
from charter.report.sections import Chart, Table, TableRow
from charter.report.settings import short_source
from charter.store.disk import atomic_write

STYLES = ("rl", "sl", "initial", "other")
FIGURES = ("gold", "harmful_rate", "over_refusal_rate", "correct_rate", "evasive_rate", "kl_to_sl_cai")


def write_comparison(found: dict[str, Any], path: Path) -> None:
    """Write the page. Raises StoreError where it can't be written."""
    methods = found["methods"]
    style = asset("page.css")
    html = (
        environment()
        .from_string(asset("compare.html.j2"))
        .render(
            policy=content_security_policy(style, ""),
            css=Markup(style),
            found=found,
            charts=[*_picture(methods), *_intervals(methods), *_chains(methods)],
            table=_table(methods),
            cost=_cost(methods),
        )
    )
    with atomic_write(path) as file:
        file.write(html.encode("utf-8"))


def _picture(methods: Sequence[dict[str, Any]]) -> list[Chart]:
    rows = [
        (
            method["name"].partition(",")[0],  # there is little room beside a cross
            figure(method["figures"]["correct_rate"], "correct_rate"),
            figure(method["figures"]["harmful_rate"], "harmful_rate"),
            STYLES[i % len(STYLES)],
            True,
        )
        for i, method in enumerate(methods)
    ]
    if not any(h.value is not None and v.value is not None for _, h, v, _, _ in rows):
        return []
    traces = [[(point["correct_rate"], point["harmful_rate"]) for point in method["trace"]] for method in methods]
    title = "Helpful against harmless"
    caption = "Crosses are 95 % intervals; lines lead from the initial policy to each method’s last."
    return [Chart(title, plane("c-plane", title, rows, traces), caption)]


def _intervals(methods: Sequence[dict[str, Any]]) -> list[Chart]:
    charts = []
    for name, title, of in (
        ("gold", "Gold", lambda method: method["figures"]["gold"]),
        ("elo", "Elo by gold", lambda method: method["elo"]),
    ):
        rows = [Row(m["name"], figure(of(m), "gold"), STYLES[i % len(STYLES)]) for i, m in enumerate(methods)]
        charts.append(Chart(title, dot_interval(f"c-{name}", title, rows), "95 % intervals, clustered by prompt."))
    return charts


def _chains(methods: Sequence[dict[str, Any]]) -> list[Chart]:
    """Each method's chain: four links with a constitution, three without."""
    charts = []
    for i, method in enumerate(methods):
        links = method["chain"].get("links") or []
        falls = [
            Fall(LINK_NAMES.get(row["link"], row["link"]), figure(row["agreement"], "accuracy"), points(row["loss"]))
            for row in links
        ]
        if any(fall.agreement.value is not None for fall in falls):
            title = f"{method['name']}: {len(falls)} links"
            runs = "over runs" if method["num_runs"] > 1 else "over prompts"
            caption = (
                f"Agreement with the goal, and what each link lost of the one before, in points; 95 % intervals {runs}."
            )
            charts.append(Chart(title, waterfall(f"c-chain-{i}", title, falls), caption))
    return charts


def _table(methods: Sequence[dict[str, Any]]) -> Table:
    judges = sorted({short_source(method["wins"]["judge"]) for method in methods if method["wins"]["judge"]})
    wins = [f"wins against SL-CAI, by {' or '.join(judges)}"] if judges else []
    columns = [*(name_of(name) for name in FIGURES), "gold against the first", "Elo", *wins]
    rows = [
        TableRow(
            method["name"],
            [
                *(figure(method["figures"][name], name) for name in FIGURES),
                figure(method["gold_against_first"], "gold"),
                figure(method["elo"], "gold"),
                *(figure(method["wins"]["rate"], "accuracy") for _ in wins),
            ],
        )
        for method in methods
    ]
    return Table("The same held-out prompts; small print: 95 % intervals", columns, rows)


def _cost(methods: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for method in methods:
        labels, chain = method["labels"], method["chain"]
        why = "scores are part of training"
        counts = [
            Figure(labels[key], reason=why, kind="count") for key in ("num_labels", "tokens", "seconds", "num_scores")
        ]
        lost = [figure(chain[key], name) for key, name in (("lost", "accuracy"), ("gold_lost_after_peak", "gold"))]
        rows.append(TableRow(method["name"], [*counts, *lost]))
    columns = [
        "labels",
        "tokens of labelling",
        "seconds of labelling",
        "scores in reinforcement learning",
        "agreement lost along the chain",
        "gold lost after its peak",
    ]
    return Table(
        "What labels cost, and what can be attacked; means over runs, small print: 95 % intervals over runs",
        columns,
        rows,
    )
