"""``charter report``: the page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say


def report(run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")]) -> None:
    """Write report.html into a run folder anew, and print where it is."""
    from charter.report.page import write_report

    say(str(write_report(run)))
