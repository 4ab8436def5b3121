"""Labels that people gave: from the page of ``charter rate`` (its database) or from a file of preference pairs.

One judgment per pair: p_a is the mean over raters, a tie 0.5 (people mean it; a model's "don't know" is no tie). Pairs that
nobody labelled are abstentions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from charter.data.preferences import load_preferences
from charter.errors import LabelerError
from charter.labelers.combine import combine
from charter.records import Abstention, Judgment, PreferencePair, Prompt, ResponsePair
from charter.sources import public_name
from charter.store.hashing import hash_json
from charter.store.labels import is_label_database, open_labels, preferences


class HumanLabeler:
    """Answers from what people said, and for nothing else. Pairs are recognised by their text, in either order."""

    def __init__(self, name: str, labelled: Iterable[PreferencePair]) -> None:
        self.name = name
        self._labelled: dict[str, PreferencePair] = {}
        for pair in labelled:
            self._labelled[_key(pair.prompt, pair.response_a, pair.response_b)] = pair
        if not self._labelled:
            raise LabelerError(f"{name}: nobody has labelled a pair there yet: label some with charter rate")
        self.weights: dict[str | None, float] = {_principle_id(pair): 1.0 for pair in self._labelled.values()}
        self.weights[None] = 1.0  # stands for pairs that nobody labelled

    @classmethod
    def from_source(cls, source: str) -> HumanLabeler:
        """Read a database of ``charter rate`` (file or URL), or preference pairs in any shape that we read.

        Raises:
            LabelerError: no label in it.
            DataError, StoreError: it can't be read.
        """
        if not is_label_database(source):
            return cls(f"human:{public_name(source)}", load_preferences(Path(source)))
        store = open_labels(source)
        return cls(f"human:{public_name(store.name)}", preferences(store.items(), store.labels()))

    @property
    def content_hash(self) -> str:
        """SHA-256 over all labels: with another one, pairs are labelled anew."""
        return hash_json(sorted(hash_json(pair.to_json()) for pair in self._labelled.values()))

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """One judgment of each pair."""
        return [[self._judge(pair)] for pair in pairs]

    def combine(self, judgments: Sequence[Judgment]) -> float | Abstention:
        """As ``Labeler.combine``: what people said stays as they said it."""
        return combine(judgments, self.weights, sharpness=1.0)

    def _judge(self, pair: ResponsePair) -> Judgment:
        for first, second, swapped in (
            (pair.response_a, pair.response_b, False),
            (pair.response_b, pair.response_a, True),
        ):
            known = self._labelled.get(_key(pair.prompt, first, second))
            if known is not None:
                p_a = 1 - known.p_a if swapped else known.p_a
                return Judgment(pair.id, _principle_id(known), "ab", p_a, labeler=known.source or self.name)
        return Judgment(pair.id, None, "ab", None, Abstention.UNLABELLED, labeler=self.name)


def _key(prompt: Prompt, response_a: str, response_b: str) -> str:
    return hash_json([[message.to_json() for message in prompt.messages], response_a, response_b])


def _principle_id(pair: PreferencePair) -> str | None:
    return pair.principle_ids[0] if len(pair.principle_ids) == 1 else None
