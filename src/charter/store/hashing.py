"""Content hashes: the same content has the same SHA-256, whatever its name, age or place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from charter.store.disk import store_errors

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_SKIPPED_FOLDERS = {"__pycache__", ".cache", ".git"}


def hash_json(obj: Any) -> str:
    """SHA-256 (64 hex digits) of an object's canonical JSON: sorted keys, no spaces, ASCII only.

    Raises:
        ValueError: NaN or infinity, which JSON can't hold.
        TypeError: something that isn't JSON.
    """
    return hashlib.sha256(_CANONICAL.encode(obj).encode("ascii")).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes.

    Raises:
        StoreError: the file can't be read.
    """
    with store_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_files(folder: Path) -> dict[str, Path]:
    """Relative posix name -> path of each file under ``folder``, sorted; hidden files and caches left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in parts)
        if path.is_file() and not hidden:
            found["/".join(parts)] = path
    return found


def hash_folder(folder: Path) -> str:
    """SHA-256 (64 hex digits) over the names and contents of all files under ``folder``, caches left out.

    Raises:
        StoreError: a file can't be read.
    """
    return hash_json({name: hash_file(path) for name, path in content_files(folder).items()})
