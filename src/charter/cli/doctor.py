"""``charter doctor``: is this machine fit for a run?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say


def doctor(
    run_file: Annotated[
        Path | None, typer.Argument(help="Run file: look at what it needs, too.", metavar="[RUN.yaml]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, as engine=trl.", metavar="KEY=VALUE")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where runs will be written.", metavar="DIR")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Look at Python, packages, device, disk and settings, and say how to mend what is wrong. Exit code 1: a problem.

    With a run file also at what that run needs: extras, keys, servers, models.

    \f
    JSON: findings[] with name, level (ok, note, problem), says, fix; num_problems.
    """
    from charter.doctor import examine

    findings = examine(folder, run_file, list(set_ or []))
    problems = sum(finding["level"] == "problem" for finding in findings)
    if as_json:
        say(json.dumps({"findings": findings, "num_problems": problems}))
    else:
        for finding in findings:
            say(f"{finding['level']:8}{finding['name']:20}{finding['says']}")
            if finding["fix"]:
                say(f"{'':28}-> {finding['fix']}")
    if problems:
        raise typer.Exit(1)
