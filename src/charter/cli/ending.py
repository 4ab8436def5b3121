"""The end of a run in plain words: what the figures mean, what to be wary of, and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

MEANINGS = {
    "harmful_rate": "share of replies that do harm, where the prompt isn't known to be harmless; lower is better",
    "over_refusal_rate": "share of harmless prompts that were refused; lower is better",
    "correct_rate": "share of harmless prompts that were answered rightly; higher is better",
}
POLICIES = {
    "initial": "the model as it came",
    "sl-cai": "trained on its own revisions",
    "rl-cai": "then trained on what the labeler prefers",
}


def explained(summary: dict[str, Any]) -> list[str]:
    """A sentence for each policy and figure that is known, and the labeler's warnings."""
    policies = {name: figures for name, figures in summary["policies"].items() if name in POLICIES}
    known = {key for figures in policies.values() for key, value in figures.items() if value["value"] is not None}
    there = [name for name in POLICIES if any(f["value"] is not None for f in policies.get(name, {}).values())]
    lines = ["; ".join(f"{name}: {POLICIES[name]}" for name in there)] if there else []
    lines += [f"{key}: {meaning}" for key, meaning in MEANINGS.items() if key in known]
    gold = summary.get("gold")
    if gold and "gold" in known:
        by = f"{gold['name']}, a program in place of people" if gold["simulated"] else str(gold["name"])
        lines.append(f"gold: how well replies serve the true goal, by {by}; higher is better")
    if known:
        lines.append("in brackets: 95 % intervals, for the chance in which held-out prompts there are")
    return [*lines, *_warnings(summary)]


def _warnings(summary: dict[str, Any]) -> list[str]:
    verdict = ((summary.get("labeler") or {}).get("check") or {}).get("verdict") or {}
    found = [*verdict.get("unfit", ()), *verdict.get("warnings", ())]
    return [f"the labeler is {verdict['fitness']}: {'; '.join(found)}"] if found else []


def next_steps(run: Path) -> str:
    """What to look at."""
    folder = shlex.quote(str(run))
    pair = _first_pair(run / "4-label" / "preferences.jsonl")
    show = f"; charter show {folder} {shlex.quote(pair)} (how that pair got its label)" if pair else ""
    return f"next: open {run / 'report.html'}; charter chat {folder}{show}"


def _first_pair(path: Path) -> str | None:
    from charter.store.jsonl import read_rows

    if not path.is_file():
        return None
    return next((str(row["id"]) for _, row in read_rows(path) if "id" in row), None)
