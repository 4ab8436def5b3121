"""``charter audit``: what each link of the proxy chain lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say, warn
from charter.errors import DataError


def audit(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    people: Annotated[
        Path | None, typer.Option(help="People's preferences on the run's pairs: PreferencePair rows, same ids.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print audit.json instead of the table.")] = False,
) -> None:
    """Measure what each link lost, from true goal to policy, write 8-audit/audit.json, and name the link at fault.

    An audit that was there and says otherwise is kept as 8-audit/audit.before.json (once: what lies there already stays), and
    the headline figures that changed are printed; with --json, on standard error.
    """
    from charter.audit.run import AUDIT_FILE, BEFORE_FILE, audit_again
    from charter.audit.table import table
    from charter.store.folder import RunFolder

    _refuse_too_early(run)
    with RunFolder.open(run):  # nobody else may write there meanwhile
        found, changed = audit_again(run, people)
    if as_json:
        if changed is not None:
            warn(f"the audit that was there says otherwise: {'; '.join(changed)} (see {run / BEFORE_FILE})")
        say(json.dumps(found, indent=2))
        return
    for line in table(found).splitlines():
        say(line)
    say(f"written to {run / AUDIT_FILE}")
    if changed is not None:
        say()
        say(f"otherwise than in the audit that was there ({run / BEFORE_FILE}):")
    for line in changed or ():
        say(f"  {line}")


def _refuse_too_early(run: Path) -> None:
    """An audit needs labels or, of a run that makes none, replies.

    Raises:
        DataError: there is no run, or it has got no further.
    """
    from charter.store.stale import ASIDE

    if not (run / "run.yaml").is_file():
        raise DataError(f"{run}: no run folder (run.yaml isn't there): check the path")
    labels = run / "4-label" / "preferences.jsonl"
    has_labels = labels.is_file() and labels.stat().st_size > 0 and not labels.with_name(ASIDE).is_file()
    if not has_labels and not any((run / "7-evaluate").glob("*.jsonl")):
        raise DataError(f"{run}: there are no labels yet, and nothing to audit: go on with charter run first")
