"""``charter report``: the page about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write report.html into a run folder anew, and print where it is.

    \f
    JSON: report (path). The figures themselves stand in RUN/summary.json and RUN/8-audit/audit.json.
    """
    from charter.report.page import write_report

    page = str(write_report(run))
    say(json.dumps({"report": page}) if as_json else page)
