"""Labels of a run as the explorer reads them: all of a small one, so many of a large one, taken evenly."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.records import Judgment, Message, PreferencePair, Prompt, ResponsePair
from charter.report.artifacts import read_run
from charter.report.explorer import explorer, read_labels
from charter.store.jsonl import write_jsonl


@pytest.fixture
def run(tmp_path) -> Path:
    pairs = [ResponsePair(f"pair-{i}", Prompt(f"{i}", (Message("user", f"ask {i}"),)), "a", "b") for i in range(10)]
    judged = [Judgment(p.id, "kind", order, 0.7) for p in pairs[:8] for order in ("ab", "ba")]
    preferred = [PreferencePair(p.id, p.prompt, p.response_a, p.response_b, 0.7, ("kind",), "m") for p in pairs[:6]]
    (tmp_path / "run.yaml").write_text("name: x\n")
    write_jsonl(tmp_path / "3-sample" / "pairs.jsonl", pairs)
    write_jsonl(tmp_path / "4-label" / "judgments.jsonl", judged)
    write_jsonl(tmp_path / "4-label" / "preferences.jsonl", preferred)
    return tmp_path


def test_pairs_with_a_label_or_a_judgment(run):
    labels, total = read_labels(read_run(run))
    assert [label.id for label in labels] == [f"pair-{i}" for i in range(8)] and total == 8
    assert [label.p_a for label in labels] == [0.7] * 6 + [None] * 2
    assert all(len(label.judgments) == 2 for label in labels)


def test_of_a_large_run_so_many_taken_evenly(run):
    labels, total = read_labels(read_run(run), limit=4)
    assert [label.id for label in labels] == ["pair-0", "pair-2", "pair-4", "pair-6"] and total == 8
    assert all(len(label.judgments) == 2 for label in labels)
    packed = explorer(labels, total, 100_000)
    assert (packed.num_pairs, packed.num_packed) == (8, 4)
