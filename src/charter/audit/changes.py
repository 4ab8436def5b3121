"""What an audit says otherwise than the one that was there before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from charter.audit.figures import LINK_NAMES
from charter.audit.table import show

NUM_LINES = 8
OF_THE_MAKING = ("seconds", "charter", "source")  # these may differ where nothing was changed


def same(before: Any, now: dict[str, Any]) -> bool:
    """Whether two audits say the same of the same files."""
    return isinstance(before, dict) and _told(before) == _told(now)


def changes(before: Any, now: dict[str, Any]) -> list[str]:
    """A line for each headline figure that isn't as before, the first few."""
    if not isinstance(before, dict):
        return ["the audit that was there can't be read"]
    was, is_now = dict(_headline(before)), dict(_headline(now))
    lines = [
        f"{name}: {was.get(name, 'not there')} before, {is_now.get(name, 'not there')} now"
        for name in [*is_now, *(name for name in was if name not in is_now)]
        if was.get(name) != is_now.get(name)
    ]
    if not lines:
        other = "the files that it read are others" if before.get("inputs") != now["inputs"] else "smaller ones are"
        return [f"no headline figure is another one, but {other}"]
    more = [f"and {len(lines) - NUM_LINES} more"] if len(lines) > NUM_LINES else []
    return lines[:NUM_LINES] + more


def _told(audit: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in audit.items() if key not in OF_THE_MAKING}


def _headline(audit: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, value as text) of what an audit says first. The audit may be anybody's: nothing is taken for granted."""
    verdict = _at(audit, "verdict")
    yield "at fault", f"{LINK_NAMES.get(str(_at(verdict, 'link')), 'nobody')} ({_at(verdict, 'says')})"
    for row in _rows(_at(audit, "waterfall", "links")):
        link = LINK_NAMES.get(str(row.get("link")), str(row.get("link")))
        yield f"agreement with gold, {link}", _shown(row.get("agreement"))
    yield "labeler's order gap", _shown(_at(audit, "labels", "position", "order_gap"))
    for name in ("label_agreement", "gold_agreement"):
        yield f"reward model's {name.replace('_', ' ')}", _shown(_at(audit, "reward_model", name))
    for row in _rows(_at(audit, "policy", "curve")):
        for name in ("gold", "proxy"):
            yield f"{name} of {row.get('policy')}", _shown(row.get(name))
    yield "KL to stop at", _shown(_at(audit, "policy", "stop_at_kl"))
    yield "findings", str(len(_rows(_at(audit, "findings"))))


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _shown(figure: Any) -> str:
    try:
        return show(figure)
    except (KeyError, TypeError, ValueError):
        return "unreadable"
