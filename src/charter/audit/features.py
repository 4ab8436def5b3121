"""What a text shows without being understood: length, phrases of style and refusal, words and pairs of words.

Whatever the phrase lists (phrases.py) miss is found by the search over words and pairs of words.

Axes: P pairs (A minus B everywhere), F features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from charter.phrases import PHRASES, counts
from charter.regression import Array

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
LENGTH = "words"
MAX_GRAMS = 400
MIN_PAIRS = 8
MIN_SHARE = 0.01


@dataclass(frozen=True)
class Features:
    """Named columns float64[P, F]: the count in A minus the count in B."""

    names: tuple[str, ...]
    values_PF: Array

    def column(self, name: str) -> Array:
        return self.values_PF[:, self.names.index(name)]

    def rows(self, keep_P: np.ndarray) -> Features:
        return Features(self.names, self.values_PF[keep_P])


def joined(*parts: Features) -> Features:
    """Features beside each other; a later one that repeats an earlier column is left out."""
    names = [name for part in parts for name in part.names]
    values_PF = np.concatenate([part.values_PF for part in parts], axis=1)
    seen: set[bytes] = set()
    kept = []
    for column in range(values_PF.shape[1]):
        key = values_PF[:, column].tobytes()
        if key not in seen and np.any(values_PF[:, column]):
            kept.append(column)
        seen.add(key)
    return Features(tuple(names[column] for column in kept), np.ascontiguousarray(values_PF[:, kept]))


@lru_cache(maxsize=50_000)
def style(text: str) -> dict[str, float]:
    """Length in words and counts of phrases."""
    return {LENGTH: float(len(text.split())), **{name: float(count) for name, count in counts(text).items()}}


@lru_cache(maxsize=50_000)
def grams(text: str) -> Counter[str]:
    """Words and pairs of neighbouring words, in lower case, and how often they stand in the text."""
    words = WORD.findall(text.lower())
    return Counter(words) + Counter(f"{first} {second}" for first, second in zip(words, words[1:], strict=False))


def style_features(a: Sequence[str], b: Sequence[str]) -> Features:
    """Differences in length and phrases."""
    rows = [(style(x), style(y)) for x, y in zip(a, b, strict=True)]
    names = (LENGTH, *PHRASES)
    return Features(names, np.array([[x[n] - y[n] for n in names] for x, y in rows]).reshape(len(rows), len(names)))


def gram_features(a: Sequence[str], b: Sequence[str]) -> Features:
    """Differences in counts of the words and pairs of words that tell enough pairs apart, the commonest first.

    Enough: one pair of a hundred, and at least 8. At most 400; of two with the same counts the shorter stays.
    """
    rows = []
    for x, y in zip(a, b, strict=True):
        difference = Counter(grams(x))  # a copy: counts are kept by text
        difference.subtract(grams(y))
        rows.append({gram: count for gram, count in difference.items() if count})
    present = Counter(gram for row in rows for gram in row)
    least = max(MIN_PAIRS, MIN_SHARE * len(rows))
    common = sorted((g for g, count in present.items() if count >= least), key=lambda g: (-present[g], len(g), g))
    names = sorted(common[:MAX_GRAMS], key=lambda g: (g.count(" "), g))
    place = {gram: column for column, gram in enumerate(names)}
    values_PF = np.zeros((len(rows), len(names)))
    for row, told in enumerate(rows):
        for gram, count in told.items():
            if gram in place:
                values_PF[row, place[gram]] = count
    return Features(tuple(f"“{name}”" for name in names), values_PF)
