"""What people said about response pairs: items, labels and leases in a database that several raters use at once.

items    a pair, the principle it is judged by, and how many raters it wants (1, or 2 in the shared part)
labels   append-only; an undone label stays, with the time of its undoing; at most one standing label per item and rater
leases   who has which item before them, and until when: two raters are not given one item unless it wants two
unfilled how many labels each item still wants, where it wants any: what comes next is found without reading all that is done

A skip is a label that says nothing: it never becomes a preference, and the item stays open to other raters.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from charter.errors import DataError, StoreError
from charter.records import Abstention, Judgment, Order, PreferencePair, Record, ResponsePair
from charter.store.disk import store_errors
from charter.store.hashing import hash_json
from charter.store.sql import Database, Transaction, open_database

Verdict = Literal["a", "tie", "b", "skip"]
P_A: dict[Verdict, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}
LEASE_SECONDS = 600.0
_SQLITE_HEADER = b"SQLite format 3\0"

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (pair_id TEXT PRIMARY KEY, position INTEGER NOT NULL, wanted INTEGER NOT NULL,
    hash TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (id TEXT PRIMARY KEY, pair_id TEXT NOT NULL REFERENCES items (pair_id),
    rater TEXT NOT NULL, verdict TEXT NOT NULL, shown TEXT NOT NULL, note TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL, undone DOUBLE PRECISION);
CREATE UNIQUE INDEX IF NOT EXISTS one_standing_label ON labels (pair_id, rater) WHERE undone IS NULL;
CREATE TABLE IF NOT EXISTS leases (pair_id TEXT NOT NULL, rater TEXT NOT NULL, expires DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (pair_id, rater));
CREATE TABLE IF NOT EXISTS unfilled (pair_id TEXT PRIMARY KEY, position INTEGER NOT NULL, lacking INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS unfilled_in_order ON unfilled (position);
CREATE INDEX IF NOT EXISTS items_by_wanted ON items (wanted)
"""

# the first item that this rater has not answered and that wants more raters than have answered it or hold it
_NEXT = """
SELECT body FROM unfilled JOIN items ON items.pair_id = unfilled.pair_id
WHERE NOT EXISTS (SELECT 1 FROM labels WHERE labels.pair_id = unfilled.pair_id AND rater = ? AND undone IS NULL)
  AND (SELECT count(*) FROM leases WHERE leases.pair_id = unfilled.pair_id AND rater <> ? AND expires > ?) < lacking
ORDER BY unfilled.position LIMIT 1
"""
_LEASED = """
SELECT body FROM items JOIN leases ON leases.pair_id = items.pair_id
WHERE leases.rater = ? AND leases.expires > ? ORDER BY leases.expires DESC, position LIMIT 1
"""
_LACKING = """
INSERT INTO unfilled SELECT pair_id, position, wanted - given FROM (SELECT pair_id, position, wanted,
    (SELECT count(*) FROM labels WHERE labels.pair_id = items.pair_id AND undone IS NULL AND verdict <> 'skip') AS given
    FROM items {where}) AS counted
WHERE given < wanted
"""


@dataclass(frozen=True, slots=True)
class Item(Record):
    """A pair to be labelled, and by what: ``principle`` is the text that raters read; None: which is better at all."""

    pair: ResponsePair
    principle_id: str | None = None
    principle: str | None = None


@dataclass(frozen=True, slots=True)
class HumanLabel(Record):
    """What one person said about one pair. ``shown`` is the order in which they saw the responses."""

    id: str  # made by the page, so that sending it twice stores it once
    pair_id: str
    rater: str
    verdict: Verdict
    shown: Order
    note: str = ""
    created: float = 0.0  # Unix time in seconds


@dataclass(frozen=True, slots=True)
class Tally(Record):
    """How far the work is: ``done`` of ``wanted`` labels, both counted over all raters."""

    num_pairs: int
    wanted: int
    done: int
    mine: int
    my_skips: int
    my_last_id: str | None


class LabelConflict(Exception):
    """The label says other than one that stands already."""


