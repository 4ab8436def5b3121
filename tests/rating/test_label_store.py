"""The label store keeps its promises on both databases."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from charter.errors import DataError, StoreError
from charter.labelers.combine import combine
from charter.labelers.human import HumanLabeler
from charter.rating.export import export, judgments_file
from charter.records import Abstention, Judgment, PreferencePair, ResponsePair
from charter.store.jsonl import read_jsonl
from charter.store.labels import LEASE_SECONDS, LabelConflict, LabelStore, open_labels
from charter.store.sql import open_database


def work_through(store, rater, make_label, verdict="a") -> list[str]:
    seen = []
    while (item := store.next_item(rater)) is not None:
        seen.append(item.pair.id)
        store.add_label(make_label(item.pair.id, rater, verdict))
    return seen


def test_items_come_back_as_they_went_in(store, make_items):
    items = make_items(3)
    hostile = ResponsePair(
        "odd", items[0].pair.prompt, "nul \0 bidi \u202e <script>", "% ? %s {} '; DROP TABLE labels;--"
    )
    items.append(type(items[0])(hostile))
    store.add_items(items, 0)
    assert store.items() == items


def test_every_pair_once_and_the_shared_part_twice(store, make_items, make_label):
    store.add_items(make_items(20), overlap=0.3)
    anna, ben = work_through(store, "anna", make_label), work_through(store, "ben", make_label)
    assert len(anna) == 20 and len(set(anna)) == 20
    assert len(ben) == 6 and set(ben) < set(anna)
    assert store.next_item("carl") is None
    assert store.tally("anna").done == store.tally("anna").wanted == 26


def test_two_raters_at_once_never_hold_one_pair(store, make_items, make_label):
    store.add_items(make_items(24), overlap=0.25)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda rater: work_through(store, rater, make_label), ["anna", "ben", "carl", "dora"]))
    counts: dict[str, int] = {}
    for pair_id in (pair_id for seen in done for pair_id in seen):
        counts[pair_id] = counts.get(pair_id, 0) + 1
    assert sorted(counts.values()) == [1] * 18 + [2] * 6


def test_a_reload_shows_the_same_pair(store, make_items):
    store.add_items(make_items(5), 0)
    first = store.next_item("anna")
    assert store.next_item("anna") == first
    assert store.next_item("ben") != first


def test_a_lease_runs_out_and_a_late_label_still_counts(store, clock, make_items, make_label):
    store.add_items(make_items(1), 0)
    assert store.next_item("anna") is not None
    assert store.next_item("ben") is None
    clock.now += LEASE_SECONDS + 1
    assert store.next_item("ben") is not None
    store.add_label(make_label("pair-0", "anna"))
    store.add_label(make_label("pair-0", "ben", "b"))
    assert {label.rater for label in store.labels()} == {"anna", "ben"}


def test_sent_twice_is_stored_once(store, make_items, make_label):
    store.add_items(make_items(2), 0)
    label = make_label("pair-0", "anna", note="why \u202e not")
    store.add_label(label)
    store.add_label(label)
    assert [(row.id, row.note) for row in store.labels()] == [(label.id, label.note)]


def test_another_label_on_the_same_pair_is_refused(store, make_items, make_label):
    store.add_items(make_items(2), 0)
    label = make_label("pair-0", "anna")
    store.add_label(label)
    with pytest.raises(LabelConflict):
        store.add_label(make_label("pair-0", "anna", "b"))
    with pytest.raises(LabelConflict):
        store.add_label(type(label)(label.id, "pair-1", "ben", "b", "ab"))
    with pytest.raises(KeyError):
        store.add_label(make_label("pair-7", "anna"))
    assert len(store.labels()) == 1


def test_undo_brings_the_pair_back_and_keeps_the_trail(store, make_items, make_label):
    store.add_items(make_items(3), 0)
    first = store.next_item("anna")
    label = make_label(first.pair.id, "anna")
    store.add_label(label)
    assert store.next_item("anna") != first
    with pytest.raises(KeyError):
        store.undo(label.id, "ben")
    store.undo(store.tally("anna").my_last_id, "anna")
    store.undo(label.id, "anna")
    assert store.next_item("anna") == first and store.labels() == []
    store.add_label(make_label(first.pair.id, "anna", "b"))
    store.add_label(label)  # a late copy of the undone one changes nothing
    assert [row.verdict for row in store.labels()] == ["b"]


def test_a_skip_is_no_label_and_leaves_the_pair_to_others(store, make_items, make_label):
    store.add_items(make_items(1), 0)
    store.add_label(make_label("pair-0", "anna", "skip", note="can't tell"))
    assert store.next_item("anna") is None
    assert store.tally("anna").done == 0 and store.tally("anna").my_skips == 1
    assert store.next_item("ben") is not None


def test_a_second_start_keeps_labels_and_refuses_other_content(source, store, make_items, make_label):
    items = make_items(10)
    store.add_items(items, 0.2)
    shared = {item.pair.id for item in items if _wanted(source, item.pair.id) == 2}
    store.add_label(make_label("pair-3", "anna"))
    again = LabelStore(open_database(source))
    again.add_items(items, 0.5)
    assert again.salt == store.salt and len(again.labels()) == 1
    assert shared < {item.pair.id for item in items if _wanted(source, item.pair.id) == 2}
    changed = type(items[0])(items[0].pair, "honesty", "Another text.")
    with pytest.raises(DataError, match="another --db"):
        again.add_items([changed], 0)


def _wanted(source: str, pair_id: str) -> int:
    with open_database(source).transaction() as transaction:
        return transaction.run("SELECT wanted FROM items WHERE pair_id = ?", pair_id)[0][0]


def test_a_failed_transaction_leaves_nothing(source, store, make_items):
    store.add_items(make_items(1), 0)
    with pytest.raises(RuntimeError), open_database(source).transaction() as transaction:
        transaction.run("DELETE FROM items")
        raise RuntimeError
    assert len(store.items()) == 1


def test_export_and_the_human_labeler(source, store, make_items, make_label, tmp_path):
    items = make_items(5)
    store.add_items(items, 1.0)
    given = [
        ("pair-0", "x", "a"),
        ("pair-0", "y", "b"),
        ("pair-1", "x", "tie"),
        ("pair-2", "x", "b"),
        ("pair-2", "y", "b"),
    ]
    for row in [*given, ("pair-3", "x", "skip"), ("pair-0", "z", "a"), ("pair-1", "y", "skip")]:
        store.add_label(make_label(*row))
    file = tmp_path / "human.jsonl"
    assert export(store, file) == (3, 8)
    preferences = list(read_jsonl(file, PreferencePair))
    assert [(pair.id, pair.p_a) for pair in preferences] == [("pair-0", 2 / 3), ("pair-1", 0.5), ("pair-2", 0.0)]
    assert preferences[0].source == "human:x,y,z" and preferences[0].principle_ids == ("honesty",)
    answers = list(read_jsonl(judgments_file(file), Judgment))
    assert [answer.abstained for answer in answers if answer.pair_id == "pair-3"] == [Abstention.SKIPPED]

    pairs = [item.pair for item in items]
    for labeler in (HumanLabeler.from_source(source), HumanLabeler.from_source(str(file))):
        outcomes = [combine(own, labeler.weights, 1.0) for own in labeler.label(pairs)]
        assert outcomes[:3] == pytest.approx([2 / 3, 0.5, 0.0], abs=1e-6)
        assert outcomes[3:] == [Abstention.UNLABELLED] * 2
        swapped = [ResponsePair("other id", pair.prompt, pair.response_b, pair.response_a) for pair in pairs[:1]]
        assert labeler.label(swapped)[0][0].p_a == pytest.approx(1 / 3)


def test_users_errors_are_one_line(tmp_path):
    with pytest.raises(StoreError, match="no database of labels"):
        open_labels(str(tmp_path / "none.sqlite"))
    with pytest.raises(StoreError, match="check the file"):
        LabelStore(open_database(str(tmp_path / "no" / "folder.sqlite")))
    with pytest.raises(StoreError, match=r"mysql://host/x: no database") as caught:
        open_database("mysql://me:secret@host/x")
    assert "secret" not in str(caught.value)


def test_no_password_in_the_name():
    pytest.importorskip("psycopg", reason="psycopg is not installed (the postgres extra)")
    secret = secrets.token_hex(8)
    database = open_database(f"postgresql://me:{secret}@127.0.0.1:1/labels?connect_timeout=1")
    assert database.name == "postgresql://127.0.0.1:1/labels"
    with pytest.raises(StoreError, match="check the URL") as caught:
        LabelStore(database)
    assert secret not in str(caught.value) and "\n" not in str(caught.value)


def test_a_database_of_a_version_that_did_not_count_what_is_lacking(source, store, clock, make_items, make_label):
    store.add_items(make_items(6), overlap=0.5)
    for number in range(3):
        store.add_label(make_label(f"pair-{number}", "anna"))
    before = store.next_item("ben"), store.tally("ben")
    assert 0 < before[1].done < before[1].wanted
    with open_database(source).transaction() as transaction:
        transaction.run("DELETE FROM meta WHERE key = 'counted'")
        transaction.run("DELETE FROM unfilled")
    again = LabelStore(open_database(source), clock)
    assert (again.next_item("ben"), again.tally("ben")) == before
