"""``charter audit``: what each link of the proxy chain lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say


def audit(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    people: Annotated[
        Path | None, typer.Option(help="People's preferences on the run's pairs: PreferencePair rows, same ids.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print audit.json instead of the table.")] = False,
) -> None:
    """Measure what each link lost, from true goal to policy, write 8-audit/audit.json, and name the link at fault."""
    from charter.audit.run import AUDIT_FILE, write_audit
    from charter.audit.table import table

    found = write_audit(run, people)
    if as_json:
        say(json.dumps(found, indent=2))
        return
    for line in table(found).splitlines():
        say(line)
    say(f"written to {run / AUDIT_FILE}")
