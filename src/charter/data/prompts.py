"""Prompts from files and from Python.

Shapes of a row, told apart by its keys:
    jsonl           {"messages": [{"role", "content"}, ...]}: ours, or a chat data set (a closing assistant turn is dropped)
    hh-rlhf         {"chosen": "\\n\\nHuman: ...", "rejected": ...}, or a transcript in "prompt" or "text"
    trl             {"prompt": "text"}, {"prompt": [messages]}, or {"chosen": [messages], "rejected": [messages]}
    sharegpt        {"conversations": [{"from", "value"}, ...]}
    oasst           a message or a message tree: the prompt that opens it
    ultrafeedback   {"instruction": "text", "input": "text"}
    csv, parquet    a named column (prompt, goal, question, ...)
and, without a name to hold rows to: MT-bench's questions (the first of ``turns``), arenas' ``conversation_a`` (its first turn),
HHH alignment, plain text (a prompt a line).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from charter.config import PromptsConfig
from charter.data.conversations import (
    check_conversation,
    check_text,
    is_transcript,
    parse_messages,
    parse_transcript,
    shared_prompt,
)
from charter.data.rows import Container, Row, container_of, data_files, read_places
from charter.data.verdicts import instruction, opened, prometheus_request
from charter.errors import DataError
from charter.records import Conversation, Message, Prompt
from charter.sources import is_python, resolve_python
from charter.store.hashing import hash_json
from charter.suggest import did_you_mean

TRANSCRIPTS = ("chosen", "prompt", "text", "rl_prompt", "text_correct")
TEXT_COLUMNS = ("prompt", "goal", "question", "instruction", "query", "text", "prompts_final", "input")
DOMAINS = ("domain", "type", "category")
ANSWERS = ("answer", "ground_truth")
CSV_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
HARMFUL_WORDS = {"unsafe": True, "harmful": True, "safe": False, "harmless": False}


def load_prompts(config: PromptsConfig, base_dir: Path, seed: int) -> list[Prompt]:
    """Read prompts; equal conversations of a file are taken once. Arguments and faults as ``count_prompts``."""
    return count_prompts(config, base_dir, seed)[0]


def count_prompts(config: PromptsConfig, base_dir: Path, seed: int) -> tuple[list[Prompt], int]:
    """The prompts, and how many rows were left out because their conversation had come before.

    Args:
        base_dir: what a relative path counts from.
        seed: draws the order when ``config.limit`` is set.

    Raises:
        DataError: a row that can't be used (names file:line), no prompts, or two that share an id.
        ConfigError: a Python source that isn't there.
    """
    if is_python(config.source):
        found, num_repeated = list(_from_python(config.source)), 0
    else:
        found, num_repeated = _from_files(config, base_dir)
    if not found:
        raise DataError(f"{config.source}: no prompts in it: check the file")
    _refuse_shared_ids(found, config.source)
    if config.limit is None:
        return found, num_repeated
    return sorted(found, key=lambda prompt: _rank(seed, prompt.id))[: config.limit], num_repeated


def _rank(seed: int, prompt_id: str) -> str:
    return hashlib.sha256(f"{seed}\x1f{prompt_id}".encode("utf-8", "surrogatepass")).hexdigest()


def _refuse_shared_ids(prompts: list[Prompt], source: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(f"{source}: two different prompts have the id {prompt.id[:60]!r}: give each its own")
        seen.add(prompt.id)


def _from_python(source: str) -> Iterator[Prompt]:
    value = resolve_python(source)
    rows = value() if callable(value) else value
    if not isinstance(rows, Iterable):
        raise DataError(f"{source}: gives {type(rows).__name__}, not prompts: make it yield charter.records.Prompt")
    for number, prompt in enumerate(rows):
        if not isinstance(prompt, Prompt):
            raise DataError(f"{source}: item {number} is {type(prompt).__name__}: make it yield charter.records.Prompt")
        yield replace(prompt, messages=check_conversation(prompt.messages, f"{source} item {number}"))


def _from_files(config: PromptsConfig, base_dir: Path) -> tuple[list[Prompt], int]:
    container: Container | None = config.format if config.format in ("csv", "parquet") else None  # type: ignore[assignment]
    by_content: dict[Conversation, Prompt] = {}
    num_read = 0
    for path in data_files(base_dir / Path(config.source).expanduser()):
        for place, row in read_places(path, container):
            plain = _from_cells(row) if container_of(path, container) == "csv" else row
            prompt = read_prompt(plain, place, config.format, config.column)
            if prompt is not None:
                num_read += 1
                by_content.setdefault(prompt.messages, prompt)
    return list(by_content.values()), num_read - len(by_content)


def read_prompt(row: Row, place: str, format: str = "auto", column: str | None = None) -> Prompt | None:
    """One row as a prompt; None where it is a message of a tree that opens nothing (oasst).

    Raises:
        DataError: the row isn't of that format or can't be used.
    """
    messages = _conversation(row, place, format, column)
    if messages is None:
        return None
    checked = check_conversation(messages, place)
    id = row.get("id")
    own_id = isinstance(id, str) and id and "messages" in row
    return Prompt(
        id=str(id) if own_id else hash_json([message.to_json() for message in checked])[:16],
        messages=checked,
        harmful=_harmful(row, place),
        domain=_text_or_none(next((row[key] for key in DOMAINS if key in row), None)),
        answer=_answer(row),
        meta=row["meta"] if isinstance(row.get("meta"), dict) else {},
    )


def _conversation(row: Row, place: str, format: str, column: str | None) -> Conversation | None:
    if column is not None:
        if column not in row:
            raise DataError(f"{place}: no column {column!r}: {did_you_mean(column, map(str, row))}")
        return _user(row[column])
    if format in _SHAPES:
        fits, read = _SHAPES[format]
        if not fits(row):
            raise DataError(
                f"{place}: not in the form {format} (its keys are {', '.join(map(str, row))}): set format to auto?"
            )
        return read(row, place)
    for fits, read in _SHAPES.values():
        if fits(row):
            return read(row, place)
    column = next((name for name in TEXT_COLUMNS if name in row), None)
    if column is None:
        raise DataError(f"{place}: no prompt in the keys {', '.join(map(str, row))}: name it with prompts.column")
    return _user(row[column])


def _user(text: Any) -> Conversation:
    return (Message("user", text),)


def _harmful(row: Row, place: str) -> bool | None:
    """From our own flag, XSTest's label (in its completions the contrast_ types), or the columns of sets that hold
    nothing but harmful requests: AdvBench, SimpleSafetyTests."""
    flag = row.get("harmful")
    if flag is not None:
        if not isinstance(flag, bool):
            raise DataError(f"{place}: harmful is {str(flag)[:20]!r}: write true, false or leave it out")
        return flag
    for key in ("label", "type"):
        if str(row.get(key)).casefold() in HARMFUL_WORDS:
            return HARMFUL_WORDS[str(row[key]).casefold()]
    if {"type", "completion", "final_label"} <= row.keys():  # completions of XSTest, which name no label
        return str(row["type"]).startswith("contrast_")
    if {"goal", "target"} <= row.keys() or {"harm_area", "prompts_final"} <= row.keys():
        return True
    return None


def _from_cells(row: Row) -> Row:
    """A row of a CSV file, whose cells are all text: ``harmful`` as what it says; an empty cell says nothing."""
    cell = str(row.get("harmful", "")).strip().casefold()
    flag = CSV_WORDS.get(cell, row.get("harmful")) if cell else None
    return {**row, "harmful": flag}


def _answer(row: Row) -> str | None:
    """The reference answer; of HumanEval's rows the tests, with the call that runs them."""
    if {"prompt", "test", "entry_point"} <= row.keys():
        return _text_or_none(f"{row['test']}\n\ncheck({row['entry_point']})\n")
    return _text_or_none(next((row[key] for key in ANSWERS if key in row), None))


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def without_answer(messages: Conversation) -> Conversation:
    """A conversation up to its last user turn."""
    return messages[:-1] if messages and messages[-1].role == "assistant" else messages