class LabelStore:
    """Items, labels and leases in one database; any number of threads and processes may use it at once.

    Raises (any method):
        StoreError: the database can't be reached, is damaged or full.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.name = database.name
        self._database, self._clock = database, clock
        with database.transaction(_TABLES) as transaction:
            transaction.run("INSERT INTO meta VALUES ('salt', ?) ON CONFLICT (key) DO NOTHING", secrets.token_hex(16))
            self.salt: str = transaction.run("SELECT value FROM meta WHERE key = 'salt'")[0][0]
            if not transaction.run("SELECT 1 FROM meta WHERE key = 'counted'"):  # made by a version that didn't count
                self._count(transaction)
                transaction.run("INSERT INTO meta VALUES ('counted', '1')")

    def add_items(self, items: Sequence[Item], overlap: float) -> None:
        """Put items there; those that are there already keep their labels.

        Args:
            overlap: share in [0, 1] of all items that two raters label; drawn by a hash, so that a higher share later
                keeps those that were shared before.

        Raises:
            DataError: an item differs from the one of the same id that is there already.
        """
        with self._database.transaction() as transaction:
            known = dict(transaction.run("SELECT pair_id, hash FROM items"))
            fresh: list[tuple[str | int, ...]] = []
            for item in items:
                digest = hash_json(item.to_json())
                before = known.setdefault(item.pair.id, digest)
                if before != digest:
                    raise DataError(
                        f"{self.name}: pair {item.pair.id} is there already with other text or another principle: "
                        "give these pairs another --db"
                    )
                fresh.append((item.pair.id, len(fresh), 1, digest, json.dumps(item.to_json())))
            transaction.run_many(
                "INSERT INTO items (pair_id, position, wanted, hash, body) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (pair_id) DO NOTHING",
                fresh,
            )
            shared = sorted(known, key=lambda pair_id: hash_json([self.salt, "overlap", pair_id]))
            shared = shared[: round(overlap * len(shared))]
            transaction.run("UPDATE items SET wanted = 1 WHERE wanted <> 1")
            transaction.run_many("UPDATE items SET wanted = 2 WHERE pair_id = ?", [(pair_id,) for pair_id in shared])
            self._count(transaction)

    def _count(self, transaction: Transaction, pair_id: str | None = None) -> None:
        """Count anew what one item lacks, or every item."""
        if pair_id is None:
            transaction.run("DELETE FROM unfilled")
            transaction.run(_LACKING.format(where=""))
        else:
            transaction.run("DELETE FROM unfilled WHERE pair_id = ?", pair_id)
            transaction.run(_LACKING.format(where="WHERE pair_id = ?"), pair_id)

    def next_item(self, rater: str) -> Item | None:
        """The item that this rater has before them or gets now, leased to them; None where nothing is left for them."""
        with self._database.transaction() as transaction:
            return self._next(transaction, rater)

    def _next(self, transaction: Transaction, rater: str) -> Item | None:
        now = self._clock()
        rows = transaction.run(_LEASED, rater, now) or transaction.run(_NEXT, rater, rater, now)
        if not rows:
            return None
        item = Item.from_json(json.loads(rows[0][0]))
        self._lease(transaction, item.pair.id, rater)
        return item

    def _lease(self, transaction: Transaction, pair_id: str, rater: str) -> None:
        transaction.run("DELETE FROM leases WHERE rater = ? OR expires <= ?", rater, self._clock())
        transaction.run("INSERT INTO leases VALUES (?, ?, ?)", pair_id, rater, self._clock() + LEASE_SECONDS)

    def add_label(self, label: HumanLabel) -> None:
        """Store a label. Sent twice, it is stored once. A lease that ran out takes nothing away: the label counts.

        Raises:
            KeyError: no such pair.
            LabelConflict: the rater has another standing label on this pair, or the id is taken by another label.
        """
        with self._database.transaction() as transaction:
            if not transaction.run("SELECT 1 FROM items WHERE pair_id = ?", label.pair_id):
                raise KeyError(label.pair_id)
            key = (label.pair_id, label.rater, label.verdict, label.shown, label.note)
            same = transaction.run("SELECT pair_id, rater, verdict, shown, note FROM labels WHERE id = ?", label.id)
            if same:
                if same[0] != key:
                    raise LabelConflict("this id is taken by another label")
                return
            standing = "SELECT 1 FROM labels WHERE pair_id = ? AND rater = ? AND undone IS NULL"
            if transaction.run(standing, label.pair_id, label.rater):
                raise LabelConflict("this pair has a label by this rater already")
            created = label.created or self._clock()
            transaction.run("INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", label.id, *key, created)
            transaction.run("DELETE FROM leases WHERE pair_id = ? AND rater = ?", label.pair_id, label.rater)
            self._count(transaction, label.pair_id)

    def undo(self, label_id: str, rater: str) -> None:
        """Take back a label of this rater's and put its pair before them again. Taken back twice is taken back once.

        Raises:
            KeyError: this rater has no such label.
        """
        with self._database.transaction() as transaction:
            rows = transaction.run("SELECT pair_id, undone FROM labels WHERE id = ? AND rater = ?", label_id, rater)
            if not rows:
                raise KeyError(label_id)
            pair_id, undone = rows[0]
            if undone is None:
                transaction.run("UPDATE labels SET undone = ? WHERE id = ?", self._clock(), label_id)
                self._count(transaction, pair_id)
                self._lease(transaction, pair_id, rater)

    def tally(self, rater: str) -> Tally:
        """How far the work is, and this rater's part in it."""
        with self._database.transaction() as transaction:
            num_pairs, wanted = transaction.run("SELECT count(*), coalesce(sum(wanted), 0) FROM items")[0]
            done = wanted - transaction.run("SELECT coalesce(sum(lacking), 0) FROM unfilled")[0][0]
            mine = dict(
                transaction.run(
                    "SELECT verdict, count(*) FROM labels WHERE rater = ? AND undone IS NULL GROUP BY verdict", rater
                )
            )
            last = transaction.run(
                "SELECT id FROM labels WHERE rater = ? AND undone IS NULL ORDER BY created DESC, id DESC LIMIT 1", rater
            )
            skips = mine.pop("skip", 0)
            return Tally(num_pairs, int(wanted), int(done), sum(mine.values()), skips, last[0][0] if last else None)

    def items(self) -> list[Item]:
        """All items, in the order of their file."""
        with self._database.transaction() as transaction:
            rows = transaction.run("SELECT body FROM items ORDER BY position, pair_id")
            return [Item.from_json(json.loads(body)) for (body,) in rows]

    def labels(self) -> list[HumanLabel]:
        """All standing labels, in order of time; skips among them."""
        with self._database.transaction() as transaction:
            rows = transaction.run(
                "SELECT id, pair_id, rater, verdict, shown, note, created FROM labels WHERE undone IS NULL "
                "ORDER BY created, id"
            )
            return [HumanLabel(*row) for row in rows]


