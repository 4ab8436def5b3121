"""Win rate of the trained policy by a judge that is not the labeler, counted anew from its verdicts.

    rate              share of held-out prompts on which the judge prefers the last policy's response, a tie half a win
    agrees_with_gold  of the prompts on which gold tells the two responses apart: how often the judge prefers the same one

A judge is a model: where gold is known the second figure says how far the first can be believed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.evidence import Evidence
from charter.audit.figures import figure
from charter.audit.links import credit
from charter.errors import DataError
from charter.records import EvaluatedResponse
from charter.statistics import share, unknown
from charter.store.jsonl import read_jsonl, read_rows

FOLDER = "7-evaluate/wins"
KEYS = ("judge", "policy", "against", "prompt_id", "p_better")


def audit_wins(evidence: Evidence) -> dict[str, Any]:
    """``{judge, policy, against: {name: {rate, agrees_with_gold, num_abstained}}, reason}``."""
    found: dict[str, Any] = {"judge": None, "policy": None, "against": {}, "reason": None}
    for path in sorted((evidence.folder / FOLDER).glob("*.jsonl")):
        rows = [row for _, row in read_rows(path)]
        if any(key not in row for row in rows for key in KEYS):
            raise DataError(f"{path}: a line without one of {', '.join(KEYS)}: delete the folder and run again")
        if rows:
            found |= {"judge": rows[0]["judge"], "policy": rows[0]["policy"]}
            found["against"][path.stem] = _against(evidence, rows, f"{FOLDER}/{path.name}")
    if not found["against"]:
        found["reason"] = "no judge is named in the run file (evaluate.judge)"
    return found


def _against(evidence: Evidence, rows: list[dict[str, Any]], source: str) -> dict[str, Any]:
    known = [row for row in rows if row["p_better"] is not None]
    win_N = np.array([row["p_better"] - 0.5 for row in known], dtype=float)
    own, theirs = (_gold(evidence, str(rows[0][key])) for key in ("policy", "against"))
    gold_N = np.array(
        [own.get(r["prompt_id"], np.nan) - theirs.get(r["prompt_id"], np.nan) for r in known], dtype=float
    )
    right_N = credit(win_N, np.round(gold_N, 9))
    right = right_N[~np.isnan(right_N)].tolist()
    rate = share((0.5 + 0.5 * np.sign(win_N)).tolist()) if known else unknown("the judge gave no verdict")
    return {
        "rate": figure(rate, source),
        "agrees_with_gold": figure(share(right) if right else unknown("no prompt with a verdict of both"), source),
        "num_abstained": len(rows) - len(known),
    }


def _gold(evidence: Evidence, policy: str) -> dict[str, float]:
    path = evidence.folder / "7-evaluate" / f"{policy}.jsonl"
    rows = read_jsonl(path, EvaluatedResponse) if path.is_file() else ()
    return {row.prompt.id: row.reading.gold for row in rows if row.reading.gold is not None}
