"""Pairs whose answer is known: by a person, or by an oracle, principle by principle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from charter.data.preferences import load_preferences
from charter.errors import ConfigError, DataError
from charter.records import ResponsePair
from charter.sources import is_python, resolve_python
from charter.store.hashing import hash_json


@dataclass(frozen=True, slots=True)
class Case:
    """A pair and what is true of it.

    Attributes:
        a_better: whether A is better all in all; None where that isn't known.
        by_principle: the same by the principles that tell the two apart.
    """

    pair: ResponsePair
    a_better: bool | None
    by_principle: Mapping[str, bool] = field(default_factory=dict)


def load_cases(source: str, limit: int | None = None) -> list[Case]:
    """Cases of a ``package.module:function`` that gives them, or of a file of human preferences (ties are left out).

    Args:
        limit: use so many, drawn by a hash of their ids.

    Raises:
        ConfigError: the function gives something else. DataError: no pair that can be used.
    """
    cases = _from_python(source) if is_python(source) else _from_file(Path(source))
    if not cases:
        raise DataError(f"{source}: no pair with a known answer in it: check the source")
    if limit is not None and len(cases) > limit:
        drawn = sorted(range(len(cases)), key=lambda i: hash_json(["check", cases[i].pair.id]))[:limit]
        cases = [cases[i] for i in sorted(drawn)]
    return cases


def _from_python(source: str) -> list[Case]:
    given = resolve_python(source)
    found = given() if callable(given) else given
    if not isinstance(found, Sequence) or not all(isinstance(case, Case) for case in found):
        raise ConfigError(
            f"{source}: gives no sequence of charter.labelers.check.cases.Case: name a function that does"
        )
    return list(found)


def _from_file(path: Path) -> list[Case]:
    faults: list[str] = []
    return [
        Case(ResponsePair(row.id, row.prompt, row.response_a, row.response_b), row.p_a > 0.5)
        for row in load_preferences(path, faults)
        if row.p_a != 0.5
    ]
