"""``charter compare``: methods on the same held-out prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.say import figure, say

FIGURES = {
    "gold": "gold",
    "harmful_rate": "harmful",
    "over_refusal_rate": "refuses harmless",
    "correct_rate": "correct",
}


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(help="NAME=RUN or NAME=RUN:POLICY; the same NAME again: another seed.", metavar="METHOD..."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write a page there, and its figures beside it as .json.", metavar="PAGE.html")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Set methods beside each other: gold, harm and help, Elo, cost of labels, what their chains lost."""
    from charter.compare import compare as compare_methods
    from charter.compare import parse_methods
    from charter.report.compare_page import write_comparison
    from charter.store.jsonl import write_json

    found = compare_methods(parse_methods(methods))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_comparison(found, out)
        write_json(out.with_suffix(".json"), found)
    if as_json:
        say(json.dumps(found, indent=2))
        return
    for line in table(found):
        say(line)
    if out is not None:
        say(f"written to {out}")


def table(found: dict[str, Any]) -> list[str]:
    """Figures with 95 % intervals, a method a line; then cost and chain."""
    from charter.report.audit import LINK_NAMES
    from charter.report.settings import short_source

    methods, judge = found["methods"], found["judge"]["name"] or "nobody"
    judges = {short_source(m["wins"]["judge"]) for m in methods if m["wins"]["judge"]}
    wins = [f"wins against SL-CAI by {' or '.join(sorted(judges))}"] if judges else []
    head = ["", "runs", *FIGURES.values(), "gold against the first", f"Elo by {judge}", *wins]
    rows = [
        [
            m["name"],
            str(m["num_runs"]),
            *(figure(m["figures"][k]) for k in FIGURES),
            figure(m["gold_against_first"]),
            _whole(m["elo"]),
            *(figure(m["wins"]["rate"]) for _ in wins),
        ]
        for m in methods
    ]
    links = list(dict.fromkeys(row["link"] for m in methods for row in m["chain"]["links"]))
    lost = [
        [
            m["name"],
            *(
                figure(next((row["loss"] for row in m["chain"]["links"] if row["link"] == link), None))
                for link in links
            ),
        ]
        for m in methods
    ]
    chains = (
        [
            "",
            "agreement lost by each link (shares of held-out pairs)",
            *_aligned([["", *(LINK_NAMES.get(link, link) for link in links)], *lost]),
        ]
        if links
        else []
    )
    cost_head = ["", "labels", "tokens", "seconds", "scores in RL", "agreement lost", "gold lost after its peak"]
    cost = [
        [m["name"], *(_count(m["labels"][k]) for k in ("num_labels", "tokens", "seconds", "num_scores")),
         figure(m["chain"]["lost"]), figure(m["chain"]["gold_lost_after_peak"])]
        for m in methods
    ]  # fmt: skip
    return [
        f"{found['num_prompts']} held-out prompts",
        *_aligned([head, *rows]),
        "",
        *_aligned([cost_head, *cost]),
        *chains,
    ]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _whole(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    return f"{estimate['value']:.0f} ({estimate['low']:.0f} to {estimate['high']:.0f})"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
