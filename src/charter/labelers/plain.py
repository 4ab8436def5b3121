"""A labeler without a constitution: "which response is better?" (RLAIF; Lee et al. 2023, arXiv:2309.00267)."""

from __future__ import annotations

from collections.abc import Sequence

from charter.labelers.asking import AskSettings, asks_for, judge_all
from charter.labelers.combine import NO_CHANGE, Soft, combine
from charter.models.protocol import LanguageModel
from charter.records import Abstention, Judgment, ResponsePair


class PlainLabeler:
    """Asks ``model`` about each pair in general, in one or both orders."""

    def __init__(self, model: LanguageModel, settings: AskSettings, soft: Soft = NO_CHANGE) -> None:
        self.name = model.name
        self.weights: dict[str | None, float] = {None: 1.0}
        self._model, self._settings, self._soft = model, settings, soft

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """The judgments of each pair: one per order."""
        asks = [ask for pair in pairs for ask in asks_for(pair, [None], self._settings.both_orders)]
        judgments = judge_all(self._model, asks, self._settings)
        per_pair = 2 if self._settings.both_orders else 1
        return [judgments[i : i + per_pair] for i in range(0, len(judgments), per_pair)]

    def combine(self, judgments: Sequence[Judgment]) -> float | Abstention:
        """As ``Labeler.combine``."""
        return combine(judgments, self.weights, self._soft.sharpness, self._soft.min_log_odds)
