"""What is doubtful about a constitution that loads: near-duplicates, vague principles, wording that says nothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from charter.constitution.load import PLACEHOLDER, Constitution, fill
from charter.records import Principle

NEAR_DUPLICATE = 0.4  # Jaccard similarity of word sets, each word weighted by how few principles hold it
FEWEST_WORDS = 4
TIMES = {2: "double", 3: "threefold"}
MOST_SHOWN, MOST_CHARACTERS = 3, 80  # of the texts in one finding
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
    """One finding for each group of principles, any of which is like another of the group.

    A word that many principles hold, as "the AI should be", tells little: it weighs less.
    """
    words = {principle.id: frozenset(_words(principle.text)) for principle in constitution.principles}
    held = Counter(word for own in words.values() for word in own)
    weight = {word: math.log((len(words) + 1) / count) for word, count in held.items()}
    groups = {id: [id] for id in words}
    for a, b in combinations(words, 2):
        shared, all_words = (sum(weight[w] for w in both) for both in (words[a] & words[b], words[a] | words[b]))
        if all_words and shared / all_words >= NEAR_DUPLICATE and groups[a] is not groups[b]:
            groups[a] += groups[b]
            groups.update(dict.fromkeys(groups[b], groups[a]))
    text = {principle.id: principle.text for principle in constitution.principles}
    for first, members in groups.items():
        like = [id for id in text if id in members]
        if len(like) > 1 and first == like[0]:
            shown = "; ".join(_begin(text[id]) for id in like[:MOST_SHOWN]) + (
                "; ..." if len(like) > MOST_SHOWN else ""
            )
            yield Finding(
                "near-duplicate",
                tuple(like),
                f"{', '.join(like[:-1])} and {like[-1]} say nearly the same and count {TIMES.get(len(like), f'{len(like)}-fold')}: "
                f"merge them or tell them apart ({shown})",
            )


def _begin(text: str) -> str:
    short = " ".join(text.split())
    return f'"{short}"' if len(short) <= MOST_CHARACTERS else f'"{short[: MOST_CHARACTERS - 3]}..."'


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
