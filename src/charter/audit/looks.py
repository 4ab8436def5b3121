"""How a text looks and what it repeats: what neither phrase lists nor single words show.

Capitals, line breaks, digits and bold type; words that were there before, in the text itself or in the prompt; and a length
far from the usual one, for a link that likes neither the short nor the long.

Axes: P pairs (A minus B everywhere), F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from charter.audit.features import WORD, Features

CAPITALS = "capitals"
LINES = "line breaks"
DIGITS = "digits"
MARKS = "marks of bold type or headings"
REPEATED = "words said before"
ECHOED = "words of the prompt"
UNUSUAL = "words away from the usual length"
NAMES = (CAPITALS, LINES, DIGITS, MARKS, REPEATED, ECHOED)


def look_features(prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> Features:
    """Differences in how two responses to a prompt look."""
    asked = [set(WORD.findall(prompt.lower())) for prompt in prompts]
    values_PF = np.array(
        [[x - y for x, y in zip(_look(own, one), _look(own, other), strict=True)]
         for own, one, other in zip(asked, a, b, strict=True)], dtype=float,
    ).reshape(len(asked), len(NAMES))  # fmt: skip
    lengths_P2 = np.array([[len(x.split()), len(y.split())] for x, y in zip(a, b, strict=True)], dtype=float)
    usual = float(np.median(lengths_P2)) if len(asked) else 0.0
    away_P2 = np.abs(lengths_P2.reshape(len(asked), 2) - usual)
    return Features((*NAMES, UNUSUAL), np.column_stack([values_PF, away_P2[:, 0] - away_P2[:, 1]]))


def _look(asked: set[str], text: str) -> list[int]:
    words = WORD.findall(text.lower())
    return [
        sum(word[0].isupper() for word in text.split()),
        text.strip().count("\n"),
        sum(character.isdigit() for character in text),
        text.count("**") + text.count("#"),
        len(words) - len(set(words)),
        sum(word in asked for word in words if word[0].isalnum()),
    ]
