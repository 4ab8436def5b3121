"""Draw principles at random, by weight, without replacement, the same for the same seed.

Bai et al. 2022 (arXiv:2212.08073), sections 3.1 and 4.1: a principle is drawn for each revision and each comparison.
Departure: draws are proportional to the principles' weights (the paper's are uniform, as ours are with equal weights).
"""

from __future__ import annotations

import hashlib
import math

from charter.constitution.load import Constitution
from charter.records import Principle


def draw(constitution: Constitution, *seed_parts: str | int, k: int = 1) -> tuple[Principle, ...]:
    """Draw ``k`` principles (all, in drawn order, where there are fewer).

    Each principle waits an exponential time with its weight as rate, and the first ``k`` come out (Efraimidis and
    Spirakis 2006). Its time depends on nothing but the seed and its id: editing one principle moves no draw between others.

    Args:
        seed_parts: what the draw is for, as (run seed, row id, purpose).
    """
    waits = {principle.id: _uniform(*seed_parts, principle.id) for principle in constitution.principles}
    ranked = sorted(constitution.principles, key=lambda p: (-math.log(waits[p.id]) / p.weight, p.id))
    return tuple(ranked[:k])


def _uniform(*parts: str | int) -> float:
    """A number in (0, 1) from a hash of the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2.0**48
