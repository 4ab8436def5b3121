"""What every labeler is: frozen, and asked about pairs of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from charter.records import Judgment, ResponsePair


class Labeler(Protocol):
    """Writes training labels; never the judge that evaluates them.

    Attributes:
        name: for people.
        weights: weight of each principle that it may be asked about, by id; the key None stands for no principle.
    """

    name: str
    weights: dict[str | None, float]

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """All judgments of each pair, abstentions among them, in the order of ``pairs``."""
        ...
