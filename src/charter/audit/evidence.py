"""What the audit reads, as arrays: pairs with the verdict of every link, and the policies' responses.

reads   run.yaml, constitution.yaml, 3-sample/pairs.jsonl, 4-label/{judgments,preferences}.jsonl,
        5-reward/{held_out.jsonl,model}, 6-policy/metrics.jsonl, 7-evaluate/*.jsonl

Nothing that a stage concluded is believed: only what was asked, answered, sampled and scored. In arrays NaN stands for
what isn't known; every reader leaves it out and counts what is left.

Axes: P pairs, K principles, O orders (ab, ba), F features. Differences are A minus B throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from charter.audit.features import Features
from charter.constitution.load import Constitution, load_constitution
from charter.errors import ConfigError, DataError
from charter.labelers.combine import log_odds
from charter.records import EvaluatedResponse, Judgment, PreferencePair, Prompt, Reading, ResponsePair
from charter.regression import Array, Index, cluster_index
from charter.sources import resolve_python
from charter.store.jsonl import read_jsonl, read_rows

FLAGS = ("harmful", "refused", "evasive", "correct", "false", "rude")
NO_GOLD = "no gold is named in the run file (evaluate.gold)"


class Gold(Protocol):
    """The true goal, where it is known."""

    name: str
    simulated: bool

    def read(self, prompt: Prompt, response: str) -> Reading: ...

    def keeps(self, prompt: Prompt, response: str, principle_id: str) -> float | None: ...


@dataclass(frozen=True)
class Pairs:
    """Response pairs and what each link said of them.

    Attributes:
        gold_P: gold of A minus gold of B.
        level_PK: difference in the level of each principle, as a perfect reader sees it; NaN: it doesn't apply.
        label_P: combined log-odds (nats) that A is better.
        judged_PKO: log-odds per principle and order; NaN: not asked, or an abstention.
        margin_P: reward of A minus reward of B (nats), on pairs that the reward model never saw.
        attributes: what the gold reads in the texts.
        index_P: number of each pair's prompt; the same text under another id is the same prompt.
    """

    pairs: tuple[ResponsePair, ...]
    principle_ids: tuple[str, ...]
    weights_K: Array
    gold_P: Array
    level_PK: Array
    label_P: Array
    judged_PKO: Array
    margin_P: Array
    attributes: Features
    index_P: Index

    @property
    def a(self) -> list[str]:
        return [pair.response_a for pair in self.pairs]

    @property
    def b(self) -> list[str]:
        return [pair.response_b for pair in self.pairs]

    @property
    def judged_PK(self) -> Array:
        """Log-odds averaged over the orders; NaN where an order that the labeler answers at all has no answer."""
        answered_PKO = ~np.isnan(self.judged_PKO)
        needed = 2 if answered_PKO.all(axis=2).any() else 1
        count_PK = answered_PKO.sum(axis=2)
        mean_PK: Array = np.nansum(self.judged_PKO, axis=2) / np.maximum(count_PK, 1)
        return np.where(count_PK >= needed, mean_PK, np.nan)

    @property
    def constitution_P(self) -> Array:
        """The perfect reading: weighted sum over principles of the sign of their level difference; NaN without gold."""
        known_P = ~np.isnan(self.gold_P)
        sum_P = np.nansum(np.sign(self.level_PK) * self.weights_K, axis=1)
        return np.where(known_P & bool(self.principle_ids), np.round(sum_P, 9), np.nan)

    def rows(self, keep_P: np.ndarray) -> Pairs:
        """The pairs where ``keep_P`` is True."""
        kept = tuple(pair for pair, keep in zip(self.pairs, keep_P, strict=True) if keep)
        return Pairs(
            kept,
            self.principle_ids,
            self.weights_K,
            self.gold_P[keep_P],
            self.level_PK[keep_P],
            self.label_P[keep_P],
            self.judged_PKO[keep_P],
            self.margin_P[keep_P],
            self.attributes.rows(keep_P),
            cluster_index([pair.prompt.messages for pair in kept]),
        )


@dataclass(frozen=True)
class Evidence:
    """A run folder, read.

    Attributes:
        abstentions: reason -> count, over all judgments.
        policies: name -> its responses to held-out prompts, in the order of training; ``steps`` says which step.
    """

    folder: Path
    config: dict[str, Any]
    constitution: Constitution | None
    gold: Gold | None
    pairs: Pairs
    abstentions: dict[str, int]
    num_judgments: int
    policies: dict[str, list[EvaluatedResponse]]
    steps: dict[str, int]
    metrics: list[dict[str, Any]]
    judgments: tuple[Judgment, ...]

    def section(self, *path: str) -> Any:
        """A setting of the run file, None where it isn't there."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_evidence(folder: Path) -> Evidence:
    """Read a run folder as far as it is there.

    Raises:
        DataError: it is no run folder, or a file in it is broken.
        ConfigError: the gold that the run file names can't be imported.
    """
    if not (folder / "run.yaml").is_file():
        raise DataError(f"{folder}: no run folder (run.yaml isn't there): check the path")
    config = _config(folder / "run.yaml")
    constitution = _constitution(folder)
    gold = _gold((config.get("evaluate") or {}).get("gold"))
    judgments = list(_records(folder / "4-label" / "judgments.jsonl", Judgment))
    pairs = _pairs(folder, constitution, gold, judgments)
    metrics = folder / "6-policy" / "metrics.jsonl"
    rows = [row for _, row in read_rows(metrics)] if metrics.is_file() else []
    policies, steps = _policies(folder / "7-evaluate", max((row.get("step", 0) for row in rows), default=0))
    abstentions: dict[str, int] = {}
    for judgment in judgments:
        if judgment.abstained:
            abstentions[judgment.abstained.value] = abstentions.get(judgment.abstained.value, 0) + 1
    return Evidence(
        folder, config, constitution, gold, pairs, abstentions, len(judgments), policies, steps, rows,
        tuple(judgments),
    )  # fmt: skip


