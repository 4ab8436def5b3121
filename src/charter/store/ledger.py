"""The ledger: every answer of a model under a content key, so that nothing is asked twice.

One SQLite file in WAL mode. Any number of processes and threads may read and write it at once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from charter.errors import StoreError
from charter.store.wal import enter_wal

_KEYS_PER_QUERY, _CACHE_KIB = 5000, 16 << 10
_BUSY_SECONDS = 60.0


class Ledger:
    """Answers by key. The first answer written under a key stays.

    Raises (any method):
        StoreError: the file is damaged, can't be written, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            enter_wal(self._connection, _BUSY_SECONDS)
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")  # 2 MiB would be read again and again
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers "
                "(key TEXT PRIMARY KEY, value TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS usage (model TEXT PRIMARY KEY, calls INTEGER NOT NULL, "
                "prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL)"
            )

    def get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The answers of those keys that have one."""
        found: dict[str, dict[str, Any]] = {}
        with self._lock, self._errors():
            for begin in range(0, len(keys), _KEYS_PER_QUERY):
                chunk = list(keys[begin : begin + _KEYS_PER_QUERY])
                marks = ",".join("?" * len(chunk))
                rows = self._connection.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", chunk)
                found.update((key, json.loads(value)) for key, value in rows)
        return found

    def put_many(self, answers: dict[str, dict[str, Any]]) -> None:
        """Write answers in one transaction; a key that already has one keeps it."""
        now = time.time()
        rows = [(key, json.dumps(value, allow_nan=False), now) for key, value in answers.items()]
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def add_usage(self, model: str, calls: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what a model was asked, over all attempts of all processes."""
        with self._lock, self._errors():
            self._connection.execute(
                "INSERT INTO usage VALUES (?, ?, ?, ?) ON CONFLICT (model) DO UPDATE SET calls = calls + excluded.calls, "
                "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                "completion_tokens = completion_tokens + excluded.completion_tokens",
                (model, calls, prompt_tokens, completion_tokens),
            )

    def usage(self, model: str) -> tuple[int, int, int]:
        """Calls, prompt tokens and completion tokens of a model so far."""
        with self._lock, self._errors():
            row = self._connection.execute(
                "SELECT calls, prompt_tokens, completion_tokens FROM usage WHERE model = ?", (model,)
            ).fetchone()
        return (int(row[0]), int(row[1]), int(row[2])) if row else (0, 0, 0)

    def count(self) -> int:
        """How many answers there are."""
        with self._lock, self._errors():
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}: {_remedy(str(error))} and run the same command again") from error


def _remedy(error: str) -> str:
    if "full" in error:
        return "free some space"
    if "locked" in error:
        return "another process holds it: wait for that one"
    return "delete it"
