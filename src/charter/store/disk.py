"""Writing so that a crash leaves the old content or the new one, never half of either.

Every OSError turns into a StoreError that names the file and the remedy.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from charter.errors import CharterError, StoreError

_REMEDIES = {
    errno.ENOSPC: "free some space and run the same command again, it goes on where it stopped",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EACCES: "give yourself permission, or choose another folder with --out",
    errno.EROFS: "the file system is read-only; choose another folder with --out",
    errno.ENOENT: "check the path",
    errno.EISDIR: "a folder is where a file should be; rename it or choose another path",
    errno.EEXIST: "a file is where a folder should be; rename it or choose another path",
    errno.ENOTDIR: "a file is where a folder should be; rename it or choose another path",
}


def disk_fault(error: BaseException) -> int | None:
    """The system's error number of a failure to read or write; None: it is something else.

    Libraries in Rust, as those of tokenizers and safetensors, tell it in words alone.
    """
    if isinstance(error, OSError):
        return error.errno
    told = None if isinstance(error, CharterError) else re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn a failure to read or write ``path`` into a StoreError of one line."""
    try:
        yield
    except Exception as error:
        number = disk_fault(error)
        if number is None and not isinstance(error, OSError):
            raise
        remedy = _REMEDIES.get(number or 0, "check the disk and run the same command again")
        reason = (error.strerror if isinstance(error, OSError) else os.strerror(number or 0)) or str(error)
        raise StoreError(f"{path}: {reason.lower()}: {remedy}") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place, flushed to disk, when the block ends well.

    Raises:
        StoreError: it can't be written; ``path`` is then as it was before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with store_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut. Does nothing where the system can't."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
