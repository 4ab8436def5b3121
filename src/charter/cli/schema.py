"""``charter schema``: the form of a run file or a constitution, for editors and other tools."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from charter.cli.say import say


class Kind(StrEnum):
    """Of which file."""

    RUN = "run"
    CONSTITUTION = "constitution"


def schema(of: Annotated[Kind, typer.Argument(help="Which file.")]) -> None:
    """Print the JSON Schema of a run file or of a constitution. What only the whole file shows, charter run checks."""
    say(schema_text(of.value).rstrip("\n"))


def schema_text(of: str) -> str:
    """The schema as it stands in docs/schema, and beside the run file that charter init writes."""
    if of == "run":
        from charter.config import RunConfig

        found = RunConfig.model_json_schema()
    else:
        from charter.constitution.load import constitution_schema

        found = constitution_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=1) + "\n"
