"""``charter verify``: is every file of a run as it was written?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say

UNVERIFIED = 3  # exit code
NUM_NAMES = 20


def verify(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Hash every file of a finished run, or of its finished stages, again and name those that changed (exit code 1).

    Links, and files that the run didn't write, are named too, and a model whose chat template isn't that of the model it was
    trained from. Exit code 3: nothing is wrong in what could be checked, but files.json is missing, which a finished run ends
    with, or a database has writes beside it; the files that nothing tells of are named.

    \f
    JSON: run, num_stages (finished ones, which were hashed), faults[] (a line each), unverified[] (names of files),
    unknown[] (those of them that Charter doesn't write).
    """
    from charter.models.templates import template_faults
    from charter.verification import verify_run

    found = verify_run(run)
    faults = [*found.faults, *template_faults(run, _base(run))]
    code = 1 if faults else UNVERIFIED if found.unverified or not found.num_stages else 0
    if as_json:
        say(json.dumps({"run": str(run), **asdict(found), "faults": faults}))
        raise typer.Exit(code)
    for line in faults:
        say(line)
    if not faults:
        say(f"{run}: {_praise(found.num_stages, bool(found.unverified))}")
    if found.unverified:
        shown = sorted(found.unverified, key=lambda name: (name.count("/"), name))[:NUM_NAMES]
        more = len(found.unverified) - len(shown)
        say(f"not checked, as {_why(run)}: {', '.join(shown)}{f' and {more} more (--json names all)' if more else ''}")
    for name in found.unknown:
        say(f"{name}: unknown, no file that a run writes")
    raise typer.Exit(code)


def _praise(num_stages: int, in_part: bool) -> str:
    if not num_stages:
        return "no stage is finished, so there is nothing to verify"
    if not in_part:
        return f"all files of the finished run and its {num_stages} stages are as they were written"
    return (
        f"all files of {num_stages} finished stages are as their manifests say, and what constitution.yaml, inputs.json and "
        "summary.json repeat agrees"
    )


def _why(run: Path) -> str:
    from charter.store.whole import WHOLE

    if (run / WHOLE).is_file():
        return "the list of files doesn't hold them"
    return (
        f"no {WHOLE} tells of them (the run isn't finished, an earlier version made it, or somebody took the list away)"
    )


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
