"""Data of the label explorer: every pair with its texts, its label and every judgment, packed small enough for the page.

The rows are JSON, deflated and in base64, so that 20,000 pairs fit and no text of theirs can close a script element. What
doesn't fit is left out evenly and the page says how much; raw replies of the labeler go first.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from charter.records import Judgment, Message, PreferencePair, ResponsePair
from charter.report.artifacts import Artifacts
from charter.report.visible import clipped, visible

Row = TypeVar("Row")
MAX_TEXT = 4000  # characters of one response
MAX_PAIRS = 20_000  # that are read; no page holds more
NUM_STATIC = 25  # the first page stands in the report itself: it is there before any script has run


@dataclass
class Label:
    """One pair and what the labeler said of it."""

    id: str
    messages: tuple[Message, ...]
    response_a: str
    response_b: str
    p_a: float | None = None
    judgments: list[Judgment] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """Why there is no label: the commonest abstention, or ``undecided``; empty where there is a label."""
        if self.p_a is not None:
            return ""
        reasons = [j.abstained.value for j in self.judgments if j.abstained]
        return max(sorted(set(reasons)), key=reasons.count) if reasons else "undecided"

    def verdicts(self) -> dict[str | None, float]:
        """Log-odds (nats) that A is better by principle, averaged over the orders; only where no order abstained."""
        grouped: dict[str | None, list[float | None]] = {}
        for judgment in self.judgments:
            grouped.setdefault(judgment.principle_id, []).append(judgment.p_a)
        known = {key: [p for p in own if p is not None] for key, own in grouped.items()}
        return {
            key: sum(map(_log_odds, own)) / len(own)
            for key, own in known.items()
            if own and len(own) == len(grouped[key])
        }

    @property
    def disagreement(self) -> bool:
        """Do two principles clearly (by more than 0.4 nats, about 60 %) prefer different responses?"""
        verdicts = self.verdicts().values()
        return any(v > 0.4 for v in verdicts) and any(v < -0.4 for v in verdicts)

    @property
    def num_flips(self) -> int:
        """Principles whose verdict changed sides when the two responses were swapped."""
        sides: dict[str | None, set[bool]] = {}
        for judgment in self.judgments:
            if judgment.p_a is not None and judgment.p_a != 0.5:
                sides.setdefault(judgment.principle_id, set()).add(judgment.p_a > 0.5)
        return sum(len(own) == 2 for own in sides.values())


@dataclass(frozen=True)
class Explorer:
    """What the page shows of the labels; ``packed`` is empty where there are none."""

    packed: str
    num_pairs: int
    num_packed: int
    with_raw: bool
    principles: list[str]
    reasons: list[str]
    first: list[Label]


def _log_odds(p: float) -> float:
    p = min(1 - 1e-7, max(1e-7, p))
    return math.log(p / (1 - p))


def read_labels(artifacts: Artifacts, limit: int = MAX_PAIRS) -> tuple[list[Label], int]:
    """Pairs in the order of the run, with their labels and judgments, and how many there are in all.

    Of more than ``limit`` pairs so many are read, taken evenly: memory doesn't grow with the run.
    """
    ids = _labelled_ids(artifacts)
    chosen = set(_evenly(ids, limit))
    labels: dict[str, Label] = {}
    for row in artifacts.rows("3-sample/pairs.jsonl"):
        if str(row.get("id")) in chosen:
            pair = ResponsePair.from_json(row)
            labels[pair.id] = Label(pair.id, pair.prompt.messages, pair.response_a, pair.response_b)
    for row in artifacts.rows("4-label/preferences.jsonl"):
        if str(row.get("id")) in chosen:
            preference = PreferencePair.from_json(row)
            new = Label(preference.id, preference.prompt.messages, preference.response_a, preference.response_b)
            labels.setdefault(preference.id, new).p_a = preference.p_a
    for row in artifacts.rows("4-label/judgments.jsonl"):
        if str(row.get("pair_id")) in chosen:
            labels[row["pair_id"]].judgments.append(Judgment.from_json(row))
    return list(labels.values()), len(ids)


def _labelled_ids(artifacts: Artifacts) -> list[str]:
    """Ids of the pairs that have a label or a judgment, in the order of the run."""
    preferred = {str(row.get("id")): None for row in artifacts.rows("4-label/preferences.jsonl")}
    judged = {str(row.get("pair_id")) for row in artifacts.rows("4-label/judgments.jsonl")}
    sampled = {str(row.get("id")): None for row in artifacts.rows("3-sample/pairs.jsonl")}
    return [id for id in {**sampled, **preferred} if id in judged or id in preferred]


def _evenly(rows: Sequence[Row], count: int) -> list[Row]:
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)


def explorer(labels: Sequence[Label], num_pairs: int, max_bytes: int) -> Explorer:
    """Pack labels, of ``num_pairs`` in the run, into at most ``max_bytes`` of base64; nothing where no pair fits."""
    principles = sorted({j.principle_id for label in labels for j in label.judgments if j.principle_id is not None})
    told = {j.abstained.value for label in labels for j in label.judgments if j.abstained}
    reasons = sorted(told | {label.reason for label in labels if label.reason})
    kept, with_raw = list(labels), True
    packed = _pack(kept, principles, reasons, with_raw) if labels and max_bytes > 0 else ""
    if len(packed) > max_bytes and any(j.raw for label in labels for j in label.judgments):
        with_raw = False
        packed = _pack(kept, principles, reasons, with_raw)
    while packed and len(packed) > max_bytes:
        kept = _evenly(labels, int(len(kept) * max_bytes / len(packed) * 0.95))
        packed = _pack(kept, principles, reasons, with_raw) if kept else ""
    return Explorer(packed, num_pairs, len(kept), with_raw, principles, reasons, list(labels[:NUM_STATIC]))


def _pack(labels: Sequence[Label], principles: Sequence[str], reasons: Sequence[str], with_raw: bool) -> str:
    """base64(zlib(JSON)); prompts are kept once, judgments are [principle, order, p_a in thousandths, reason, raw]."""
    prompts: dict[str, int] = {}
    place = {id: index for index, id in enumerate(principles)}
    why = {reason: index for index, reason in enumerate(reasons)}
    rows: list[list[Any]] = []
    for label in labels:
        text = visible(clipped("\n".join(f"{m.role}: {m.content}" for m in label.messages), MAX_TEXT))
        judgments = [_packed_judgment(j, place, why, with_raw) for j in label.judgments]
        rows.append([
            visible(label.id), prompts.setdefault(text, len(prompts)),
            visible(clipped(label.response_a, MAX_TEXT)), visible(clipped(label.response_b, MAX_TEXT)),
            None if label.p_a is None else round(label.p_a * 1000), why.get(label.reason, -1),
            int(label.disagreement), label.num_flips, judgments,
        ])  # fmt: skip
    document = {
        "principles": [visible(p) for p in principles],
        "reasons": list(reasons),
        "prompts": list(prompts),
        "rows": rows,
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 7)).decode("ascii")


def _packed_judgment(judgment: Judgment, place: dict[str, int], why: dict[str, int], with_raw: bool) -> list[Any]:
    principle = -1 if judgment.principle_id is None else place[judgment.principle_id]
    p_a = None if judgment.p_a is None else round(judgment.p_a * 1000)
    reason = why[judgment.abstained.value] if judgment.abstained else -1
    row: list[Any] = [principle, 0 if judgment.order == "ab" else 1, p_a, reason]
    return [*row, visible(clipped(judgment.raw, 1500))] if with_raw and judgment.raw else row
