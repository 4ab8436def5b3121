"""How labels came about, in words and as a table: from the audit's ``labels.counting``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from charter.report.artifacts import Artifacts
from charter.report.figures import Figure, figure, finite
from charter.report.sections import Table, TableRow, part
from charter.store.jsonl import read_json

FILE = "8-audit/audit.json"
COLUMNS = {
    "counted": "verdicts that count",
    "flips_counted": "flip with the order, of those that count",
    "flips_dropped": "of those dropped",
    "right_counted": "right by gold, of those that count",
    "right_dropped": "of those dropped",
    "label_follows": "the label agrees, of those that count",
}


@dataclass(frozen=True, slots=True)
class Counting:
    """The rule in words, and the table by principle."""

    words: str
    table: Table


def counting(artifacts: Artifacts) -> Counting | None:
    """None where there is no audit, or it doesn't know."""
    path = artifacts.folder / FILE
    told = read_json(path) if path.is_file() else {}
    found = part(told if isinstance(told, dict) else {}, "labels", "counting")
    if not part(found, "all"):
        return None
    by_principle, weights = part(found, "by_principle"), part(found, "weights")
    rows = [
        TableRow(f"{id} (weight {finite(weights.get(id)) or 0:g})", _figures(by_principle[id])) for id in by_principle
    ]
    rows.append(TableRow("all principles", _figures(part(found, "all"))))
    caption = "Every verdict: one pair by one principle; small print: 95 % intervals"
    return Counting(_words(found), Table(caption, list(COLUMNS.values()), rows))


def _figures(row: Any) -> list[Figure]:
    return [figure(part({"row": row}, "row").get(key), "accuracy") for key in COLUMNS]


def _words(found: dict[str, Any]) -> str:
    threshold, sharpness = finite(found.get("min_log_odds")) or 0.0, finite(found.get("sharpness")) or 1.0
    margin = finite(found.get("min_margin")) or 0.0
    weights = ", ".join(f"{id} {finite(weight) or 0:g}" for id, weight in part(found, "weights").items())
    times = "" if sharpness == 1 else f"{sharpness:g} times "
    rule = (
        f"A pair’s label is the logistic function of {times}the sum over principles of weight × log-odds (the mean of both "
        f"orders); weights: {weights}."
    )
    if threshold:
        rule += f" Only verdicts of at least {threshold:g} nats count (label.labeler.min_log_odds)."
    if margin:
        rule += f" Labels within {margin:g} of one half are dropped (label.min_margin)."
    every = part(found, "all")
    counted = figure(every.get("counted"), "accuracy")
    told = f" Of {counted.n:,} verdicts {counted.text} count" if counted.value is not None else ""
    flips = [figure(every.get(key), "accuracy") for key in ("flips_counted", "flips_dropped")]
    if told and flips[0].value is not None:
        told += f"; among those that count, {flips[0].text} flip when the responses are swapped (n {flips[0].n:,})"
        if flips[1].value is not None:
            told += f", among those dropped {flips[1].text} (n {flips[1].n:,})"
    return f"{rule}{told}{'.' if told else ''}"
