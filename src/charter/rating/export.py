"""Labels as records: one Judgment for each answer of a person, one PreferencePair for each pair that has a verdict."""

from __future__ import annotations

from pathlib import Path

from charter.store.jsonl import write_jsonl
from charter.store.labels import LabelStore, judgments, preferences


def export(store: LabelStore, file: Path) -> tuple[int, int]:
    """Write preferences to ``file`` and judgments beside it (``x.jsonl``: ``x.judgments.jsonl``); return their numbers.

    Raises:
        StoreError: they can't be written; each file appears whole or not at all.
    """
    items, labels = store.items(), store.labels()
    answers, pairs = judgments(items, labels), preferences(items, labels)
    write_jsonl(judgments_file(file), answers)
    write_jsonl(file, pairs)
    return len(pairs), len(answers)


def judgments_file(file: Path) -> Path:
    """Where the judgments go that belong to a file of preferences."""
    return file.with_name(f"{file.stem}.judgments{file.suffix}")