def _config(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or ["no YAML"])[0]
        raise DataError(f"{path}: {reason}: restore the run file of this run") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: no run file (not a mapping): restore the run file of this run")
    return found


def _constitution(folder: Path) -> Constitution | None:
    path = folder / "constitution.yaml"
    return load_constitution(path) if path.is_file() else None


def _gold(source: Any) -> Gold | None:
    if source is None:
        return None
    gold: Gold = resolve_python(str(source))
    for name in ("name", "simulated", "read", "keeps"):
        if not hasattr(gold, name):
            raise ConfigError(f"evaluate.gold: {source} has no {name!r}: an oracle has name, simulated, read, keeps")
    return gold


def _records(path: Path, record: Any) -> Iterable[Any]:
    return read_jsonl(path, record) if path.is_file() else ()


def _pairs(folder: Path, constitution: Constitution | None, gold: Gold | None, judgments: Sequence[Judgment]) -> Pairs:
    preferences = {row.id: row for row in _records(folder / "4-label" / "preferences.jsonl", PreferencePair)}
    sampled = list(_records(folder / "3-sample" / "pairs.jsonl", ResponsePair))
    known = {pair.id for pair in sampled}
    sampled += [
        ResponsePair(p.id, p.prompt, p.response_a, p.response_b) for p in preferences.values() if p.id not in known
    ]
    weights = {p.id: p.weight for p in constitution.principles} if constitution else {}
    asked = dict.fromkeys(j.principle_id for j in judgments if j.principle_id is not None)
    principle_ids = tuple(weights) or tuple(asked)
    held_out = {row["id"]: row["margin"] for row in _rows(folder / "5-reward" / "held_out.jsonl", ("id", "margin"))}
    label_P = np.array([log_odds(preferences[p.id].p_a) if p.id in preferences else np.nan for p in sampled])
    gold_P, attributes = _read_by_gold(sampled, gold)
    return Pairs(
        tuple(sampled),
        principle_ids,
        np.array([weights.get(id, 1.0) for id in principle_ids]),
        gold_P,
        _levels(sampled, principle_ids, gold),
        label_P,
        _judged(sampled, principle_ids, judgments),
        np.array([held_out.get(p.id, np.nan) for p in sampled]),
        attributes,
        cluster_index([p.prompt.messages for p in sampled]),
    )


