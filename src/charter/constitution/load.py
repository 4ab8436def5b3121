"""Read a constitution from YAML, strictly.

name: mine
description: what it is for
defaults:                      # wording of principles that bring none; {principle} stands for the principle's text
  critique_request: "Say how the response breaks this: {principle}"
  revision_request: "Rewrite it so that it keeps this: {principle}"
  comparison: "Which response keeps this better: {principle}"
principles:
  - id: honesty
    text: Say nothing false.
    weight: 2                  # also critique_request, revision_request, comparison, source, tags, paraphrases
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from charter.errors import ConstitutionError
from charter.records import Principle
from charter.store.hashing import hash_json
from charter.yaml_io import Location, YamlDocument, dotted, load_yaml, validate

PLACEHOLDER = "{principle}"
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class Wording(BaseModel):
    """Templates for principles that bring no wording of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    critique_request: Text = (
        "Identify specific ways in which the assistant's last response falls short of this principle: {principle} "
        "If it doesn't fall short, say so."
    )
    revision_request: Text = (
        "Rewrite the assistant's last response so that it follows this principle: {principle} "
        "Keep what is good about it, and write nothing but the new response."
    )
    comparison: Text = "Which response follows this principle better? {principle}"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    text: Text
    critique_request: Text | None = None
    revision_request: Text | None = None
    comparison: Text | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    source: str | None = None
    tags: tuple[str, ...] = ()
    paraphrases: tuple[Text, ...] = ()

    def to_principle(self, defaults: Wording) -> Principle:
        return Principle(
            id=self.id,
            text=self.text.strip(),
            critique_request=(self.critique_request or fill(defaults.critique_request, self.text)).strip(),
            revision_request=(self.revision_request or fill(defaults.revision_request, self.text)).strip(),
            comparison=(self.comparison or fill(defaults.comparison, self.text)).strip(),
            weight=self.weight,
            source=self.source,
            tags=self.tags,
            paraphrases=tuple(text.strip() for text in self.paraphrases),
        )


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    description: str = ""
    defaults: Wording = Wording()
    principles: Annotated[tuple[_Entry, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Constitution:
    """An ordered set of principles. ``defaults`` is the wording of those that brought none."""

    name: str
    description: str
    principles: tuple[Principle, ...]
    defaults: Wording = Wording()

    @property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) of the principles' content; layout, comments and the file's name don't change it."""
        return hash_json([_normalised(principle.to_json()) for principle in self.principles])


def _normalised(value: object) -> object:
    """The same value with every run of white space made one space."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        return [_normalised(item) for item in value]
    if isinstance(value, dict):
        return {key: _normalised(item) for key, item in value.items()}
    return value


def fill(template: str, text: str) -> str:
    """Put a principle's text where the template says ``{principle}``. Braces in the text mean nothing."""
    return template.replace(PLACEHOLDER, text.strip())


def load_constitution(path: Path) -> Constitution:
    """Read and check a constitution.

    Raises:
        ConstitutionError: unknown key, empty or duplicate id or text, weight that isn't positive; names file and line.
        StoreError: the file can't be read.
    """
    document = load_yaml(path, ConstitutionError)
    file = validate(_File, document, ConstitutionError)
    _refuse_duplicates(document, [entry.id for entry in file.principles], "id")
    _refuse_duplicates(document, [entry.text for entry in file.principles], "text")
    principles = tuple(entry.to_principle(file.defaults) for entry in file.principles)
    return Constitution(file.name.strip(), file.description.strip(), principles, file.defaults)


def constitution_schema() -> dict[str, Any]:
    """JSON Schema of the file; that ids and texts differ is beyond it."""
    return {**_File.model_json_schema(), "title": "Constitution", "description": "A Charter constitution."}


def _refuse_duplicates(document: YamlDocument, values: list[str], key: str) -> None:
    seen: dict[str, Location] = {}
    for index, value in enumerate(values):
        location: Location = ("principles", index, key)
        same = " ".join(value.casefold().split())
        if same in seen:
            first = document.place(seen[same]).rpartition(":")[2]
            raise ConstitutionError(
                f"{document.place(location)}: {dotted(location)}: the same {key} as in line {first}: delete or change one"
            )
        seen[same] = location


def find_constitution(source: str) -> Path:
    """The file that a path, or the name of a shipped constitution, stands for.

    Raises:
        ConstitutionError: neither is there; names the shipped ones.
    """
    path = Path(source).expanduser()
    shipped = {file.stem: file for file in sorted((Path(__file__).parents[1] / "constitutions").glob("*.yaml"))}
    if path.is_file():
        return path
    if source not in shipped:
        raise ConstitutionError(
            f"{source}: no such file, and no shipped constitution ({', '.join(shipped)}): check the path"
        )
    return shipped[source]
