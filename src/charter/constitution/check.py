"""What is doubtful about a constitution that loads: near-duplicates, vague principles, wording that says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from charter.constitution.load import PLACEHOLDER, Constitution, fill
from charter.records import Principle

NEAR_DUPLICATE = 0.6  # Jaccard similarity of word sets
FEWEST_WORDS = 4
WORDINGS = ("critique_request", "revision_request", "comparison")


@dataclass(frozen=True, slots=True)
class Finding:
    """One doubt: ``kind``, the principles it is about, and a sentence that ends with what to do."""

    kind: str
    principle_ids: tuple[str, ...]
    message: str


def check(constitution: Constitution) -> list[Finding]:
    """All findings, in order of the principles; an empty list is good news."""
    return [
        *_templates(constitution),
        *(finding for principle in constitution.principles for finding in _vague(principle)),
        *(finding for principle in constitution.principles for finding in _general_wording(constitution, principle)),
        *_near_duplicates(constitution),
    ]


def _templates(constitution: Constitution) -> Iterator[Finding]:
    for name in ("critique_request", "comparison"):
        if PLACEHOLDER not in getattr(constitution.defaults, name):
            yield Finding(
                "template",
                (),
                f"defaults.{name} doesn't say {PLACEHOLDER}: it is the same for all principles; put it in",
            )
    for name in WORDINGS:
        for brace in re.findall(r"\{[^{}]*\}", getattr(constitution.defaults, name)):
            if brace != PLACEHOLDER:
                yield Finding(
                    "template", (), f"defaults.{name} says {brace}, which stays as it is: write {PLACEHOLDER}?"
                )


def _vague(principle: Principle) -> Iterator[Finding]:
    if len(_words(principle.text)) < FEWEST_WORDS:
        yield Finding("vague", (principle.id,), f"{principle.id} is very short: say what a response must do or leave")


def _general_wording(constitution: Constitution, principle: Principle) -> Iterator[Finding]:
    general = [
        name
        for name in WORDINGS
        if getattr(principle, name) == fill(getattr(constitution.defaults, name), principle.text).strip()
    ]
    if general:
        yield Finding(
            "wording", (principle.id,), f"{principle.id} has no {', '.join(general)} of its own: the default is used"
        )


def _near_duplicates(constitution: Constitution) -> Iterator[Finding]:
    words = {principle.id: frozenset(_words(principle.text)) for principle in constitution.principles}
    for a, b in combinations(words, 2):
        likeness = len(words[a] & words[b]) / max(1, len(words[a] | words[b]))
        if likeness >= NEAR_DUPLICATE:
            yield Finding(
                "near-duplicate",
                (a, b),
                f"{a} and {b} share {likeness:.0%} of their words and count double: merge them or tell them apart",
            )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