def open_labels(source: str) -> LabelStore:
    """The labels that are in a database already.

    Raises:
        StoreError: there is none, or it can't be read.
    """
    if not is_label_database(source):
        raise StoreError(f"{source}: no database of labels: check the path, or make one with charter rate")
    return LabelStore(open_database(source))


def is_label_database(source: str) -> bool:
    """Whether a source is a database rather than a file of rows: a URL, or a file that begins as SQLite's do."""
    if "://" in source:
        return True
    path = Path(source).expanduser()
    with store_errors(path):
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER


def judgments(items: Sequence[Item], labels: Sequence[HumanLabel]) -> list[Judgment]:
    """Every answer, skips as abstentions; ``raw`` is the rater's note, ``order`` the one in which they saw the pair."""
    principles = {item.pair.id: item.principle_id for item in items}
    return [
        Judgment(
            label.pair_id,
            principles[label.pair_id],
            label.shown,
            None if label.verdict == "skip" else P_A[label.verdict],
            Abstention.SKIPPED if label.verdict == "skip" else None,
            label.note,
            f"human:{label.rater}",
        )
        for label in labels
    ]


def preferences(items: Sequence[Item], labels: Sequence[HumanLabel]) -> list[PreferencePair]:
    """Pairs with at least one verdict; ``p_a`` is the mean over raters, a tie 0.5, a skip nothing."""
    given: dict[str, list[HumanLabel]] = {}
    for label in labels:
        if label.verdict != "skip":
            given.setdefault(label.pair_id, []).append(label)
    return [_preference(item, given[item.pair.id]) for item in items if item.pair.id in given]


def _preference(item: Item, labels: Sequence[HumanLabel]) -> PreferencePair:
    pair = item.pair
    p_a = sum(P_A[label.verdict] for label in labels) / len(labels)
    principle_ids = () if item.principle_id is None else (item.principle_id,)
    source = "human:" + ",".join(sorted({label.rater for label in labels}))
    return PreferencePair(pair.id, pair.prompt, pair.response_a, pair.response_b, p_a, principle_ids, source)
