"""``charter verify``: is every file of a run as it was written?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say


def verify(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Hash every file of a finished run, or of its finished stages, again and name those that changed (exit code 1).

    A model whose chat template isn't that of the model it was trained from is named too, with the difference.

    \f
    JSON: run, num_stages (finished ones, which were hashed), faults[] (a line each).
    """
    from charter.models.templates import template_faults
    from charter.store.folder import MANIFEST
    from charter.store.folder import verify as find_faults
    from charter.store.whole import WHOLE

    faults = [*find_faults(run), *template_faults(run, _base(run))]
    num_stages = len(list(run.glob(f"*/{MANIFEST}")))
    if as_json:
        say(json.dumps({"run": str(run), "num_stages": num_stages, "faults": faults}))
        raise typer.Exit(1 if faults else 0)
    for line in faults:
        say(line)
    if faults:
        raise typer.Exit(1)
    if (run / WHOLE).is_file():
        say(f"{run}: all files of the finished run and its {num_stages} stages are as they were written")
    elif num_stages:
        say(
            f"{run}: all files of {num_stages} finished stages are as they were written; no {WHOLE} tells of the files beside them "
            "(summary, report, ledger): the run isn't finished, or an earlier version made it"
        )
    else:
        say(f"{run}: no stage is finished, so there is nothing to verify")


def _base(run: Path) -> Path | None:
    """The folder of the model that was trained, where the run file names one; nothing is imported for it."""
    from charter.errors import CharterError, ConfigError
    from charter.store.disk import store_errors
    from charter.yaml_io import parse_yaml

    path = run / "run.yaml"
    try:
        with store_errors(path):
            read = parse_yaml(path.read_text("utf-8", "replace"), path, ConfigError).data
        source = Path(str(read["model"]["source"]))
    except (CharterError, KeyError, TypeError):
        return None
    return source if source.is_dir() else None
