"""One random stream per row: what a row becomes never depends on its neighbours or on what was done before."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def row_seed(seed: int, *place: str | int) -> int:
    """A seed in [0, 2**63) from SHA-256 of the run's seed and the row's place: stage, prompt id, round, kind."""
    digest = hashlib.sha256(json.dumps([seed, *place]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def shuffled(items: Sequence[T], seed: int, *place: str | int) -> list[T]:
    """The items in an order that the seed and the place fix."""
    order = list(items)
    random.Random(row_seed(seed, *place)).shuffle(order)
    return order
