"""What every labeler is: frozen, and asked about pairs of responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Batched:
    """A labeler that is asked about at most ``size`` pairs at once: what a kill can lose of a model in this process."""

    labeler: Labeler
    size: int

    @property
    def name(self) -> str:
        """As ``Labeler.name``."""
        return self.labeler.name

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """As ``Labeler.label``."""
        starts = range(0, len(pairs), self.size)
        return [own for start in starts for own in self.labeler.label(pairs[start : start + self.size])]

    def combine(self, judgments: Sequence[Judgment]) -> float | Abstention:
        """As ``Labeler.combine``."""
        return self.labeler.combine(judgments)
