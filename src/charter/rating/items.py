"""From a file of pairs and a constitution to what raters are asked, and which response each of them sees first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charter.constitution.draw import draw
from charter.constitution.load import Constitution
from charter.data.conversations import check_conversation, check_text
from charter.data.preferences import read_preference
from charter.data.ranked import spread
from charter.data.rows import data_files, read_places
from charter.errors import DataError
from charter.records import Order, ResponsePair
from charter.store.hashing import hash_json
from charter.store.labels import Item


def read_items(path: Path, constitution: Constitution | None) -> list[Item]:
    """Read pairs, labelled ones too (their labels are not looked at), and draw a principle for each by its id.

    Bai et al. 2022 (arXiv:2212.08073), section 4.1, draw one principle per comparison.

    Args:
        path: ResponsePair rows, or preference pairs in any shape that ``load_preferences`` reads.

    Raises:
        DataError: a row that can't be used (names file:line), two pairs of one id, or no pair at all.
    """
    found: dict[str, Item] = {}
    for file in data_files(path):
        for place, row in spread(read_places(file)):
            item = _item(_read_pair(row, place), constitution)
            if found.setdefault(item.pair.id, item) != item:
                raise DataError(f"{place}: an earlier row has the same id {item.pair.id}: give each pair its own id")
    if not found:
        raise DataError(f"{path}: no pair in it: check the file")
    return list(found.values())


def _read_pair(row: dict[str, Any], place: str) -> ResponsePair:
    if "response_a" not in row or "p_a" in row:
        known = read_preference(row, place)
        return ResponsePair(known.id, known.prompt, known.response_a, known.response_b)
    try:
        pair = ResponsePair.from_json(row)
        check_conversation(pair.prompt.messages, place)
        for text, what in ((pair.id, "id"), (pair.response_a, "response_a"), (pair.response_b, "response_b")):
            check_text(text, place, what)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = error.args[0] if error.args else error
        raise DataError(f"{place}: not a response pair ({reason}): mend this row") from error
    return pair


def _item(pair: ResponsePair, constitution: Constitution | None) -> Item:
    if constitution is None:
        return Item(pair)
    principle = draw(constitution, pair.id, "rate")[0]
    return Item(pair, principle.id, principle.text)


def shown_order(salt: str, rater: str, pair_id: str) -> Order:
    """``ab`` where this rater sees A first. Even odds; it can't be guessed without the database's salt."""
    return "ab" if int(hash_json([salt, "order", rater, pair_id])[:8], 16) % 2 == 0 else "ba"
