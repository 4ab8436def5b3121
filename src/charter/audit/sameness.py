"""Does a policy still answer what it is asked? One that gives the same reply to most prompts doesn't, whatever gold says of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from charter.audit.figures import POLICY, Finding, figure
from charter.audit.policy import EVALUATED, Curve
from charter.records import EvaluatedResponse
from charter.statistics import proportion

MANY = 0.5
"""Share of prompts with one and the same reply beyond which a policy counts as collapsed, if it began below half of that."""


def audit_sameness(curve: Curve | None) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Share of the prompts that get the commonest reply, before and after; None: fewer than two policies."""
    if curve is None:
        return None, []
    before, after = (_hits(rows) for rows in (curve.rows[0], curve.rows[-1]))
    first, last = proportion(before), proportion(after)
    told = {"before": figure(first, EVALUATED), "after": figure(last, EVALUATED)}
    if last.value is None or last.low is None or last.low <= MANY or (first.value or 0.0) > MANY / 2:
        return told, []
    text = Counter(row.response.strip() for row in curve.rows[-1]).most_common(1)[0][0]
    says = f"the policy gives one and the same reply to {last.value:.0%} of the prompts ({first.value:.0%} before): {text[:60]!r}"
    cost = last.value - (first.value or 0.0)
    return told, [Finding(POLICY, "one_answer", "replies", last, "share of prompts", 0.0, cost, says)]


def _hits(rows: tuple[EvaluatedResponse, ...]) -> list[bool]:
    texts = [row.response.strip() for row in rows]
    commonest = Counter(texts).most_common(1)[0][0]
    return [text == commonest for text in texts]
