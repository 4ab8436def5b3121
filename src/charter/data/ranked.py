"""Rows that hold more than one preference, or less: message trees, scored completions, single responses with a thumb.

OASST trees        siblings with different ranks (0 is best) are pairs; deleted and unranked ones are left out
UltraFeedback      completions with different scores are pairs: ``fine-grained_score``, else ``overall_score``
KTO (TRL)          prompt, completion, label: each good response of a prompt with each bad one
MT-bench, arenas   conversation_a, conversation_b, winner: who judged the same two is counted together, a tie as half
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import combinations

from charter.data.rows import Row
from charter.data.verdicts import ARENA, vote
from charter.errors import DataError
from charter.store.hashing import hash_json

SCORES = ("fine-grained_score", "overall_score")
MAX_DEPTH = 100  # turns of a tree
Place = tuple[str, Row]


def spread(rows: Iterable[Place], faults: list[str] | None = None) -> Iterator[Place]:
    """The rows with each tree and each scored list made into chosen-rejected rows; thumbs and votes are gathered at the end.

    Args:
        faults: None: a row that can't be used stops the reading. A list: its message is put there.
    """
    thumbs: dict[str, list[Place]] = {}
    votes: dict[str, list[Place]] = {}
    for place, row in rows:
        if "message_tree_id" in row and isinstance(row.get("prompt"), dict):
            yield from _kept(_tree(row["prompt"], [], place), place, faults)
        elif isinstance(row.get("completions"), list) and "instruction" in row:
            yield from _kept(_scored(row, place), place, faults)
        elif "completion" in row and "label" in row and "prompt" in row:
            thumbs.setdefault(hash_json(row["prompt"]), []).append((place, row))
        elif row.keys() >= ARENA:
            sides = sorted((hash_json(row["conversation_a"]), hash_json(row["conversation_b"])))
            votes.setdefault(hash_json(sides), []).append((place, row))
        else:
            yield place, row
    for same in thumbs.values():
        for place, row in same:
            yield from _kept(_paired(row, same, place), place, faults)
    for same in votes.values():
        yield from _kept(_counted(same), same[0][0], faults)


def _kept(rows: Iterable[Row], place: str, faults: list[str] | None) -> Iterator[Place]:
    try:
        yield from ((place, row) for row in rows)
    except DataError as error:
        if faults is None:
            raise
        faults.append(str(error))


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


def _paired(row: Row, same: list[Place], place: str) -> Iterator[Row]:
    if not isinstance(row["label"], bool):
        raise DataError(f"{place}: label is {str(row['label'])[:40]!r}: expected true or false")
    for _, bad in same:
        if row["label"] and bad["label"] is False:
            yield {"prompt": row["prompt"], "chosen": row["completion"], "rejected": bad["completion"]}


def _counted(same: list[Place]) -> Iterator[Row]:
    """One row for all who judged the same two conversations."""
    _, first = same[0]
    shares = []
    for place, row in same:
        share = vote(row, place)
        shares.append(share if row["conversation_a"] == first["conversation_a"] else 1 - share)
    share = sum(shares) / len(shares)
    sides = (first["conversation_a"], first["conversation_b"])
    chosen, rejected = sides if share >= 0.5 else sides[::-1]
    yield {"chosen": chosen, "rejected": rejected, "p_chosen": max(share, 1 - share)}
