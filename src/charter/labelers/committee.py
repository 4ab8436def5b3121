"""Several labelers, each asked on its own; their labels are combined, and kept.

    mean      sigmoid of the mean of the members' log-odds
    median    median of the members' probabilities
    majority  share of the members that prefer A (a member at 0.5 counts half)

A member that abstains has no voice on that pair; where all abstain, so does the committee. Agreement: Krippendorff's alpha
over the members' labels (interval metric).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from charter.labelers.combine import log_odds, sigmoid
from charter.labelers.protocol import Labeler
from charter.records import Abstention, Estimate, Judgment, ResponsePair
from charter.statistics import interval_metric, krippendorff_alpha, proportion, unknown

Method = Literal["mean", "median", "majority"]
NUM_DISSENTS = 20


class CommitteeLabeler:
    """Asks every member about every pair.

    Args:
        members: by a name of their own, which their judgments then carry.
    """

    def __init__(self, members: Mapping[str, Labeler], method: Method = "mean") -> None:
        self.name = f"committee of {len(members)} ({method})"
        self.weights: dict[str | None, float] = {}
        self._members, self._method = dict(members), method

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """The judgments of all members, one member after the other."""
        grouped: list[list[Judgment]] = [[] for _ in pairs]
        for name, member in self._members.items():
            for own, judged in zip(grouped, member.label(pairs), strict=True):
                own += [dataclasses.replace(judgment, labeler=name) for judgment in judged]
        return grouped

    def combine(self, judgments: Sequence[Judgment]) -> float | Abstention:
        """The committee's label."""
        said = self.member_labels(judgments)
        voices = [label for label in said.values() if isinstance(label, float)]
        if not voices:
            return Counter(label for label in said.values() if isinstance(label, Abstention)).most_common(1)[0][0]
        return combine_voices(voices, self._method)

    def member_labels(self, judgments: Sequence[Judgment]) -> dict[str, float | Abstention]:
        """What each member says of one pair."""
        return {
            name: member.combine([judgment for judgment in judgments if judgment.labeler == name])
            for name, member in self._members.items()
        }


def combine_voices(voices: Sequence[float], method: Method) -> float:
    """One probability from several."""
    match method:
        case "mean":
            return sigmoid(sum(log_odds(p) for p in voices) / len(voices))
        case "median":
            return statistics.median(voices)
    return sum(0.5 if p == 0.5 else float(p > 0.5) for p in voices) / len(voices)


def summarize_members(said: Mapping[str, Mapping[str, float | Abstention]]) -> dict[str, Any]:
    """Agreement of the members over pairs (pair id -> member -> label), and the pairs on which they differ most."""
    voices = {
        pair_id: {name: label for name, label in own.items() if isinstance(label, float)}
        for pair_id, own in said.items()
    }
    alpha = krippendorff_alpha([list(own.values()) for own in voices.values()], interval_metric)
    spread = {pair_id: max(own.values()) - min(own.values()) for pair_id, own in voices.items() if len(own) > 1}
    names = list(next(iter(said.values()))) if said else []
    return {
        "alpha": (
            unknown("fewer than two members labelled a pair, or one label throughout")
            if alpha is None
            else Estimate(alpha, n=len(spread))
        ).to_json(),
        "split": proportion([_is_split(own.values()) for own in voices.values() if len(own) > 1]).to_json(),
        "coverage": {name: proportion([name in own for own in voices.values()]).to_json() for name in names},
        "dissent": [
            {"pair_id": pair_id, "labels": voices[pair_id]}
            for pair_id in sorted(spread, key=lambda key: (-spread[key], key))[:NUM_DISSENTS]
            if _is_split(voices[pair_id].values())
        ],
    }


def _is_split(voices: Any) -> bool:
    return min(voices) < 0.5 < max(voices)
