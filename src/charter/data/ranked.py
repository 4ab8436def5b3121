"""Rows that hold more than one preference, or less: message trees, scored completions, single responses with a thumb.

OASST trees        siblings with different ranks (0 is best) are pairs; deleted and unranked ones are left out
UltraFeedback      completions with different scores are pairs: ``fine-grained_score``, else ``overall_score``
KTO (TRL)          prompt, completion, label: each good response of a prompt with each bad one
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from charter.data.rows import Row
from charter.errors import DataError
from charter.store.hashing import hash_json

SCORES = ("fine-grained_score", "overall_score")
MAX_DEPTH = 100  # turns of a tree
Place = tuple[str, Row]


def spread(rows: Iterable[Place]) -> Iterator[Place]:
    """The rows with each tree and each scored list made into chosen-rejected rows; thumbs are paired at the end."""
    thumbs: dict[str, list[Place]] = {}
    for place, row in rows:
        if "message_tree_id" in row and isinstance(row.get("prompt"), dict):
            yield from ((place, found) for found in _tree(row["prompt"], [], place))
        elif isinstance(row.get("completions"), list) and "instruction" in row:
            yield from ((place, found) for found in _scored(row, place))
        elif "completion" in row and "label" in row and "prompt" in row:
            thumbs.setdefault(hash_json(row["prompt"]), []).append((place, row))
        else:
            yield place, row
    for same in thumbs.values():
        yield from _paired(same)


def _tree(node: Row, path: list[Row], place: str) -> Iterator[Row]:
    if len(path) > MAX_DEPTH:
        raise DataError(f"{place}: a tree deeper than {MAX_DEPTH} turns: delete this row")
    so_far = [*path, {"role": node.get("role"), "content": node.get("text")}]
    replies = [r for r in node.get("replies") or [] if isinstance(r, dict) and not r.get("deleted")]
    ranked = [r for r in replies if isinstance(r.get("rank"), int) and r.get("role") == "assistant"]
    for one, other in combinations(sorted(ranked, key=lambda r: r["rank"]), 2):
        if one["rank"] != other["rank"]:
            sides = ([{"role": "assistant", "content": r.get("text")}] for r in (one, other))
            yield dict(zip(("prompt", "chosen", "rejected"), (so_far, *sides), strict=True))
    for reply in replies:
        yield from _tree(reply, so_far, place)


def _scored(row: Row, place: str) -> Iterator[Row]:
    scored = [
        (score, done.get("response"))
        for done in row["completions"]
        if isinstance(done, dict) and (score := _score(done)) is not None
    ]
    if not scored:
        raise DataError(f"{place}: no completion has a score ({' or '.join(SCORES)}): delete this row")
    for (one, first), (other, second) in combinations(scored, 2):
        if one != other:
            chosen, rejected = (first, second) if one > other else (second, first)
            yield {"prompt": row["instruction"], "chosen": chosen, "rejected": rejected}


def _score(done: Row) -> float | None:
    for name in SCORES:
        try:
            score = float(done[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(score):
            return score
    return None


def _paired(same: list[Place]) -> Iterator[Place]:
    for place, row in same:
        if not isinstance(row["label"], bool):
            raise DataError(f"{place}: label is {str(row['label'])[:40]!r}: expected true or false")
    for good_place, good in same:
        for _, bad in same:
            if good["label"] and not bad["label"]:
                sides: dict[str, Any] = {"chosen": good["completion"], "rejected": bad["completion"]}
                yield good_place, {"prompt": good["prompt"], **sides}
