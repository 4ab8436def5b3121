"""``charter export``: a run's data for other tools."""

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
    VERL = "verl"
    LABEL_STUDIO = "label-studio"


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    to: Annotated[Format, typer.Option(help="Whose format to write.")],
    out: Annotated[Path | None, typer.Option(help="New folder (default: RUN/export/FORMAT).", metavar="DIR")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write a run's preferences, SFT set and prompts as other tools read them."""
    from charter.export.rows import read_run
    from charter.export.write import write_export

    folder = out or run / "export" / to.value
    told = write_export(read_run(run), to.value, folder)
    if as_json:
        say(json.dumps({"out": str(folder), **told}))
        return
    for name, count in told["files"].items():
        say(f"{folder / name}: {count:,} rows")
    say(
        f"{told['num_ties_left_out']} ties left out, {told['num_texts_replaced']} texts with half characters or NUL mended"
    )
