"""Rows in, rows out, in fixed chunks: the way in which every generating stage can be killed and resumed.

A chunk is a slice of the input list, whatever has been done before; it is computed as a whole and its rows are appended
at once. On resuming, the chunk that was torn is computed again, comes out the same, and only its missing rows are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from charter.models.protocol import Generation
from charter.progress import Progress
from charter.records import Record
from charter.store.jsonl import JsonlAppender, read_rows

Item = TypeVar("Item")


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
) -> None:
    """Append one row per item to a JSON Lines file, going on where it ends.

    Args:
        size: items per chunk.
        make: turns a chunk of items into as many rows; must depend on nothing but the chunk.
    """
    with JsonlAppender(path) as appender:
        done = sum(1 for _ in read_rows(path))
        progress.start(label, len(items))
        progress.advance(done)
        for start in range(done // size * size, len(items), size):
            fresh = make(items[start : start + size])[max(0, done - start) :]
            appender.append(fresh)
            progress.advance(len(fresh))
