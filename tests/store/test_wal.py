"""Many open one new database at the same moment: SQLite alone answers some of them "database is locked"."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from charter.store.ledger import Ledger
from charter.store.sql import SqliteDatabase
from charter.store.wal import enter_wal

OPENERS, FILES = 8, 30


def _open_ledger(path):
    Ledger(path).close()


def _open_database(path):
    with SqliteDatabase(path).transaction("CREATE TABLE IF NOT EXISTS t (a INTEGER)") as transaction:
        transaction.run("INSERT INTO t VALUES (?)", 1)


@pytest.mark.parametrize("open_one", [_open_ledger, _open_database])
def test_many_open_at_once(tmp_path, open_one):
    for number in range(FILES):
        barrier = Barrier(OPENERS)

        def opener(path, barrier=barrier):
            barrier.wait()
            open_one(path)

        with ThreadPoolExecutor(OPENERS) as pool:
            list(pool.map(opener, [tmp_path / f"{number}.sqlite"] * OPENERS))


def test_a_lock_that_stays_is_an_error(tmp_path):
    path = tmp_path / "held.sqlite"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        enter_wal(other, 0.05)
