"""SQLite's write-ahead log, entered safely by several processes at once."""

from __future__ import annotations

import random
import sqlite3
import time


def enter_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Put a database into WAL mode, waiting for others who do the same.

    SQLite does not call its own busy handler while two connections change the journal mode of a new file: one of them
    gets "database is locked" at once, however long its timeout is.

    Args:
        seconds: how long to try.

    Raises:
        sqlite3.Error: still locked after that time, or another error.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.002, 0.02))
