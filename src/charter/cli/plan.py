"""``charter plan``: what a run will do, before it does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.run import default_run_file
from charter.cli.say import aligned, say


def plan(
    run_file: Annotated[
        Path | None, typer.Argument(help="Run file; none: the embedded default.", metavar="[RUN.yaml]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, as policy.steps=3.", metavar="KEY=VALUE")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Let the run's own model answer a few prompts, and time it; else only count.")
    ] = True,
    against: Annotated[
        Path | None, typer.Option(help="Finished run: planned over used, stage by stage.", metavar="RUN")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what a run will ask, generate, train and hold in memory: tokens, time, money, gigabytes. Asks no server.

    \f
    JSON: name; calibrated; upper_bound; sample_rows; stages[] with name, rows, unit, calls, check_calls (of the labeler),
    prompt_tokens, completion_tokens, trained_tokens, num_tokens (as the run counts), seconds, seconds_reason, money,
    memory_gb, memory_reason, memory[] (model, what, num_bytes, note), models;
    total; endpoints[] with source, calls, tokens, price, money, max_spend, max_tokens, stops_before_the_end; warnings[];
    assumptions[];
    against[] where --against is given, with tokens_ratio and seconds_ratio.
    """
    from charter.run_file import load_run

    config = load_run(run_file or default_run_file(), list(set_ or []))

    from charter.plan.make import against as compare
    from charter.plan.make import make_plan

    found = make_plan(config, calibrate=calibrate)
    if against is not None:
        found["against"] = compare(found, against)
    for line in [json.dumps(found)] if as_json else table(found):
        say(line)


def table(found: dict[str, Any]) -> list[str]:
    """The plan as lines for people."""
    head = ["stage", "rows", "calls", "read tokens", "written", "trained on", "seconds", "money", "GB"]
    rows = [_row(stage["name"], f"{stage['rows']:,} {stage['unit']}", stage) for stage in found["stages"]]
    lines = aligned([head, *rows, _row("all", "", found["total"])])
    lines += [
        f"{stage['name']}: {stage['check_calls']:,} of its calls are the check of the labeler (label.check)"
        for stage in found["stages"]
        if stage["check_calls"]
    ]
    for endpoint in found["endpoints"]:
        caps = [f"{name} {endpoint[name]:,}" for name in ("max_spend", "max_tokens") if endpoint[name] is not None]
        says = f"{endpoint['source']}: {endpoint['calls']:,} calls; caps: {', '.join(caps) or 'none'}"
        stops = "; stops there, and goes on once the cap is raised" if endpoint["stops_before_the_end"] else ""
        lines.append(says + stops)
    if "against" in found:
        lines += ["", *_against(found["against"])]
    return [*lines, "", *(f"warning: {line}" for line in found["warnings"]), *found["assumptions"]]


def _row(name: str, rows: str, entry: dict[str, Any]) -> list[str]:
    counts = [f"{entry[key]:,}" for key in ("calls", "prompt_tokens", "completion_tokens", "trained_tokens")]
    known = [_seconds(entry["seconds"]), _known(entry["money"], ",.2f"), _known(entry["memory_gb"], ".2f")]
    return [name, rows, *counts, *known]


def _seconds(value: float | None) -> str:
    """``3,900 (1 h 5 min)``"""
    if value is None or value < 60:
        return _known(value, ",.0f")
    minutes = round(value / 60)
    return f"{value:,.0f} ({f'{minutes // 60} h {minutes % 60} min' if minutes >= 60 else f'{minutes} min'})"


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _against(rows: list[dict[str, Any]]) -> list[str]:
    head = ["planned / used", "tokens used", "ratio", "seconds used", "ratio"]
    body = [
        [
            row["name"],
            _known(row["used_tokens"], ",.0f"),
            _known(row["tokens_ratio"], ".2f"),
            _known(row["used_seconds"], ",.0f"),
            _known(row["seconds_ratio"], ".2f"),
        ]
        for row in rows
    ]
    return aligned([head, *body])
