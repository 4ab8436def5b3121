"""``charter watch``: look on while a run works, from another terminal."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.say import aligned, say


def watch(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Look once, and print one JSON object.")] = False,
) -> None:
    """Show rows, rate, time left and the last metrics of each stage, until the run ends. Only files are read.

    \f
    JSON: run; state (working, finished, stopped); stages[] with name, state, rows, unit, total, per_second, seconds_left,
    seconds, metrics.
    """
    from charter.watch import look

    found = look(run)
    if as_json:
        say(json.dumps(found))
        return
    found = _live(run, found, every) if sys.stdout.isatty() else _plain(run, found, every)
    say(f"{run}: {ENDINGS[found['state']]}")


ENDINGS = {
    "finished": "finished",
    "working": "still working",  # the watcher was interrupted
    "stopped": "stopped before its end: the same charter run goes on",
}


def _live(run: Path, found: dict[str, Any], every: float) -> dict[str, Any]:
    from rich.live import Live
    from rich.text import Text

    from charter.safe_text import safe_text
    from charter.watch import look

    def shown(state: dict[str, Any]) -> Text:
        return Text(safe_text("\n".join(table(state))), no_wrap=True)

    with Live(shown(found), refresh_per_second=4) as live:
        try:
            while found["state"] == "working":
                time.sleep(every)
                found = look(run)
                live.update(shown(found))
        except KeyboardInterrupt:
            pass
    return found


def _plain(run: Path, found: dict[str, Any], every: float) -> dict[str, Any]:
    """Where nothing can be drawn over: the table once, then a line for each stage whose rows or state have changed."""
    from charter.watch import look

    for line in table(found):
        say(line)
    try:
        while found["state"] == "working":
            time.sleep(every)
            before, found = {stage["name"]: stage for stage in found["stages"]}, look(run)
            for stage in found["stages"]:
                if any(stage[key] != before[stage["name"]][key] for key in ("state", "rows")):
                    say("  ".join(cell for cell in _row(stage) if cell))
    except KeyboardInterrupt:
        pass
    return found


def table(found: dict[str, Any]) -> list[str]:
    """A stage a line."""
    return aligned([["stage", "", "done", "rate", "left", "last step"], *map(_row, found["stages"])])


def _row(stage: dict[str, Any]) -> list[str]:
    of = "" if stage["total"] is None else f" of {stage['total']:,}"
    rows = "" if stage["rows"] is None else f"{stage['rows']:,}{of} {stage['unit']}"
    rate = "" if stage["per_second"] is None else f"{stage['per_second']:.2f} per second"
    left = "" if stage["seconds_left"] is None else f"{stage['seconds_left']:,.0f} s"
    if stage["state"] == "done":
        left = f"took {stage['seconds']:,.0f} s"
    told = ", ".join(f"{key} {value:.3f}" for key, value in stage["metrics"].items() if isinstance(value, (int, float)))
    return [stage["name"], stage["state"], rows, rate, left, told]
