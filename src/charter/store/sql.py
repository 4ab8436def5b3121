"""One small SQL for two databases: a SQLite file (WAL) or a PostgreSQL server by URL.

Statements are written with ``?`` for values and use nothing that only one of the two knows. Every transaction has its own
connection: threads need no lock of ours, and a server that was restarted is simply connected to again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from charter.errors import StoreError
from charter.store.wal import enter_wal

Value = str | int | float | None
_BUSY_SECONDS = 30.0
_CONNECT_SECONDS = 10
_LOCK = 0x63686172  # our advisory lock in PostgreSQL: "char"


class Transaction(Protocol):
    """What a transaction can do; it is committed when its block ends well and taken back otherwise."""

    def run(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        """Execute one statement; return its rows, none for a statement that gives none."""
        ...

    def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """Execute one statement for each row of values."""
        ...


class Database(Protocol):
    """A place where transactions happen, one writer after the other.

    Attributes:
        name: for people; holds no password.
    """

    name: str

    def transaction(self, script: str | None = None) -> Any:
        """Context manager that yields a ``Transaction``.

        Args:
            script: statements that make the tables, run first.

        Raises:
            StoreError: the database can't be reached, is damaged or full.
        """
        ...


def open_database(source: str) -> Database:
    """The database that a path or a ``postgresql://`` URL names. Nothing is connected to yet.

    Raises:
        StoreError: a URL of another kind, or PostgreSQL without its driver.
    """
    if source.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(source)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        raise StoreError(f"{_public(source)}: no database that we know: give a file or a postgresql:// URL")
    return SqliteDatabase(Path(source).expanduser())


class SqliteDatabase:
    """A file. A commit is on disk when it returns (WAL, synchronous=FULL): what a person did survives a power cut."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    @contextmanager
    def transaction(self, script: str | None = None) -> Iterator[Transaction]:
        """As ``Database.transaction``."""
        try:
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    for statement in _statements(script):
                        connection.execute(statement)
                    yield _SqliteTransaction(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        except (sqlite3.Error, OSError) as error:
            remedy = "free some space" if "full" in str(error) else "check the file and its folder"
            raise StoreError(f"{self.name}: {error}: {remedy}, and run the same command again") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            enter_wal(connection, _BUSY_SECONDS)
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        self._connection.executemany(sql, rows)


class PostgresDatabase:
    """A server, through psycopg 3. One advisory lock makes writers wait for each other, as in SQLite."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise StoreError(f"{_public(url)}: PostgreSQL needs psycopg: pip install 'charter[postgres]'") from error
        self._psycopg, self._url, self.name = psycopg, url, _public(url)

    @contextmanager
    def transaction(self, script: str | None = None) -> Iterator[Transaction]:
        """As ``Database.transaction``."""
        try:
            # leaving the connection's block commits, or rolls back after an exception
            with self._psycopg.connect(self._url, connect_timeout=_CONNECT_SECONDS) as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                for statement in _statements(script):
                    connection.execute(statement.encode())
                yield _PostgresTransaction(connection)
        except self._psycopg.Error as error:
            first_line = str(error).strip().split("\n")[0]
            raise StoreError(f"{self.name}: {first_line}: check the URL and that the server runs") from error


class _PostgresTransaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(sql.replace("?", "%s"), values)
        return cursor.fetchall() if cursor.description else []

    def run_many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(sql.replace("?", "%s"), rows)


def _statements(script: str | None) -> list[str]:
    return [statement for statement in (script or "").split(";") if statement.strip()]


def _public(url: str) -> str:
    """A URL without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
