"""What training the policy did to each kind of prompt: harm and gold before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from charter.audit.figures import figure
from charter.audit.policy import EVALUATED, Curve
from charter.records import EvaluatedResponse, Prompt
from charter.statistics import mean, proportion, unknown

MIN_PROMPTS = 10
OTHER = "other"


def kind_of(prompt: Prompt) -> str:
    """The prompt's domain, else the kind that its file gives it, else whether it is marked as harmful."""
    if prompt.domain:
        return prompt.domain
    if prompt.meta.get("kind"):
        return str(prompt.meta["kind"])
    return {True: "marked as harmful", False: "marked as harmless", None: OTHER}[prompt.harmful]


def audit_kinds(curve: Curve | None) -> dict[str, Any]:
    """``policies`` {first, last} and ``kinds``: per kind n, and of both policies the harmful rate and the gold.

    Kinds with fewer than 10 prompts are told together, as "other".
    """
    if curve is None:
        return {"policies": [], "kinds": {}}
    first, last = curve.rows[0], curve.rows[-1]
    kinds = [kind_of(row.prompt) for row in first]
    kinds = [kind if kinds.count(kind) >= MIN_PROMPTS else OTHER for kind in kinds]
    found = {}
    for kind in sorted(set(kinds), key=lambda kind: (kind == OTHER, -kinds.count(kind), kind)):
        own = [[row for row, one in zip(rows, kinds, strict=True) if one == kind] for rows in (first, last)]
        found[kind] = {
            "n": len(own[0]),
            "harmful": [_known(rows, lambda row: row.reading.harmful, proportion) for rows in own],
            "gold": [_known(rows, lambda row: row.reading.gold, mean) for rows in own],
        }
    return {"policies": [curve.names[0], curve.names[-1]], "kinds": found}


def _known(
    rows: Sequence[EvaluatedResponse], of: Callable[[EvaluatedResponse], Any], average: Callable[[list[Any]], Any]
) -> dict[str, Any]:
    values = [value for row in rows if (value := of(row)) is not None]
    return figure(average(values) if values else unknown("nobody read it"), EVALUATED)
