"""What changed between two constitutions, principle by principle (matched by id)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from charter.constitution.load import Constitution
from charter.records import Principle


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; ``field`` names what changed within a principle that both have."""

    kind: Literal["added", "removed", "changed"]
    principle_id: str
    field: str | None = None
    before: Any = None
    after: Any = None


def diff(before: Constitution, after: Constitution) -> list[Change]:
    """Changes that lead from ``before`` to ``after``: removed, then changed and added in the order of ``after``."""
    old = {principle.id: principle for principle in before.principles}
    new = {principle.id: principle for principle in after.principles}
    changes = [Change("removed", id, before=old[id].text) for id in old if id not in new]
    for id, principle in new.items():
        changes += _changed(old[id], principle) if id in old else [Change("added", id, after=principle.text)]
    return changes


def _changed(old: Principle, new: Principle) -> list[Change]:
    names = [field.name for field in dataclasses.fields(Principle) if field.name != "id"]
    return [
        Change("changed", new.id, name, getattr(old, name), getattr(new, name))
        for name in names
        if getattr(old, name) != getattr(new, name)
    ]