def _read_messages(row: Row, place: str) -> Conversation:
    return without_answer(parse_messages(row["messages"], place))


def _read_transcript(row: Row, place: str) -> Conversation:
    if "chosen" in row and "rejected" in row:
        one, other = (parse_transcript(check_text(row[key], place, key)) for key in ("chosen", "rejected"))
        return shared_prompt(one, other, place)
    turns = parse_transcript(next(row[key] for key in TRANSCRIPTS if is_transcript(row.get(key))))
    return without_answer(turns)


def _read_trl(row: Row, place: str) -> Conversation:
    if isinstance(row.get("prompt"), str):
        return _user(row["prompt"])
    if "prompt" in row:
        return parse_messages(row["prompt"], place)
    return shared_prompt(parse_messages(row["chosen"], place), parse_messages(row["rejected"], place), place)


def _read_sharegpt(row: Row, place: str) -> Conversation:
    return without_answer(parse_messages(row["conversations"], place, "from", "value"))


def _read_oasst(row: Row, place: str) -> Conversation | None:
    node = row["prompt"] if isinstance(row.get("prompt"), dict) else row
    opens = node.get("role") == "prompter" and node.get("parent_id") is None
    return _user(node.get("text")) if opens else None


def _read_instruction(row: Row, place: str) -> Conversation:
    return _user(instruction(row))


def _read_turns(row: Row, place: str) -> Conversation:
    """MT-bench: the first turn; the later ones rest on an answer."""
    if not row["turns"]:
        raise DataError(f"{place}: turns is empty: delete this row")
    return _user(row["turns"][0])


def _read_arena(row: Row, place: str) -> Conversation:
    return parse_messages(row["conversation_a"], place)[:1]


def _read_hhh(row: Row, place: str) -> Conversation:
    asked = opened(prometheus_request(row.get("chosen_instruction")) or row.get("input"))
    return without_answer(parse_transcript(asked)) if is_transcript(asked) else _user(asked)


_Shape = tuple[Callable[[Row], bool], Callable[[Row, str], Conversation | None]]
_SHAPES: dict[str, _Shape] = {
    "jsonl": (lambda row: "messages" in row, _read_messages),
    "hh-rlhf": (lambda row: any(is_transcript(row.get(key)) for key in TRANSCRIPTS), _read_transcript),
    "oasst": (lambda row: "message_tree_id" in row or {"message_id", "role", "text"} <= row.keys(), _read_oasst),
    "sharegpt": (lambda row: "conversations" in row, _read_sharegpt),
    "trl": (
        lambda row: (
            isinstance(row.get("prompt"), (str, list)) or isinstance(row.get("chosen"), list) and "rejected" in row
        ),
        _read_trl,
    ),
    "ultrafeedback": (lambda row: "instruction" in row, _read_instruction),
    "mt-bench": (lambda row: isinstance(row.get("turns"), list), _read_turns),
    "arena": (lambda row: isinstance(row.get("conversation_a"), list), _read_arena),
    "hhh": (lambda row: {"input", "targets"} <= row.keys() or "chosen_instruction" in row, _read_hhh),
}
