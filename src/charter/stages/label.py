"""Label response pairs with a frozen labeler.

reads   3-sample/pairs.jsonl   ResponsePair
writes  check.json             is the labeler fit? (labelers/check)
        judgments.jsonl        Judgment: pair x principle x order, abstentions kept
        preferences.jsonl      PreferencePair: soft target p_a in [0, 1]
        members.jsonl          {pair_id, member, p_a, abstained}: the labels of a committee's members

Bai et al. 2022 (arXiv:2212.08073), section 4.1; how answers become labels, and the departures: labelers/combine.py.
Judgments are appended batch by batch. A killed stage goes on after the last whole batch, or at the first one in which an
answer failed that may come now; the ledger has the answers of what is done again. Labels and figures are read from the file
at the end, so that memory doesn't grow with the judgments.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from charter.config import LabelConfig
from charter.errors import CoverageError, UnfitLabelerError
from charter.labelers.check.cases import load_cases
from charter.labelers.check.verdict import check, controls, num_controls
from charter.labelers.checker import CheckerLabeler
from charter.labelers.combine import averaged_log_odds, by_question, follows_position
from charter.labelers.committee import CommitteeLabeler, summarize_members
from charter.labelers.human import HumanLabeler
from charter.labelers.protocol import Batched, Labeler
from charter.progress import Progress
from charter.records import Abstention, Estimate, Judgment, PreferencePair, ResponsePair
from charter.stages.chunks import Execute
from charter.stages.readings import Gold
from charter.statistics import mean, proportion, share, unknown
from charter.store.jsonl import JsonlAppender, cut_off, read_jsonl, read_spans, write_json, write_jsonl

STAGE = "label"
PASSING = (Abstention.ENDPOINT_FAILED, Abstention.REFUSED, Abstention.TRUNCATED)  # another try may give an answer
FEW_PAIRS, SURELY = 50, 3.9  # pairs before a labeler is stopped; standard errors below min_coverage
TIE = 0.005  # a label so near one half says 50 % in round numbers
NO_GOLD_APART = unknown("gold tells no two responses apart")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One pair, what was answered about it, and its soft label or the reason why there is none."""

    pair: ResponsePair
    judgments: list[Judgment]
    outcome: float | Abstention


def run(
    config: LabelConfig,
    folder: Path,
    *,
    pairs: Sequence[ResponsePair],
    labeler: Labeler,
    gold: Gold | None,
    progress: Progress,
    execute: Execute | None = None,
) -> dict[str, Any]:
    """Label every pair; return coverage, position bias and, where gold is known, accuracy.

    Args:
        execute: gives the judgments of chunks of pairs from elsewhere; the labeler here is then only checked.

    Raises:
        UnfitLabelerError: the check found the labeler unfit.
        CoverageError: fewer pairs than ``min_coverage`` got a label, or surely will; the judgments are on disk by then.
    """
    checked = _check(config, folder, labeler, pairs, progress)
    path, size = folder / "judgments.jsonl", config.labeler.batch_size
    progress.start(STAGE, len(pairs), "pairs")
    done = _resumed(path, pairs, size)
    progress.resume(done)
    with JsonlAppender(path) as appender:
        chunks = [pairs[start : start + size] for start in range(done, len(pairs), size)]
        made = map(partial(_judged, labeler), chunks) if execute is None else execute(chunks)
        answered = Answered(config.min_coverage)
        for chunk, judgments in zip(chunks, made, strict=True):
            appender.append(judgments)
            progress.advance(len(chunk))
            if not isinstance(labeler, (HumanLabeler, CheckerLabeler)):  # who cost nothing here
                answered.add(len(chunk), [row if isinstance(row, Judgment) else _read(row) for row in judgments])
    figures, preferences, members = _Figures(gold, config.labeler.min_log_odds), [], {}
    for row in _labelled(path, pairs, labeler, config):
        figures.add(row)
        if isinstance(row.outcome, float):
            preferences.append(_preference(row, labeler))
        if isinstance(labeler, CommitteeLabeler):
            members[row.pair.id] = labeler.member_labels(row.judgments)
    _check_coverage(figures, config.min_coverage)
    write_jsonl(folder / "preferences.jsonl", preferences)
    return {**figures.to_json(), **_members(members, folder), "check": checked}


