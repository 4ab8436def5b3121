"""``charter export``: a run's data and models for other tools."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say


class Format(StrEnum):
    """Whose format."""

    TRL = "trl"
    TRL_STANDARD = "trl-standard"
    CSV = "csv"
    HF = "hf"
    VERL = "verl"
    LABEL_STUDIO = "label-studio"


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    to: Annotated[Format, typer.Option(help="Whose format to write.")],
    out: Annotated[Path | None, typer.Option(help="New folder (default: RUN/export/FORMAT).", metavar="DIR")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write a run's preferences, SFT set and prompts as other tools read them; --to hf: its models too, with cards."""
    from charter.export.rows import read_run
    from charter.export.write import write_export
    from charter.store.whole import note_export

    folder = out or run / "export" / to.value
    if to is Format.HF:
        _folders(run, folder, as_json)
        return
    told = write_export(read_run(run), to.value, folder)
    note_export(run, folder)
    if as_json:
        say(json.dumps({"out": str(folder), **told}))
        return
    for name, count in told["files"].items():
        say(f"{folder / name}: {count:,} rows")
    say(
        f"{told['num_ties_left_out']} ties left out, {told['num_texts_replaced']} texts with half characters or NUL mended"
    )


def _folders(run: Path, folder: Path, as_json: bool) -> None:
    from charter.export.hub import write_folders
    from charter.store.whole import note_export

    found = write_folders(run, folder)
    note_export(run, folder)
    if as_json:
        files = {what: [file.to_json() for file in files] for what, files in found.items()}
        say(json.dumps({"out": str(folder), "to": "hf", "files": files}))
        return
    for what, written in found.items():
        say(f"{folder / what}: {len(written)} files, {sum(file.size for file in written):,} bytes")
