"""JSON and JSON lines: UTF-8, one record per line, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from charter.errors import DataError
from charter.records import Record
from charter.store.disk import atomic_write, store_errors

R = TypeVar("R", bound=Record)
Row = Record | dict[str, Any]


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of each line that isn't blank.

    Raises:
        DataError: a line is no JSON object or no UTF-8; names file and line.
        StoreError: the file can't be read.
    """
    with store_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, parse_object(line, f"{path}:{number}")


def read_spans(path: Path, key: str, telling: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (byte at which its line begins, object) of each whole line; a half-written last one is left out.

    Rows that follow one with the same text under ``key`` are left out too, unless one of the words ``telling`` stands in
    them: in a million rows that is most of the time.

    Raises: as ``read_rows``.
    """
    words, offset, same = [word.encode() for word in telling], 0, b"\n"
    with store_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            is_new = not line.startswith(same) or any(word in line for word in words)
            if is_new and line.strip() and line.endswith(b"\n"):
                row = parse_object(line, f"{path}:{number}")
                same = json.dumps({key: row.get(key)}, ensure_ascii=False).encode("utf-8", "replace")[:-1] + b","
                yield offset, row
            offset += len(line)


def cut_off(path: Path, size: int) -> None:
    """Keep the first ``size`` bytes of a file. Raises StoreError: it can't be written."""
    with store_errors(path):
        os.truncate(path, size)


def parse_object(line: bytes, place: str) -> dict[str, Any]:
    """Parse one JSON object; ``place`` (file:line) is named when it is broken.

    Raises:
        DataError: invalid UTF-8, invalid JSON, or JSON that is no object.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))  # an editor's byte order mark is no content
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: byte {error.start} is not UTF-8: save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply or a number too long"
        raise DataError(f"{place}: not valid JSON ({reason}): mend or delete this line") from error
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: expected a JSON object in braces, got {type(row).__name__}: mend or delete this line"
        )
    return row


def read_jsonl(path: Path, record: type[R]) -> Iterator[R]:
    """Yield the records of a file, one per line.

    Raises:
        DataError: a line that can't be read as ``record``; names file and line.
        StoreError: the file can't be read.
    """
    for number, row in read_rows(path):
        try:
            yield record.from_json(row)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            reason = error.args[0] if error.args else type(error).__name__
            raise DataError(f"{path}:{number}: not a {record.__name__} ({reason}): mend or delete this line") from error


def _to_line(row: Row) -> bytes:
    obj = row.to_json() if isinstance(row, Record) else row
    try:
        return json.dumps(obj, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 can't hold: escape it
        return json.dumps(obj, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def rows_to_bytes(rows: Iterable[Row]) -> bytes:
    """The content of a JSON Lines file."""
    return b"".join(map(_to_line, rows))


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write records, or plain objects, one per line; the file appears whole or not at all.

    Raises:
        StoreError: it can't be written.
        ValueError: NaN or infinity in a row.
    """
    with atomic_write(path) as file:
        for row in rows:
            file.write(_to_line(row))


def write_json(path: Path, obj: Any) -> None:
    """Write one indented JSON document; the file appears whole or not at all.

    Raises:
        StoreError: it can't be written.
        ValueError: NaN or infinity in it.
    """
    text = json.dumps(obj, ensure_ascii=True, allow_nan=False, indent=2)
    with atomic_write(path) as file:
        file.write(text.encode("ascii") + b"\n")


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises:
        DataError: not UTF-8 or not JSON; names the file and the line.
        StoreError: the file can't be read.
    """
    with store_errors(path):
        content = path.read_bytes()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}): mend or delete the file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid UTF-8 JSON: mend or delete the file") from error


class JsonlAppender:
    """Appends rows to a file so that each ``append`` is on disk when it returns.

    A line that a crash left half-written at the end is removed on opening.

    Raises:
        StoreError: the file can't be written; what this ``append`` began is taken back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        with store_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.ftruncate(self._descriptor, _end_of_last_line(self._descriptor))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows at the end and flush them to disk."""
        if self._descriptor is None:
            raise RuntimeError("append outside of the with block")
        data = b"".join(map(_to_line, rows))
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        with store_errors(self.path):
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise


def _end_of_last_line(descriptor: int) -> int:
    """Offset just after the last newline; 0 where there is none."""
    position = os.lseek(descriptor, 0, os.SEEK_END)
    while position:
        begin = max(0, position - 65536)
        found = os.pread(descriptor, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0
