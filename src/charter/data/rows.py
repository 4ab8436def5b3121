"""Rows of a data file with their place (file:line), whatever the container: JSON Lines, JSON, CSV, Parquet, gzipped or not,
and the folders that Hugging Face's ``save_to_disk`` writes (Arrow)."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from charter.errors import DataError
from charter.store.disk import store_errors
from charter.store.jsonl import parse_object

Container = Literal["jsonl", "json", "csv", "parquet", "arrow", "text"]
Row = dict[str, Any]
SUFFIXES: dict[str, Container] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
}
ROWS_IN = ("examples", "data", "rows")  # keys of a JSON object under which others put all rows


def data_files(path: Path) -> list[Path]:
    """A file itself, or the data files directly in a folder, by name; of a Hugging Face folder (save_to_disk) its parts.

    Raises:
        DataError: nothing there, or no data file in the folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file: check the path")
    if (path / "dataset_dict.json").is_file():
        parts = sorted(part for part in path.iterdir() if (part / "state.json").is_file())
        return [file for part in parts for file in data_files(part)]
    if (path / "state.json").is_file():
        return sorted(path.glob("*.arrow"))
    kinds = [suffix for suffix in SUFFIXES if suffix != ".txt"]  # a text that lies beside data is a note or a licence
    files = [file for file in sorted(path.iterdir()) if file.is_file() and _suffix(file) in kinds]
    if not files:
        raise DataError(f"{path}: no data file in this folder: put {', '.join(kinds)} there, or name a file")
    return files


def read_places(path: Path, container: Container | None = None) -> Iterator[tuple[str, Row]]:
    """Yield (file:line, row) of a data file.

    Args:
        container: how the file is laid out; None: by the file's name, JSON Lines if that says nothing.

    Raises:
        DataError: a row that can't be read; names file and line.
        StoreError: the file can't be read.
    """
    kind = container_of(path, container)
    if kind in ("parquet", "arrow"):
        yield from _columns(path, kind)
        return
    with _open(path) as file:
        if kind == "csv":
            yield from _csv(path, file)
        elif kind == "json":
            yield from _json(path, file)
        elif kind == "text":
            yield from _plain_lines(path, file)
        else:
            yield from _json_lines(path, file)


def container_of(path: Path, container: Container | None = None) -> Container:
    """How a data file is laid out: as told, else by its name."""
    return container or SUFFIXES.get(_suffix(path), "jsonl")


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return suffixes[-1] if suffixes else ""


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with store_errors(path), path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if zipped else plain
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: the gzip file is damaged ({error}): fetch it again") from error


def _json_lines(path: Path, file: Iterable[bytes]) -> Iterator[tuple[str, Row]]:
    """An object a line; a line that is a text in quotes is a row with that ``text``."""
    for number, line in enumerate(file, start=1):
        if line.startswith(b'"'):
            line = b'{"text": ' + line.rstrip() + b"}"
        if line.strip():
            yield f"{path}:{number}", parse_object(line, f"{path}:{number}")


def _plain_lines(path: Path, file: Iterable[bytes]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_text_lines(path, file), start=1):
        if line.strip():
            yield f"{path}:{number}", {"text": line.strip()}


def _json(path: Path, file: BinaryIO) -> Iterator[tuple[str, Row]]:
    """A JSON array of rows, an object that holds one, or JSON Lines in a file that is called .json."""
    content = file.read()
    rows = _parsed(path, content)
    if rows is None:
        yield from _json_lines(path, content.splitlines())
        return
    for index, row in enumerate(rows):
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            raise DataError(f"{path}: entry {index} is no JSON object in braces: mend the file")
        yield f"{path}[{index}]", row


def _parsed(path: Path, content: bytes) -> list[Any] | None:
    """The rows of a whole JSON file; None where it must be read line by line."""
    is_list = content.lstrip().startswith(b"[")
    try:
        found = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        if not is_list:
            return None
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}): mend the file") from error
    except (ValueError, RecursionError) as error:
        if not is_list:
            return None
        raise DataError(f"{path}: not valid UTF-8 JSON: mend the file") from error
    if isinstance(found, dict):
        held = next((found[key] for key in ROWS_IN if isinstance(found.get(key), list)), None)
        return [found] if held is None else held
    return found if isinstance(found, list) else None


def _csv(path: Path, file: Iterable[bytes]) -> Iterator[tuple[str, Row]]:
    reader = csv.DictReader(_text_lines(path, file), strict=True)
    number = 1
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            raise DataError(f"{path}:1: two columns have the same name: rename one")
        for row in reader:
            number = reader.line_num
            if None in row or None in row.values():
                raise DataError(
                    f"{path}:{number}: expected {len(names)} columns as in the header: quote commas in the text"
                )
            yield f"{path}:{number}", row
    except csv.Error as error:
        raise DataError(f"{path}:{max(number, reader.line_num)}: not valid CSV ({error}): mend this line") from error


def _text_lines(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: byte {error.start} is not UTF-8: save the file as UTF-8") from error


def _columns(path: Path, kind: str) -> Iterator[tuple[str, Row]]:
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise DataError(f"{path}: reading {kind.capitalize()} needs pyarrow: pip install 'charter[parquet]'") from error
    index = 0
    try:
        with store_errors(path):
            for batch in _batches(path, kind):
                for row in batch.to_pylist():
                    yield f"{path}[{index}]", row
                    index += 1
    except ArrowException as error:
        raise DataError(
            f"{path}: not valid {kind.capitalize()} ({str(error).splitlines()[0]}): fetch it again"
        ) from error


def _batches(path: Path, kind: str) -> Iterator[Any]:
    from pyarrow import ipc, parquet

    if kind == "parquet":
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=1024)
    else:
        with path.open("rb") as stream, ipc.open_stream(stream) as reader:
            yield from reader
