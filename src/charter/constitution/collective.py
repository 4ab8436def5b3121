"""Statements that people voted on (Pol.is, as in Collective Constitutional AI) into draft principles, with their votes.

A statement's agreement in a group is the share of those who voted on it that agreed (people who pass have voted). A
statement becomes a draft where the lowest agreement of any group reaches the threshold: what one group rejects is no
common ground, however large the other is.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from charter.errors import ConstitutionError

MIN_AGREEMENT = 0.8
_VOTES = {"1": "agree", "1.0": "agree", "-1": "disagree", "-1.0": "disagree", "0": "pass", "0.0": "pass"}
_NEEDED = ("comment-id", "agrees", "disagrees", "passes", "comment-body")


@dataclass(frozen=True)
class Statement:
    """One statement and how people voted; ``by_group``: group -> agreement in [0, 1]."""

    id: str
    text: str
    agrees: int
    disagrees: int
    passes: int
    by_group: dict[str, float]

    @property
    def agreement(self) -> float:
        """The lowest agreement of any group; of all people where no groups are known."""
        overall = self.agrees / max(1, self.agrees + self.disagrees + self.passes)
        return min(self.by_group.values(), default=overall)

    def provenance(self, file: str) -> str:
        """Where it comes from and how people voted, in one line."""
        groups = "".join(f"; group {name} {share:.3f}" for name, share in sorted(self.by_group.items()))
        votes = f"{self.agrees} agree, {self.disagrees} disagree, {self.passes} pass"
        return f"{file} statement {self.id}: {votes}; agreement {self.agreement:.3f}{groups}"


def is_statements(text: str) -> bool:
    """Whether a CSV text is a table of statements."""
    return set(_NEEDED) <= set(next(csv.reader(io.StringIO(text)), []))


def is_votes(text: str) -> bool:
    """Whether a CSV text is a table of participants' votes."""
    return {"participant", "group-id"} <= set(next(csv.reader(io.StringIO(text)), []))


def read_statements(path: Path, text: str) -> list[Statement]:
    """Statements that moderators let through, in order; agreement by group from the table's own columns.

    Raises:
        ConstitutionError: a count or a share that is no number.
    """
    found = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            if row.get("moderated") == "-1":
                continue
            groups = {
                key.removeprefix("group_").removesuffix("_consensus"): float(value)
                for key, value in row.items()
                if key and key.startswith("group_") and key.endswith("_consensus") and value
            }
            agrees, disagrees, passes = (int(row[name]) for name in ("agrees", "disagrees", "passes"))
            found.append(
                Statement(row["comment-id"], " ".join(row["comment-body"].split()), agrees, disagrees, passes, groups)
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise ConstitutionError(f"{path}: row {number}: not a statement with votes ({error}): mend it") from error
    return found


def count_votes(statements: list[Statement], path: Path, text: str) -> list[Statement]:
    """The same statements with counts and agreement by group from the participants' own votes.

    Raises:
        ConstitutionError: a vote that is none of 1, 0, -1.
    """
    votes: dict[str, dict[str, list[str]]] = {statement.id: {} for statement in statements}
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        for id, groups in votes.items():
            said = row.get(id)
            if not said:
                continue
            if said not in _VOTES:
                raise ConstitutionError(f"{path}: row {number}: the vote {said[:20]!r} is none of 1, 0, -1: mend it")
            groups.setdefault(row["group-id"] or "none", []).append(_VOTES[said])
    counted = []
    for statement in statements:
        groups = votes[statement.id]
        every = [vote for own in groups.values() for vote in own]
        by_group = {name: own.count("agree") / len(own) for name, own in groups.items()}
        counts = (every.count("agree"), every.count("disagree"), every.count("pass"))
        counted.append(Statement(statement.id, statement.text, *counts, by_group))
    return counted
