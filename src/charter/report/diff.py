"""What a revision changed, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

MAX_WORDS = 800  # comparing takes the square of this in time
_WORD = re.compile(r"\s*\S+")


class Span(NamedTuple):
    """A stretch of words that stayed, came or went."""

    kind: Literal["same", "added", "removed"]
    text: str


def diff(before: str, after: str) -> list[Span]:
    """Spans that read as ``before`` without the added ones, and as ``after`` without the removed ones.

    Texts beyond 800 words are not compared: the whole of each is one span.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    if max(len(old), len(new)) > MAX_WORDS:
        return [Span("removed", before), Span("added", after)]
    spans: list[Span] = []
    matcher = SequenceMatcher(None, [w.strip() for w in old], [w.strip() for w in new], autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            spans.append(Span("same", "".join(new[k:m])))
            continue
        if i < j:
            spans.append(Span("removed", "".join(old[i:j])))
        if k < m:
            spans.append(Span("added", "".join(new[k:m])))
    return spans
