"""Conversations out of the shapes in which others write them, checked.

A conversation here has an optional system turn, then user and assistant turns in alternation, none of them empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from charter.errors import DataError
from charter.records import Conversation, Message, Role

_TURN = re.compile(r"\n\n(Human|Assistant):")
_SPEAKER: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
ROLE_OF: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def check_text(text: Any, place: str, what: str) -> str:
    """The text itself, if it is text that a model can be given.

    Raises:
        DataError: no text, empty, with a NUL or with half a surrogate pair; ``place`` and ``what`` are named.
    """
    if not isinstance(text, str):
        raise DataError(f"{place}: {what} is {type(text).__name__}, not text: mend or delete this row")
    if not text.strip():
        raise DataError(f"{place}: {what} is empty: fill or delete this row")
    if "\0" in text:
        raise DataError(f"{place}: {what} holds a NUL character: remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: {what} holds half a character (a lone surrogate): mend or delete this row"
        ) from error
    return text


def is_transcript(value: Any) -> bool:
    """Whether a value is a dialogue in one text, as in hh-rlhf."""
    return isinstance(value, str) and value.lstrip().startswith("Human:")


def parse_transcript(text: str) -> Conversation:
    r"""Turns of ``"\n\nHuman: ...\n\nAssistant: ..."``; unchecked, and the last one may be empty.

    A speaker who is named twice in a row has spoken one turn.
    """
    pieces = _TURN.split("\n\n" + text.lstrip())
    turns: list[Message] = []
    for speaker, said in zip(pieces[1::2], pieces[2::2], strict=True):
        role, said = _SPEAKER[speaker], said.strip()
        if turns and turns[-1].role == role:
            said = f"{turns.pop().content}\n\n{said}".strip()
        turns.append(Message(role, said))
    return tuple(turns)


def parse_messages(value: Any, place: str, role_key: str = "role", text_key: str = "content") -> Conversation:
    """Messages out of a list of objects with a role and a text.

    Raises:
        DataError: not such a list, or an unknown role.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{place}: expected a list of messages with {role_key} and {text_key}: mend or delete this row")
    turns = []
    for number, item in enumerate(value, start=1):
        role = ROLE_OF.get(str(item.get(role_key)))
        if role is None:
            raise DataError(
                f"{place}: turn {number} has the role {str(item.get(role_key))[:40]!r}: use system, user or assistant"
            )
        turns.append(Message(role, check_text(item.get(text_key), place, f"turn {number}")))
    return tuple(turns)


def check_conversation(conversation: Sequence[Message], place: str) -> Conversation:
    """The conversation, if it ends with a user turn and is well-formed.

    Raises:
        DataError: no turn, an empty one, roles that don't alternate, or the last one isn't the user's.
    """
    turns = tuple(conversation)
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    if not spoken or spoken[-1].role != "user":
        raise DataError(f"{place}: a prompt must end with a user turn: add one or delete this row")
    for number, message in enumerate(turns, start=1):
        check_text(message.content, place, f"turn {number}")
    for number, message in enumerate(spoken):
        if message.role != ("user", "assistant")[number % 2]:
            raise DataError(
                f"{place}: user and assistant turns don't alternate, starting with the user: mend or delete this row"
            )
    return turns


def shared_prompt(one: Conversation, other: Conversation, place: str) -> Conversation:
    """The turns that two continuations share: all but the last of each.

    Raises:
        DataError: they don't end with one assistant turn each after the same turns.
    """
    if not one or not other or one[-1].role != "assistant" or other[-1].role != "assistant" or one[:-1] != other[:-1]:
        raise DataError(
            f"{place}: chosen and rejected don't continue the same prompt by one assistant turn: delete this row"
        )
    return one[:-1]
