"""Preference pairs from files, and back into the form that TRL reads.

Shapes of a row: ours (charter.records.PreferencePair), hh-rlhf transcripts, TRL (prompt, chosen, rejected; plain or
conversational, the prompt explicit or in both; ``p_chosen``, as our exports have it, from 0.5 to 1), sharegpt (conversations,
chosen, rejected), those of charter.data.verdicts; in files also OASST trees, UltraFeedback, KTO rows and arenas with
several judges (charter.data.ranked).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from charter.data.conversations import (
    check_conversation,
    check_text,
    is_transcript,
    parse_messages,
    parse_transcript,
    shared_prompt,
)
from charter.data.ranked import spread
from charter.data.rows import Row, data_files, read_places
from charter.data.verdicts import renamed
from charter.errors import DataError
from charter.records import Conversation, Message, PreferencePair, Prompt
from charter.store.hashing import hash_json


def load_preferences(path: Path, faults: list[str] | None = None) -> list[PreferencePair]:
    """Read preference pairs; a pair that is there twice is taken once.

    Which response becomes A is drawn by a hash of the pair's content, so that A is the chosen one in half of the rows.

    Args:
        faults: None: a row that can't be used stops the reading. A list: such rows are left out and their messages put
            there, for data that comes with a few (hh-rlhf has empty responses).

    Raises:
        DataError: a row that can't be used (names file:line), or no pair at all.
    """
    found: dict[str, PreferencePair] = {}
    for file in data_files(path):
        for place, row in spread(read_places(file), faults):
            try:
                _keep(found, read_preference(row, place), place)
            except DataError as error:
                if faults is None:
                    raise
                faults.append(str(error))
    if not found:
        reason = f"; its first row: {faults[0]}" if faults else ": check the file"
        raise DataError(f"{path}: no preference pair in it{reason}")
    return list(found.values())


def _keep(found: dict[str, PreferencePair], pair: PreferencePair, place: str) -> None:
    before = found.setdefault(pair.id, pair)
    if before != pair and before.p_a != pair.p_a:
        raise DataError(f"{place}: an earlier row holds the same pair with another preference: delete one of the two")


def read_preference(row: Row, place: str) -> PreferencePair:
    """One row as a preference pair.

    Raises:
        DataError: an unknown shape, equal responses, an empty turn, wrong roles, text that isn't text.
    """
    if "response_a" in row:
        return _ours(row, place)
    row = renamed(row, place)
    if "chosen" not in row or "rejected" not in row:
        raise DataError(
            f"{place}: expected chosen and rejected, its keys are {', '.join(map(str, row))}: see docs/formats.md"
        )
    messages, chosen, rejected = _parts(row, place)
    messages = check_conversation(messages, place)
    _check_responses(chosen, rejected, place)
    said = [message.to_json() for message in messages]
    id = hash_json([said, sorted((chosen, rejected))])[:16]
    first, second = sorted((chosen, rejected), key=lambda text: hash_json([id, text]))
    prompt = Prompt(hash_json(said)[:16], messages)
    p_chosen = _share(row.get("p_chosen", 1.0), place)
    p_a = p_chosen if first == chosen else 1 - p_chosen
    return PreferencePair(id, prompt, first, second, p_a, source=Path(re.split(r"[:\[]", place)[0]).name)


def _share(value: Any, place: str) -> float:
    """How sure the label is; a text in a CSV file."""
    try:
        share = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0.5 <= share <= 1:
        raise DataError(f"{place}: p_chosen is {str(value)[:40]!r}: write a number from 0.5 to 1, or leave it out")
    return share


def _parts(row: Row, place: str) -> tuple[Conversation, Any, Any]:
    chosen, rejected = row["chosen"], row["rejected"]
    if is_transcript(chosen) and is_transcript(rejected):
        return _split(parse_transcript(chosen), parse_transcript(rejected), place)
    if "conversations" in row:
        return parse_messages(row["conversations"], place, "from", "value"), _value(chosen), _value(rejected)
    if isinstance(chosen, list) and isinstance(rejected, list):
        one, other = parse_messages(chosen, place), parse_messages(rejected, place)
        if len(one) == len(other) == 1 and "prompt" in row:
            return _split((*_prompt(row["prompt"], place), *one), (*_prompt(row["prompt"], place), *other), place)
        return _split(one, other, place)
    if "prompt" not in row:
        raise DataError(f"{place}: no prompt beside chosen and rejected: add it")
    return _prompt(row["prompt"], place), chosen, rejected


def _prompt(value: Any, place: str) -> Conversation:
    if is_transcript(value):
        turns = parse_transcript(value)
        return turns[:-1] if turns[-1] == Message("assistant", "") else turns
    return (Message("user", value),) if isinstance(value, str) else parse_messages(value, place)


def _split(one: Conversation, other: Conversation, place: str) -> tuple[Conversation, str, str]:
    return shared_prompt(one, other, place), one[-1].content, other[-1].content


def _value(turn: Any) -> Any:
    return turn.get("value", turn.get("content")) if isinstance(turn, dict) else turn


def _check_responses(one: Any, other: Any, place: str) -> None:
    check_text(one, place, "one response")
    check_text(other, place, "one response")
    if one.strip() == other.strip():
        raise DataError(f"{place}: both responses are the same: delete this row")


def _ours(row: Row, place: str) -> PreferencePair:
    try:
        pair = PreferencePair.from_json(row)
        check_conversation(pair.prompt.messages, place)
        _check_responses(pair.response_a, pair.response_b, place)
        if not 0 <= pair.p_a <= 1:
            raise DataError(f"{place}: p_a is {pair.p_a}: write a probability between 0 and 1")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{place}: not a preference pair ({error.args[0] if error.args else error}): mend this row"
        ) from error
    return pair


def to_trl(preferences: Iterable[PreferencePair]) -> Iterator[dict[str, Any]]:
    """Rows of TRL's conversational preference format, with ``p_chosen`` in (0.5, 1] beside; ties are left out."""
    for pair in preferences:
        if pair.p_a == 0.5:
            continue
        a_wins = pair.p_a > 0.5
        chosen, rejected = (pair.response_a, pair.response_b) if a_wins else (pair.response_b, pair.response_a)
        yield {
            "prompt": [message.to_json() for message in pair.prompt.messages],
            "chosen": [Message("assistant", chosen).to_json()],
            "rejected": [Message("assistant", rejected).to_json()],
            "p_chosen": pair.p_a if a_wins else 1 - pair.p_a,
        }
