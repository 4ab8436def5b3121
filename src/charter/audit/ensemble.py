"""Do the members of an ensemble of reward models agree on held-out pairs?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charter.audit.evidence import Pairs
from charter.audit.figures import figure
from charter.errors import DataError
from charter.statistics import mean, proportion, unknown
from charter.store.jsonl import read_rows

HELD_OUT = "5-reward/held_out.jsonl"


def audit_ensemble(folder: Path, pairs: Pairs) -> dict[str, Any]:
    """Share of held-out pairs on which a member prefers the other response, and the spread of their margins (nats).

    Raises:
        DataError: a row's ``member_margins`` is no list of numbers.
    """
    prompts = {pair.id: pair.prompt.id for pair in pairs.pairs}
    path = folder / HELD_OUT
    rows = [(n, row) for n, row in read_rows(path) if row.get("member_margins")] if path.is_file() else []
    margins = [_margins(row["member_margins"], f"{path}:{number}") for number, row in rows]
    several = [(row, own) for (_, row), own in zip(rows, margins, strict=True) if len(own) > 1]
    if not several:
        nothing = figure(unknown("one reward model: it has nobody to disagree with"), HELD_OUT)
        return {"num_members": None, "disagreement": nothing, "spread": nothing}
    clusters = [prompts.get(str(row.get("id")), str(row.get("id"))) for row, _ in several]
    split = [bool((np.sign(own) != np.sign(own[0])).any()) for _, own in several]
    spread = [float(own.std(ddof=1)) for _, own in several]
    return {
        "num_members": max(len(own) for _, own in several),
        "disagreement": figure(proportion(split, clusters), HELD_OUT),
        "spread": figure(mean(spread, clusters), HELD_OUT),
    }


def _margins(told: Any, where: str) -> Any:
    if not isinstance(told, list) or not all(type(value) in (int, float) for value in told):
        raise DataError(f"{where}: member_margins is no list of numbers: mend or delete this line")
    return np.array(told, dtype=float)
