"""A labeler that reads one principle per question: all of a constitution, or some drawn for each pair.

Bai et al. 2022 (arXiv:2212.08073), section 4.1, draws one principle per comparison. Departure: by default all are asked
(the shared beginning of the questions makes it cheap) and weighed, since drawing dilutes what matters most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from charter.constitution.draw import draw
from charter.constitution.load import Constitution
from charter.labelers.asking import AskSettings, asks_for, judge_all
from charter.labelers.combine import NO_CHANGE, Soft, combine
from charter.models.protocol import LanguageModel
from charter.records import Abstention, Judgment, Principle, ResponsePair


class ConstitutionalLabeler:
    """Asks ``model`` about each pair, principle by principle.

    Args:
        drawn: "all", or how many principles are drawn for each pair (by seed, pair id and weight, without replacement).
            Drawn ones count alike, since their weights have spoken in the draw.
    """

    def __init__(
        self,
        model: LanguageModel,
        constitution: Constitution,
        settings: AskSettings,
        drawn: int | Literal["all"] = "all",
        seed: int = 0,
        soft: Soft = NO_CHANGE,
    ) -> None:
        self.name = model.name
        self.weights: dict[str | None, float] = {
            p.id: p.weight if drawn == "all" else 1.0 for p in constitution.principles
        }
        self._model, self._constitution, self._settings = model, constitution, settings
        self._drawn, self._seed, self._soft = drawn, seed, soft

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """All judgments of each pair: one per principle and order."""
        asks = [ask for pair in pairs for ask in asks_for(pair, self._principles_for(pair), self._settings.both_orders)]
        grouped: list[list[Judgment]] = [[] for _ in pairs]
        place = {pair.id: index for index, pair in enumerate(pairs)}
        for judgment in judge_all(self._model, asks, self._settings):
            grouped[place[judgment.pair_id]].append(judgment)
        return grouped

    def combine(self, judgments: Sequence[Judgment]) -> float | Abstention:
        """As ``Labeler.combine``: weighted sum of log-odds over principles."""
        return combine(judgments, self.weights, self._soft.sharpness, self._soft.min_log_odds)

    def _principles_for(self, pair: ResponsePair) -> Sequence[Principle]:
        if self._drawn == "all":
            return self._constitution.principles
        return draw(self._constitution, self._seed, "label", pair.id, k=self._drawn)
