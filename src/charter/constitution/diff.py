"""What changed between two constitutions, principle by principle (matched by id, else by text: a renamed one)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from charter.constitution.check import WORDINGS
from charter.constitution.load import Constitution, fill
from charter.records import Principle


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; ``field`` names what changed within a principle that both have, or (as ``defaults``) in the wording
    that principles without their own get. Wording that only follows its text or the defaults is no change of its own."""

    kind: Literal["added", "removed", "renamed", "changed"]
    principle_id: str
    field: str | None = None
    before: Any = None
    after: Any = None


def diff(before: Constitution, after: Constitution) -> list[Change]:
    """Changes that lead from ``before`` to ``after``: removed, defaults, then renamed, changed and added as in ``after``."""
    old = {principle.id: principle for principle in before.principles}
    new = {principle.id: principle for principle in after.principles}
    gone = {_plain(old[id].text): id for id in old if id not in new}
    renamed = {id: gone[_plain(new[id].text)] for id in new if id not in old and _plain(new[id].text) in gone}
    changes = [Change("removed", id, before=old[id].text) for id in old if id not in new and id not in renamed.values()]
    changes += _defaults(before, after)
    for id, principle in new.items():
        if id in renamed:
            changes.append(Change("renamed", id, "id", renamed[id], id))
        same = old.get(renamed.get(id, id))
        changes += _changed(before, after, same, principle) if same else [Change("added", id, after=principle.text)]
    return changes


def _defaults(before: Constitution, after: Constitution) -> Iterator[Change]:
    """Templates that changed, where both constitutions have principles that are worded by them."""
    for name in WORDINGS:
        one, other = getattr(before.defaults, name), getattr(after.defaults, name)
        used = all(any(_follows(c, p, name) for p in c.principles) for c in (before, after))
        if one != other and used:
            yield Change("changed", "defaults", name, one, other)


def _changed(before: Constitution, after: Constitution, old: Principle, new: Principle) -> Iterator[Change]:
    for name in (field.name for field in dataclasses.fields(Principle) if field.name != "id"):
        if name in WORDINGS and _follows(before, old, name) and _follows(after, new, name):
            continue
        if getattr(old, name) != getattr(new, name):
            yield Change("changed", new.id, name, getattr(old, name), getattr(new, name))


def _follows(constitution: Constitution, principle: Principle, name: str) -> bool:
    made = fill(getattr(constitution.defaults, name), principle.text).strip()
    return bool(getattr(principle, name) == made)


def _plain(text: str) -> str:
    return " ".join(text.split())
