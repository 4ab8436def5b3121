"""Rows in, rows out, in fixed chunks: the way in which every generating stage can be killed and resumed.

A chunk is a slice of the input list, whatever has been done before; it is computed as a whole and its rows are appended
at once. On resuming, the chunk that was torn is computed again, comes out the same, and only its missing rows are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from charter.models.protocol import Generation
from charter.progress import Progress
from charter.records import Record
from charter.store.jsonl import JsonlAppender, read_rows

Item = TypeVar("Item")

Execute = Callable[[list[Sequence[Any]]], Iterable[Sequence[Record | dict[str, Any]]]]
"""Makes the rows of chunks elsewhere; gives them in the order of the chunks."""


def num_tokens(generation: Generation) -> int:
    """Tokens read and written for one answer."""
    return generation.num_prompt_tokens + generation.num_completion_tokens


def append_in_chunks(
    path: Path,
    items: Sequence[Item],
    size: int,
    make: Callable[[Sequence[Item]], Sequence[Record | dict[str, Any]]],
    progress: Progress,
    label: str,
    execute: Execute | None = None,
) -> None:
    """Append one row per item to a JSON Lines file, going on where it ends.

    Args:
        size: items per chunk.
        make: turns a chunk of items into as many rows; must depend on nothing but the chunk.
        execute: does the same for all chunks that are left, in place of ``make``.
    """
    with JsonlAppender(path) as appender:
        done = sum(1 for _ in read_rows(path))
        progress.start(label, len(items))
        progress.resume(done)
        starts = range(done // size * size, len(items), size)
        chunks = [items[start : start + size] for start in starts]
        made = map(make, chunks) if execute is None else execute(chunks)
        for start, rows in zip(starts, made, strict=True):
            fresh = rows[max(0, done - start) :]
            appender.append(fresh)
            progress.advance(len(fresh))