def _rows(path: Path, keys: Sequence[str]) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        return
    for number, row in read_rows(path):
        missing = [key for key in keys if key not in row]
        if missing:
            raise DataError(f"{path}:{number}: no {missing[0]!r}: mend or delete this line")
        yield row


def _judged(pairs: Sequence[ResponsePair], principle_ids: Sequence[str], judgments: Sequence[Judgment]) -> Array:
    """Log-odds per pair, principle and order; of a committee, the mean over its members that answered."""
    sum_PKO = np.zeros((len(pairs), len(principle_ids), 2))
    count_PKO = np.zeros_like(sum_PKO)
    rows = {pair.id: row for row, pair in enumerate(pairs)}
    columns = {id: column for column, id in enumerate(principle_ids)}
    for judgment in judgments:
        row, column = rows.get(judgment.pair_id), columns.get(judgment.principle_id or "")
        if judgment.p_a is not None and row is not None and column is not None:
            place = row, column, int(judgment.order == "ba")
            sum_PKO[place] += log_odds(judgment.p_a)
            count_PKO[place] += 1
    return np.where(count_PKO > 0, sum_PKO / np.maximum(count_PKO, 1), np.nan)


def _read_by_gold(pairs: Sequence[ResponsePair], gold: Gold | None) -> tuple[Array, Features]:
    """Gold differences, and differences in what the gold reads."""
    if gold is None:
        return np.full(len(pairs), np.nan), Features((), np.zeros((len(pairs), 0)))
    read = [(gold.read(p.prompt, p.response_a), gold.read(p.prompt, p.response_b)) for p in pairs]
    gold_P = [np.nan if a.gold is None or b.gold is None else a.gold - b.gold for a, b in read]
    counted = [(attributes_of(a), attributes_of(b)) for a, b in read]
    names = tuple(dict.fromkeys(name for a, b in counted for name in (*a, *b)))
    values_PF = np.array([[a.get(n, 0.0) - b.get(n, 0.0) for n in names] for a, b in counted])
    return np.round(np.array(gold_P), 9), Features(names, values_PF.reshape(len(pairs), len(names)))


def attributes_of(reading: Reading) -> dict[str, float]:
    """What a reading says of one response, as numbers: its attributes, and its flags where no attribute has their name."""
    flags = {name: getattr(reading, name) for name in FLAGS if name not in reading.attributes}
    return {**reading.attributes, **{name: float(value) for name, value in flags.items() if value is not None}}


def _levels(pairs: Sequence[ResponsePair], principle_ids: Sequence[str], gold: Gold | None) -> Array:
    level_PK = np.full((len(pairs), len(principle_ids)), np.nan)
    if gold is None:
        return level_PK
    for row, pair in enumerate(pairs):
        for column, id in enumerate(principle_ids):
            a, b = (gold.keeps(pair.prompt, text, id) for text in (pair.response_a, pair.response_b))
            if a is not None and b is not None:
                level_PK[row, column] = a - b
    return level_PK


def _policies(folder: Path, last_step: int) -> tuple[dict[str, list[EvaluatedResponse]], dict[str, int]]:
    """Responses of the reference, the checkpoints and the trained policy, in the order of training."""
    names = {path.stem for path in folder.glob("*.jsonl")}
    steps = {name: int(name.removeprefix("rl-step-")) for name in names if name.removeprefix("rl-step-").isdigit()}
    if "sl-cai" in names:
        steps["sl-cai"] = 0
    elif "initial" in names:  # reinforcement learning alone starts from the helpful model
        steps["initial"] = 0
    if "rl-cai" in names:
        steps["rl-cai"] = max(last_step, max(steps.values(), default=0) + 1)
    ordered = sorted(steps, key=lambda name: steps[name])
    return {name: list(_records(folder / f"{name}.jsonl", EvaluatedResponse)) for name in ordered}, steps