@dataclass
class Answered:
    """Stops a labeler that hardly ever answers before all is paid for: pairs come in an order drawn by chance."""

    min_coverage: float
    num_pairs: int = 0
    num_answered: int = 0

    def add(self, num_pairs: int, judgments: Sequence[Judgment]) -> None:
        """Count a batch; a pair with one verdict may get a label.

        Raises:
            CoverageError: so few have a verdict that ``min_coverage`` is out of reach, but for one chance in 10,000.
        """
        self.num_pairs += num_pairs
        self.num_answered += len({judgment.pair_id for judgment in judgments if judgment.p_a is not None})
        share, n = self.num_answered / self.num_pairs, self.num_pairs
        if (
            n < FEW_PAIRS
            or share + SURELY * math.sqrt(self.min_coverage * (1 - self.min_coverage) / n) >= self.min_coverage
        ):
            return
        reasons = Counter(judgment.abstained.value for judgment in judgments if judgment.abstained)
        counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        raise CoverageError(
            f"label: stopped early: the labeler gave a verdict on {self.num_answered} of the first {n} pairs, and min_coverage is "
            f"{self.min_coverage:.0%} (judgments of the last batch: {counted}): read 4-label/judgments.jsonl, then mend or change "
            "the labeler, or lower label.min_coverage"
        )


def _read(row: Any) -> Judgment:
    return Judgment.from_json(row)  # another process gives JSON


def _judged(labeler: Labeler, pairs: Sequence[ResponsePair]) -> list[Judgment]:
    return [judgment for judgments in labeler.label(pairs) for judgment in judgments]


