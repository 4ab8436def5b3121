"""``charter report``: the page about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say, warn

NUM_FAULTS = 3  # named


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write report.html into a run folder anew, and print where it is.

    Where the folder doesn't verify (charter verify), the page says so, and so does a line on standard error.

    \f
    JSON: report (path). The figures themselves stand in RUN/summary.json and RUN/8-audit/audit.json.
    """
    from charter.report.page import check, write_report
    from charter.store.whole import WHOLE

    found = check(run)
    page = str(write_report(run, found))
    if found.faults:
        more = f" and {len(found.faults) - NUM_FAULTS} more" if len(found.faults) > NUM_FAULTS else ""
        warn(f"{run} does not verify, don't trust its figures: {'; '.join(found.faults[:NUM_FAULTS])}{more}")
    elif "summary.json" in found.unverified:
        warn(
            f"no {WHOLE} tells whether summary.json and other files are as the run wrote them: see charter verify {run}"
        )
    say(json.dumps({"report": page}) if as_json else page)
