"""Which code this is: a short hash of the package as it is installed, beside the version, which changes seldom."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from charter import __version__

CODE = (".py", ".j2", ".js", ".css", ".html", ".yaml", ".json", ".md")
NUM_DIGITS = 10


@cache
def source_hash() -> str:
    """The first 10 hex digits of a SHA-256 over the names and contents of the package's code, pages and run files.

    Weights of shipped models are left out: artifacts name models by a hash of their own.
    """
    folder = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in CODE and path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            found.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
            found.update(content)
    return found.hexdigest()[:NUM_DIGITS]


def version() -> str:
    """``0.1.0 (source 0123456789)``."""
    return f"{__version__} (source {source_hash()})"
