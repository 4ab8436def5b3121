"""What every labeler is: frozen, and asked about pairs of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from charter.records import Abstention, Judgment, ResponsePair


class Labeler(Protocol):
    """Writes training labels; never the judge that evaluates them."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """All judgments of each pair, abstentions among them, in the order of ``pairs``."""
        ...

    def combine(self, judgments: Sequence[Judgment]) -> float | Abstention:
        """The soft label ``p_a`` that the judgments of one pair amount to, or the reason why there is none."""
        ...