def _resumed(path: Path, pairs: Sequence[ResponsePair], size: int) -> int:
    """How many pairs need not be judged again; what stands in the file of the others is cut off.

    The last batch may be torn, and a batch with an answer that failed is tried again, with all that follow it.
    """
    if not path.is_file():
        return 0
    batch_of = {pair.id: place // size for place, pair in enumerate(pairs)}
    batch, begin = -1, 0
    for offset, row in read_spans(path, "pair_id", PASSING):
        own = batch_of.get(str(row.get("pair_id")))
        if own is None or own < batch:
            break
        if own > batch:
            batch, begin = own, offset
        if row.get("abstained") in PASSING:
            break
    cut_off(path, begin)
    return max(0, batch) * size


def _labelled(path: Path, pairs: Sequence[ResponsePair], labeler: Labeler, config: LabelConfig) -> Iterator[Labelled]:
    """Every pair with what stands in the file about it."""
    by_id = {pair.id: pair for pair in pairs}
    for pair_id, group in itertools.groupby(read_jsonl(path, Judgment), lambda judgment: judgment.pair_id):
        own = list(group)
        yield Labelled(by_id.pop(pair_id), own, _outcome(own, labeler, config))
    for pair in by_id.values():  # nobody was asked
        yield Labelled(pair, [], _outcome([], labeler, config))


def _check(
    config: LabelConfig, folder: Path, labeler: Labeler, pairs: Sequence[ResponsePair], progress: Progress
) -> dict[str, Any]:
    """Check the labeler on known pairs and controls before anything is spent on labels.

    Raises:
        UnfitLabelerError: it is unfit, and the run file says stop; check.json is there by then.
    """
    found: dict[str, Any] = {"verdict": None, "controls": {}}
    if isinstance(labeler, (HumanLabeler, CheckerLabeler)):
        return {**found, "reason": "people and checkers are not checked here"}
    labeler, wanted = Batched(labeler, config.labeler.batch_size), config.check
    if count := num_controls(wanted, len(pairs)):
        found["controls"] = controls(labeler, pairs[:count])
    if wanted.pairs is None:
        found["reason"] = "no pairs with a known answer (label.check.pairs)"
    else:
        found |= check(labeler, load_cases(wanted.pairs, wanted.num_pairs), wanted)
    write_json(folder / "check.json", found)
    fitness = found["verdict"]
    if fitness is not None:
        progress.say(f"labeler: {fitness['fitness']}")
        if fitness["unfit"] and config.check.on_unfit == "stop":
            raise UnfitLabelerError(
                f"label: the labeler is unfit: {'; '.join(fitness['unfit'])}: read 4-label/check.json, choose another labeler, "
                "or set label.check.on_unfit to warn"
            )
    return found


def _outcome(judgments: Sequence[Judgment], labeler: Labeler, config: LabelConfig) -> float | Abstention:
    outcome = labeler.combine(judgments)
    if isinstance(outcome, float) and abs(outcome - 0.5) < config.min_margin:
        return Abstention.UNDECIDED
    return outcome


def _members(said: dict[str, dict[str, float | Abstention]], folder: Path) -> dict[str, Any]:
    """A committee's members, each with its own labels on disk, and how far they agree; nothing for other labelers."""
    if not said:
        return {}
    write_jsonl(
        folder / "members.jsonl",
        (
            {
                "pair_id": pair_id,
                "member": name,
                "p_a": label if isinstance(label, float) else None,
                "abstained": label.value if isinstance(label, Abstention) else None,
            }
            for pair_id, own in said.items()
            for name, label in own.items()
        ),
    )
    return {"committee": summarize_members(said)}


def _preference(row: Labelled, labeler: Labeler) -> PreferencePair:
    assert isinstance(row.outcome, float)
    used = [id for (_, id), own in by_question(row.judgments).items() if averaged_log_odds(own) is not None]
    principle_ids = tuple(dict.fromkeys(id for id in used if id is not None))
    pair = row.pair
    return PreferencePair(
        pair.id, pair.prompt, pair.response_a, pair.response_b, row.outcome, principle_ids, labeler.name
    )


def _check_coverage(figures: _Figures, min_coverage: float) -> None:
    num_labels, num_pairs = len(figures.soft), figures.num_pairs
    if num_labels > 0 and num_labels >= min_coverage * num_pairs:
        return
    counted = ", ".join(f"{reason} {count}" for reason, count in figures.reasons.most_common())
    raise CoverageError(
        f"label: {num_labels} of {num_pairs} pairs got a label, below min_coverage {min_coverage:.0%} "
        f"({counted or 'no pairs'}): read 4-label/judgments.jsonl, then mend or change the labeler, or lower label.min_coverage"
    )


def summarize(labelled: Iterable[Labelled], gold: Gold | None, min_log_odds: float = 0.0) -> dict[str, Any]:
    """Figures about the labeler, each an Estimate as JSON."""
    figures = _Figures(gold, min_log_odds)
    for row in labelled:
        figures.add(row)
    return figures.to_json()


@dataclass
class _Figures:
    """What is counted about the labeler, pair by pair; no judgment is kept."""

    gold: Gold | None
    min_log_odds: float = 0.0
    num_pairs: int = 0
    num_judgments: int = 0
    num_tokens: int = 0
    soft: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    abstained: Counter[str] = field(default_factory=Counter)
    stays: list[bool] = field(default_factory=list)
    stays_of: list[str] = field(default_factory=list)
    decides: list[bool] = field(default_factory=list)
    hits: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    agreed: list[tuple[str, float]] = field(default_factory=list)

    def add(self, row: Labelled) -> None:
        """Count one pair."""
        self.num_pairs += 1
        self.num_judgments += len(row.judgments)
        self.num_tokens += sum(j.num_prompt_tokens + j.num_completion_tokens for j in row.judgments)
        self.abstained.update(j.abstained.value for j in row.judgments if j.abstained)
        for (_, principle_id), own in by_question(row.judgments).items():
            stayed = follows_position(own)
            if stayed is not None:
                self.stays.append(stayed)
                self.stays_of.append(row.pair.id)
                self.decides.append(abs(averaged_log_odds(own) or 0.0) >= self.min_log_odds)
            hit = None if self.gold is None else _hit(row.pair, principle_id, own, self.gold)
            if principle_id is not None and hit is not None:
                self.hits.setdefault(principle_id, []).append((row.pair.id, hit))
        if isinstance(row.outcome, float):
            self.soft.append(row.outcome)
            self.agreed += [] if self.gold is None else _agreement(row.pair, row.outcome, self.gold)
        else:
            self.reasons[row.outcome.value] += 1

    def to_json(self) -> dict[str, Any]:
        """As in the stage's summary."""
        bias = proportion(self.stays, self.stays_of) if self.stays else unknown("no pair was judged in both orders")
        weighed = [place for place, yes in enumerate(self.decides) if yes]
        deciding = (
            proportion([self.stays[i] for i in weighed], [self.stays_of[i] for i in weighed])
            if weighed
            else unknown("no question reached min_log_odds in both orders")
        )
        return {
            "num_pairs": self.num_pairs,
            "num_labels": len(self.soft),
            "num_ties": sum(abs(p - 0.5) < TIE for p in self.soft),
            "num_judgments": self.num_judgments,
            "num_tokens": self.num_tokens,
            "coverage": _coverage(len(self.soft), self.num_pairs).to_json(),
            "abstentions": dict(self.reasons),
            "abstained_judgments": dict(self.abstained),
            "position_bias": bias.to_json(),
            "position_bias_deciding": deciding.to_json(),  # of the questions that reach min_log_odds, and so weigh
            "p_a": mean(self.soft).to_json(),
            "confidence": mean([max(p, 1 - p) for p in self.soft]).to_json(),
            **self._against_gold(),
        }

    def _against_gold(self) -> dict[str, Any]:
        if self.gold is None:
            none = unknown("no gold is named in the run file (evaluate.gold)").to_json()
            return {"accuracy": none, "accuracy_by_principle": {}, "gold_agreement": none}
        every = [pair for own in self.hits.values() for pair in own]
        return {
            "accuracy": _accuracy(every).to_json(),
            "accuracy_by_principle": {key: _accuracy(self.hits[key]).to_json() for key in sorted(self.hits)},
            "gold_agreement": _accuracy(self.agreed).to_json() if self.agreed else NO_GOLD_APART.to_json(),
        }


def _coverage(num_labels: int, num_pairs: int) -> Estimate:
    return proportion([True] * num_labels + [False] * (num_pairs - num_labels))


def _hit(pair: ResponsePair, principle_id: str | None, judgments: Sequence[Judgment], gold: Gold) -> float | None:
    """1 where the verdict is that of a perfect reader of the principle, 0.5 where it is undecided; None: no verdict to find."""
    verdict = averaged_log_odds(judgments)
    if principle_id is None or verdict is None:
        return None
    level_a = gold.keeps(pair.prompt, pair.response_a, principle_id)
    level_b = gold.keeps(pair.prompt, pair.response_b, principle_id)
    if level_a is None or level_b is None or level_a == level_b:
        return None
    return 0.5 if verdict == 0 else float((verdict > 0) == (level_a > level_b))


def _accuracy(hits: Sequence[tuple[str, float]]) -> Estimate:
    """Share of right verdicts, clustered by pair; Wilson where none is undecided."""
    clusters, values = [pair_id for pair_id, _ in hits], [value for _, value in hits]
    if not hits:
        return unknown("gold tells no two responses apart by a principle of the constitution")
    return share(values, clusters)


def _agreement(pair: ResponsePair, p_a: float, gold: Gold) -> list[tuple[str, float]]:
    """Whether the combined label prefers the response with the higher gold score; nothing where gold has no preference."""
    a, b = gold.read(pair.prompt, pair.response_a).gold, gold.read(pair.prompt, pair.response_b).gold
    if a is None or b is None or a == b:
        return []
    return [(pair.id, 0.5 if p_a == 0.5 else float((p_a > 0.5) == (a > b)))]
