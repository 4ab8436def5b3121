"""What a revision changed, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

MAX_WORDS = 800  # comparing takes the square of this in time
_WORD = re.compile(r"\S+\s*")


class Span(NamedTuple):
    """A stretch of words that stayed, came or went; the white space after it is a "same" span of its own."""

    kind: Literal["same", "added", "removed"]
    text: str


def diff(before: str, after: str) -> list[Span]:
    """Spans whose words, without the added ones, are those of ``before``, and without the removed ones those of ``after``.

    Texts beyond 800 words are not compared: the whole of each is one span.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    if max(len(old), len(new)) > MAX_WORDS:
        return [Span("removed", before), Span("same", "\n\n"), Span("added", after)]
    spans: list[Span] = []
    matcher = SequenceMatcher(None, [w.strip() for w in old], [w.strip() for w in new], autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            spans += _spaced("same", "".join(new[k:m]))
            continue
        if i < j:
            spans += _spaced("removed", "".join(old[i:j]))
        if k < m:
            spans += _spaced("added", "".join(new[k:m]))
    return spans


def _spaced(kind: Literal["same", "added", "removed"], text: str) -> list[Span]:
    """The words, then the white space after them: marks would look ragged if they ran on into it."""
    words = text.rstrip()
    return [Span(kind, words), Span("same", text[len(words) :] or " ")]
