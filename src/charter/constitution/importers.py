"""Constitutions of others into ours, and ours onto disk.

Known forms (told apart by shape, not by name):
    critiques     {"harmful0": {"prompt": ["...CritiqueRequest: ..."], "edit_request": "...RevisionRequest: ..."}, ...}
    comparisons   ["\\nPlease choose the assistant response that ... Options:", ...]
    llm-swarm     {"constitutions": [{"critic": ..., "revision": ...}], "system_chat": [...]}
    articles      {"title": ..., "articles": [{"number": 1, "paragraphs": [...]}]}, a parsed declaration
    traits        [{"trait": ..., "questions": [...]}], as in OpenCharacterTraining
    documents     HTML, Markdown or plain text, and CSV of statements with votes: see drafts.py
The first two are CritiqueRevisionInstructions.json and RLMadisonInstructions.json of Bai et al. 2022.

What a source doesn't word, ours must: a critique and revision pair gets a comparison made from its revision request, a
comparison gets critique and revision requests made from it. The tags ``critique`` and ``comparison`` say which was given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.constitution.check import WORDINGS
from charter.constitution.drafts import DOCUMENT, TRAIT, Drafts, of_articles, of_traits, parse_json, read_drafts
from charter.constitution.load import Constitution, Wording, fill
from charter.errors import ConstitutionError
from charter.records import Principle
from charter.yaml_io import dump_yaml, write_text

_MARKERS = re.compile(r"^\s*(?:CritiqueRequest:|RevisionRequest:)\s*|\s*(?:Critique:|Revision:|Options:)\s*$")
CRITIQUE = Wording(
    revision_request="{principle}",
    comparison="Choose the response that is less in need of this change: {principle}",
)
COMPARISON = Wording(
    critique_request=(
        "Identify specific ways in which the assistant's last response is not the one that a reader would choose who was "
        "told: {principle}"
    ),
    revision_request=(
        "Rewrite the assistant's last response so that it is the one that a reader would choose who was told: {principle} "
        "Write nothing but the new response."
    ),
    comparison="{principle}",
)


def import_constitution(
    paths: Sequence[Path],
    name: str,
    found: Drafts | None = None,
    votes: Path | None = None,
    min_agreement: float | None = None,
) -> Constitution:
    """Read one or more files of known forms into one constitution, in order.

    Args:
        found: collects prompts and notes beside the principles.
        votes: participants' votes on the statements of a CSV file; ``min_agreement``: the least of any group, in [0, 1].

    Raises:
        ConstitutionError: an unknown form, an empty entry, or a principle that is there twice.
        DataError, StoreError: a file that can't be read.
    """
    found = found if found is not None else Drafts()
    for path in paths:
        read = read_drafts(path, votes, min_agreement) or _from_json(path, parse_json(path))
        found.principles += read.principles
        found.prompts += read.prompts
        found.notes += read.notes
    principles = tuple(found.principles)
    if not principles:
        raise ConstitutionError(f"{paths[0]}: no principle is in it: name a file that holds some")
    for field in ("id", "text"):
        values = [getattr(principle, field) for principle in principles]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ConstitutionError(
                f"{paths[0]}: {field} {twice[:60]!r} is there twice: delete one of the two and import again"
            )
    origin = ", ".join(path.name for path in paths)
    return Constitution(name, f"Imported from {origin}.", principles, _shared_wording(principles))


def _shared_wording(principles: Sequence[Principle]) -> Wording:
    """The template that words most of them. In the file it stands once, so that a reader who rewords a draft does it once."""

    def num_made_by(wording: Wording) -> int:
        return sum(
            getattr(principle, name) == fill(getattr(wording, name), principle.text).strip()
            for principle in principles
            for name in WORDINGS
        )

    return max((Wording(), DOCUMENT, TRAIT, CRITIQUE, COMPARISON), key=num_made_by)


def _from_json(path: Path, content: Any) -> Drafts:
    try:
        if isinstance(content, dict) and "articles" in content:
            return of_articles(path, content)
        if isinstance(content, list) and content and isinstance(content[0], dict) and "trait" in content[0]:
            return of_traits(path, content)
        return Drafts(_principles(path, content))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConstitutionError(
            f"{path}: an entry has not the form of its neighbours ({error}): mend the file"
        ) from error


def _principles(path: Path, content: Any) -> list[Principle]:
    if isinstance(content, list) and any(_is_dialogue(text) for text in content):
        raise ConstitutionError(f"{path}: whole dialogues, not instructions: these are examples, no constitution")
    try:
        if isinstance(content, dict) and "constitutions" in content:
            entries = [
                (f"{path.stem}-{i}", row["critic"], row["revision"]) for i, row in enumerate(content["constitutions"])
            ]
            return [_from_critique(id, critic, revision, path.name) for id, critic, revision in entries]
        if isinstance(content, dict):
            return [_from_critique(id, row["prompt"][0], row["edit_request"], path.name) for id, row in content.items()]
        if isinstance(content, list):
            return [_from_comparison(f"comparison{i}", text, path.name) for i, text in enumerate(content)]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ConstitutionError(
            f"{path}: an entry has not the form of its neighbours ({error}): mend the file"
        ) from error
    raise ConstitutionError(f"{path}: not a known form of constitution: see charter constitution import --help")


def _is_dialogue(entry: Any) -> bool:
    if isinstance(entry, dict):
        entry = entry.get("prompt")
    return isinstance(entry, str) and entry.lstrip().startswith("Human:")


def _bare(text: str, path: str) -> str:
    """An instruction without the markers that the source puts around it."""
    while (bare := _MARKERS.sub("", text).strip()) != text:
        text = bare
    if not text:
        raise ConstitutionError(f"{path}: an empty instruction: delete it and import again")
    return text


def _from_critique(id: str, critique: str, revision: str, path: str) -> Principle:
    critique, revision = _bare(critique, path), _bare(revision, path)
    comparison = fill(CRITIQUE.comparison, revision)
    return Principle(_as_id(id), revision, critique, revision, comparison, source=path, tags=("critique",))


def _from_comparison(id: str, text: str, path: str) -> Principle:
    text = _bare(text, path)
    critique, revision = fill(COMPARISON.critique_request, text), fill(COMPARISON.revision_request, text)
    return Principle(_as_id(id), text, critique, revision, text, source=path, tags=("comparison",))


def _as_id(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "principle"


def write_constitution(constitution: Constitution, path: Path) -> None:
    """Write a constitution as YAML; reading it back gives the same principles and hash.

    Raises:
        StoreError: it can't be written.
    """
    data: dict[str, Any] = {"name": constitution.name, "description": constitution.description}
    if constitution.defaults != Wording():
        data["defaults"] = constitution.defaults.model_dump()
    data["principles"] = [_entry(principle, constitution.defaults) for principle in constitution.principles]
    write_text(path, dump_yaml(data))


def _entry(principle: Principle, defaults: Wording) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": principle.id, "text": principle.text}
    for name in WORDINGS:
        if getattr(principle, name) != fill(getattr(defaults, name), principle.text).strip():
            entry[name] = getattr(principle, name)
    if principle.weight != 1:
        entry["weight"] = principle.weight
    if principle.source is not None:
        entry["source"] = principle.source
    for name in ("tags", "paraphrases"):
        if getattr(principle, name):
            entry[name] = list(getattr(principle, name))
    return entry
