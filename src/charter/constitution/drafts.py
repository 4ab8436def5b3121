"""Draft principles out of what wasn't written as a constitution: documents, traits of a character, voted statements.

A draft is tagged ``draft``, keeps its source, and gets critique, revision and comparison wording from a template. The
templates are English: translate them for a document in another language.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charter.constitution.collective import MIN_AGREEMENT, count_votes, is_statements, is_votes, read_statements
from charter.constitution.documents import Document, Section, read_html, read_markdown
from charter.constitution.load import Wording, fill
from charter.errors import ConstitutionError
from charter.records import Message, Principle, Prompt
from charter.store.disk import store_errors
from charter.store.hashing import hash_json

MAX_BYTES = 1 << 20
MAX_PRINCIPLES = 2000

DOCUMENT = Wording(
    critique_request=(
        "Identify specific ways in which the assistant's last response goes against what this says: {principle} If it "
        "doesn't, say so."
    ),
    revision_request=(
        "Rewrite the assistant's last response so that it respects what this says: {principle} Keep what is good about it, "
        "and write nothing but the new response."
    ),
    comparison="Which response respects better what this says: {principle}",
)
TRAIT = Wording(
    critique_request=(
        "Identify specific ways in which the assistant's last response is not one by an assistant who says of itself: "
        "{principle} If it is, say so."
    ),
    revision_request=(
        "Rewrite the assistant's last response as an assistant would who says of itself: {principle} Write nothing but the "
        "new response."
    ),
    comparison="Which response is more like one by an assistant who says of itself: {principle}",
)


@dataclass
class Drafts:
    """What a file gave: principles, prompts that go with them, and what a reader must know (left out, counted)."""

    principles: list[Principle] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_text_file(path: Path) -> str:
    """A text file of at most 1 MiB.

    Raises:
        ConstitutionError: larger, not UTF-8, or with a NUL. StoreError: it can't be read.
    """
    with store_errors(path), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConstitutionError(f"{path}: larger than 1 MiB: cut out the part that holds the principles")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConstitutionError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    if "\0" in text:
        raise ConstitutionError(f"{path}: holds a NUL character: it is no text file, or remove it")
    return text


def read_drafts(path: Path, votes: Path | None = None, min_agreement: float | None = None) -> Drafts | None:
    """Drafts of a file that is no JSON; None where it is JSON and so a matter of the importers.

    Raises:
        ConstitutionError: nothing in it that could be a principle, or too much.
    """
    text, suffix = read_text_file(path), path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        raise ConstitutionError(f"{path}: YAML is what an import makes: see charter constitution check {path}")
    if suffix == ".json" or (suffix not in (".csv", ".html", ".htm", ".md") and text.lstrip().startswith(("[", "{"))):
        return None
    if suffix == ".csv":
        found = _statements(path, text, votes, min_agreement)
    elif suffix in (".html", ".htm") or text.lstrip()[:15].lower().startswith(("<!doctype html", "<html")):
        found = of_document(path, read_html(text))
    else:
        found = of_document(path, read_markdown(text))
    if not found.principles:
        raise ConstitutionError(f"{path}: no principle found in it: {'; '.join(found.notes) or 'check the file'}")
    if len(found.principles) > MAX_PRINCIPLES:
        raise ConstitutionError(
            f"{path}: {len(found.principles)} principles: more than {MAX_PRINCIPLES}, split the file"
        )
    return found


def of_document(path: Path, document: Document) -> Drafts:
    """One draft for each article, section, item or paragraph, and where it stands."""
    drafts, left = document.drafts()
    title = document.title or path.stem
    found = Drafts(notes=[f"left out: {heading}" for heading in left])
    if document.language and not document.language.lower().startswith("en"):
        found.notes.append(f"the text is in {document.language}, the wording around it in English: translate it")
    for number, (heading, text) in enumerate(drafts, start=1):
        source = ", ".join(part for part in (title, heading, path.name) if part)
        found.principles.append(draft(f"{_kind(heading)}-{number}", text, DOCUMENT, source))
    return found


def of_articles(path: Path, content: dict[str, Any]) -> Drafts:
    """``{"title", "lang", "articles": [{"number", "paragraphs"}]}``: a parsed declaration."""
    sections = [
        Section(f"Article {row['number']}", [" ".join(text.split()) for text in row["paragraphs"]], article=True)
        for row in content["articles"]
    ]
    before = [Section("Preamble", list(content["preamble"]))] if content.get("preamble") else []
    return of_document(path, Document(str(content.get("title", "")), content.get("lang"), [*before, *sections]))


def of_traits(path: Path, content: list[dict[str, Any]]) -> Drafts:
    """OpenCharacterTraining: ``[{"trait", "questions": [...]}, ...]``; its questions are prompts to try the trait on."""
    found = Drafts()
    for number, row in enumerate(content, start=1):
        if not row["trait"].strip():
            continue
        principle = draft(f"trait-{number}", row["trait"], TRAIT, f"{path.name}, trait {number}")
        found.principles.append(principle)
        for question in row["questions"]:
            if question.strip():
                turns = (Message("user", question.strip()),)
                found.prompts.append(
                    Prompt(hash_json([turn.to_json() for turn in turns])[:16], turns, meta={"principle": principle.id})
                )
    if not found.principles:
        raise ConstitutionError(f"{path}: every trait in it is empty: it is a form to fill in")
    return found


def _statements(path: Path, text: str, votes: Path | None, min_agreement: float | None) -> Drafts:
    if is_votes(text):
        raise ConstitutionError(f"{path}: these are votes, not statements: name the statements, and these with --votes")
    if not is_statements(text):
        raise ConstitutionError(
            f"{path}: not a table of statements with votes (comment-body, agrees, ...): check the file"
        )
    statements = read_statements(path, text)
    if votes is not None:
        counts = read_text_file(votes)
        if not is_votes(counts):
            raise ConstitutionError(f"{votes}: not a table of votes (participant, group-id, a column a statement)")
        statements = count_votes(statements, votes, counts)
    threshold = MIN_AGREEMENT if min_agreement is None else min_agreement
    kept = [statement for statement in statements if statement.agreement >= threshold]
    found = Drafts(
        notes=[f"{len(kept)} of {len(statements)} statements reach an agreement of {threshold:g} in every group"]
    )
    seen: set[str] = set()
    for statement in kept:
        same = statement.text.casefold()
        if same in seen:
            found.notes.append(f"left out: statement {statement.id}, there twice")
            continue
        seen.add(same)
        found.principles.append(
            draft(f"statement-{statement.id}", statement.text, DOCUMENT, statement.provenance(path.name))
        )
    return found


def draft(id: str, text: str, wording: Wording, source: str) -> Principle:
    """A principle with a template's wording, tagged as a draft."""
    critique, revision = fill(wording.critique_request, text), fill(wording.revision_request, text)
    comparison = fill(wording.comparison, text)
    return Principle(_as_id(id), text.strip(), critique, revision, comparison, source=source, tags=("draft",))


def parse_json(path: Path) -> Any:
    """The JSON of a small text file.

    Raises:
        ConstitutionError: it isn't JSON.
    """
    try:
        return json.loads(read_text_file(path))
    except (ValueError, RecursionError) as error:
        raise ConstitutionError(f"{path}: not valid JSON ({str(error)[:80]}): mend the file") from error


def _kind(heading: str) -> str:
    """What a heading numbers, as an id: ``Article 3`` gives ``article``."""
    word = re.match(r"[A-Za-z]+", heading)
    return word.group().lower() if word and re.fullmatch(r"[A-Za-z]+\W*\d+\W*", heading) else "principle"


def _as_id(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "principle"
