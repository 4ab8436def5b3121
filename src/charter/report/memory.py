"""The table of models in memory, as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from charter.report.figures import finite
from charter.report.sections import rows_at

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """A stage, what it takes together, and of what."""

    name: str
    total: str
    parts: str


def memory_rows(summary: dict[str, Any]) -> list[MemoryRow]:
    """One row for each stage; none where the run is of a version that didn't tell."""
    found = []
    for stage in rows_at(summary, "memory"):
        parts = rows_at(stage, "parts")
        of_models: dict[str, list[str]] = {}
        for part in parts:
            of_models.setdefault(str(part.get("model")), []).append(_part(part))
        told = "; ".join(f"{model}: {', '.join(pieces)}" for model, pieces in of_models.items())
        found.append(MemoryRow(str(stage.get("stage")), size(stage.get("num_bytes")), told))
    return found


def _part(part: dict[str, Any]) -> str:
    note = f" ({part['note']})" if part.get("note") else ""
    return f"{part.get('what')} {size(part.get('num_bytes'))}{note}"


def size(value: Any) -> str:
    """Bytes in the unit that suits them."""
    number = finite(value)
    if number is None:
        return "not known"
    for unit, name in UNITS:
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.0f} bytes"
