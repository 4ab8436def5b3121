"""Do the files that train the reward model speak of the pairs that were sampled and labelled?

A row of preferences.jsonl repeats the responses of its pair, and a row of held_out.jsonl its label. Responses that changed
places turn a label round without a trace in the label itself.
"""

from __future__ import annotations

from charter.audit.evidence import Evidence
from charter.audit.figures import LABELER, RECORD, REWARD_MODEL, Finding
from charter.records import PreferencePair
from charter.statistics import counted
from charter.store.jsonl import read_jsonl, read_rows

PREFERENCES = "4-label/preferences.jsonl"
HELD_OUT = "5-reward/held_out.jsonl"
SAME = 1e-6


def check_rows(evidence: Evidence) -> list[Finding]:
    """Findings about rows that say other texts, or another label, than the file before."""
    path = evidence.folder / PREFERENCES
    labelled = list(read_jsonl(path, PreferencePair)) if path.is_file() else []
    return [*_texts(evidence, labelled), *_labels(evidence, {row.id: row.p_a for row in labelled})]


def _texts(evidence: Evidence, labelled: list[PreferencePair]) -> list[Finding]:
    sampled = {pair.id: pair for pair in evidence.pairs.pairs}
    exchanged = changed = 0
    for row in labelled:
        pair, own = sampled[row.id], (row.response_a, row.response_b)
        if own == (pair.response_a, pair.response_b):
            continue
        if own == (pair.response_b, pair.response_a):
            exchanged += 1
        else:
            changed += 1
    if not exchanged + changed:
        return []
    n = len(labelled)
    what = [f"{exchanged:,} have A and B exchanged" * bool(exchanged), f"{changed:,} hold other texts" * bool(changed)]
    says = (
        f"of {n:,} rows of {PREFERENCES} {' and '.join(filter(None, what))}, set beside 3-sample/pairs.jsonl: one of the two files "
        "was changed, and the reward model may have learned those labels the wrong way round"
    )
    size = counted(exchanged + changed, n)
    return [Finding(RECORD, "record", PREFERENCES, size, "share of rows", 0.0, exchanged / n, says, of_link=LABELER)]


def _labels(evidence: Evidence, labels: dict[str, float]) -> list[Finding]:
    path = evidence.folder / HELD_OUT
    rows = [row for _, row in read_rows(path)] if path.is_file() else []
    told = [(row["p_a"], labels[row["id"]]) for row in rows if "p_a" in row and row.get("id") in labels]
    off = [(own, label) for own, label in told if abs(own - label) > SAME]
    if not off:
        return []
    size = counted(len(off), len(told))
    turned = sum((own - 0.5) * (label - 0.5) < 0 for own, label in off) / len(told)
    says = f"{len(off):,} of {len(told):,} labels in {HELD_OUT} aren't those of {PREFERENCES}: one of the two files was changed"
    return [Finding(RECORD, "record", HELD_OUT, size, "share of labels", 0.0, turned, says, of_link=REWARD_MODEL)]
