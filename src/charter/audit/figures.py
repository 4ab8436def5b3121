"""Figures of the audit: an Estimate with its source, findings, and the names of the links.

A figure is ``{value, low, high, n, reason, source}``: ``value`` is null where it can't be known, and ``reason`` says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from charter.records import Estimate

GOAL = "goal_to_constitution"
LABELER = "constitution_to_labeler"
REWARD_MODEL = "labeler_to_reward_model"
POLICY = "reward_model_to_policy"
RECORD = "record"
"""No link: the files of the run, where they don't fit together."""
LINKS = (GOAL, LABELER, REWARD_MODEL, POLICY)
SHORT = "goal_to_labels"
"""The first two links in one, where labels come from no constitution."""
LINK_NAMES = {
    GOAL: "goal -> constitution",
    LABELER: "constitution -> labeler",
    REWARD_MODEL: "labeler -> reward model",
    POLICY: "reward model -> policy",
    SHORT: "goal -> labels",
    RECORD: "files of the run",
}

NUM_FLIPS = 4000
"""Random flips behind a p-value of a search: none can be below 1 / 4001."""
FAMILY_ALPHA = 0.04
"""Chance that a run without any fault gets a finding at all; each link may spend a quarter of it."""
LINK_ALPHA = FAMILY_ALPHA / len(LINKS)


@dataclass(frozen=True)
class Finding:
    """One systematic fault of a link.

    Attributes:
        kind: position_bias, follows, misread, unreliable, missing, weights, over_reach, not_learned, errs_on,
            errs_where_clear, over_optimisation, collapse, record, leak.
        what: the feature, principle or file that it is about.
        size: in ``unit``, with its 95 % interval.
        p: chance of so large a size without a fault, corrected for all tests of the link.
        cost: share of verdicts in [0, 1] that the fault turns; what faults of different links are compared by.
        amplified_by_policy: reinforcement learning moved the policy along this fault, and gold fell.
        of_link: the link whose files a ``record`` is about; None: the finding is about ``link`` itself.
    """

    link: str
    kind: str
    what: str
    size: Estimate
    unit: str
    p: float
    cost: float
    says: str
    examples: tuple[dict[str, Any], ...] = field(default=())
    amplified_by_policy: bool = False
    of_link: str | None = None

    def to_json(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in ("link", "kind", "what", "unit", "p", "cost", "says")}
        return {
            **row,
            "size": self.size.to_json(),
            "examples": list(self.examples),
            "amplified_by_policy": self.amplified_by_policy,
            "of_link": self.of_link or self.link,
        }


def figure(estimate: Estimate, source: str) -> dict[str, Any]:
    """An estimate as JSON, with the file that it comes from. What isn't finite is null: JSON can't hold it."""
    row = estimate.to_json()
    for key in ("value", "low", "high"):
        if row[key] is not None and not math.isfinite(row[key]):
            row[key] = None
    return {**row, "source": source}


def two_sided_p(z: float) -> float:
    """Chance of so large a standard normal, in either direction."""
    return math.erfc(abs(z) / math.sqrt(2))


def holm(p_values: list[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
