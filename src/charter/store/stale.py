"""Results of a run before that aren't those of this one: they must not pass as current while they wait to be done anew.

run/6-policy/.done.json     the manifest of a stage that was done under another key, set aside
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from charter.store.disk import store_errors
from charter.store.folder import MANIFEST

ASIDE = ".done.json"
RESULTS = ("summary.json", "report.html", "8-audit/audit.json")  # of the whole run
MOST_TOLD, MOST_CHARACTERS = 6, 40


def restore(run: Path) -> set[str]:
    """Bring the manifests that were set aside back, as a setting may be as it was; returns the names of their stages."""
    with store_errors(run):
        paths = list(run.glob(f"*/{ASIDE}"))
        for path in paths:
            path.rename(path.with_name(MANIFEST))
    return {path.parent.name for path in paths}


def set_aside(run: Path, stages: Iterable[str]) -> None:
    """These stages are to do: what stands of them, and of the whole run, is no longer a result."""
    with store_errors(run):
        for name in RESULTS:
            (run / name).unlink(missing_ok=True)
        for name in stages:
            if (run / name / MANIFEST).is_file():
                (run / name / MANIFEST).rename(run / name / ASIDE)


def what_changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """``policy.steps was 3, is 4``; a setting that only one of the two knows isn't told. Empty: nothing."""
    found = list(_changes(before, now, ""))
    more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return ", ".join(found[:MOST_TOLD]) + more


def _changes(before: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in now:
            if key in before:
                yield from _changes(before[key], now[key], f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} was {_short(before)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
