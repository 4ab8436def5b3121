"""Label response pairs with a frozen labeler.

reads   3-sample/pairs.jsonl   ResponsePair
writes  check.json             is the labeler fit? (labelers/check)
        judgments.jsonl        Judgment: pair x principle x order, abstentions kept
        preferences.jsonl      PreferencePair: soft target p_a in [0, 1]
        members.jsonl          {pair_id, member, p_a, abstained}: the labels of a committee's members

Bai et al. 2022 (arXiv:2212.08073), section 4.1; how answers become labels, and the departures: labelers/combine.py.
Answers lie in the run's ledger, so that a killed stage begins its files anew and asks nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.config import CheckConfig, LabelConfig
from charter.errors import CoverageError, UnfitLabelerError
from charter.labelers.check.cases import load_cases
from charter.labelers.check.verdict import check, controls
from charter.labelers.checker import CheckerLabeler
from charter.labelers.combine import averaged_log_odds, by_question, follows_position
from charter.labelers.committee import CommitteeLabeler, summarize_members
from charter.labelers.human import HumanLabeler
from charter.labelers.protocol import Labeler
from charter.progress import Progress
from charter.records import Abstention, Estimate, Judgment, PreferencePair, ResponsePair
from charter.stages.readings import Gold
from charter.statistics import mean, proportion, share, unknown
from charter.store.jsonl import JsonlAppender, write_json, write_jsonl

STAGE = "label"


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
) -> dict[str, Any]:
    """Label every pair; return coverage, position bias and, where gold is known, accuracy.

    Raises:
        UnfitLabelerError: the check found the labeler unfit.
        CoverageError: fewer pairs than ``min_coverage`` got a label; the judgments are on disk by then.
    """
    checked = _check(config.check, folder, labeler, pairs, progress)
    judgments_file = folder / "judgments.jsonl"
    judgments_file.unlink(missing_ok=True)
    labelled: list[Labelled] = []
    progress.start(STAGE, len(pairs), "pairs")
    with JsonlAppender(judgments_file) as appender:
        for start in range(0, len(pairs), config.labeler.batch_size):
            chunk = pairs[start : start + config.labeler.batch_size]
            judged = labeler.label(chunk)
            appender.append([judgment for judgments in judged for judgment in judgments])
            labelled += [
                Labelled(pair, own, _outcome(own, labeler, config)) for pair, own in zip(chunk, judged, strict=True)
            ]
            progress.advance(len(chunk))
    preferences = [_preference(row, labeler) for row in labelled if isinstance(row.outcome, float)]
    _check_coverage(labelled, len(preferences), config.min_coverage)
    write_jsonl(folder / "preferences.jsonl", preferences)
    return {**summarize(labelled, gold), **_members(labelled, labeler, folder), "check": checked}


def _check(
    config: CheckConfig, folder: Path, labeler: Labeler, pairs: Sequence[ResponsePair], progress: Progress
) -> dict[str, Any]:
    """Check the labeler on known pairs and controls before anything is spent on labels.

    Raises:
        UnfitLabelerError: it is unfit, and the run file says stop; check.json is there by then.
    """
    found: dict[str, Any] = {"verdict": None, "controls": {}}
    if isinstance(labeler, (HumanLabeler, CheckerLabeler)):
        return {**found, "reason": "people and checkers are not checked here"}
    if config.num_controls:
        found["controls"] = controls(labeler, pairs[: config.num_controls])
    if config.pairs is None:
        found["reason"] = "no pairs with a known answer (label.check.pairs)"
    else:
        found |= check(labeler, load_cases(config.pairs, config.num_pairs), config)
    write_json(folder / "check.json", found)
    fitness = found["verdict"]
    if fitness is not None:
        progress.say(f"labeler: {fitness['fitness']}")
        if fitness["unfit"] and config.on_unfit == "stop":
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


def _members(labelled: Sequence[Labelled], labeler: Labeler, folder: Path) -> dict[str, Any]:
    """A committee's members, each with its own labels on disk, and how far they agree."""
    if not isinstance(labeler, CommitteeLabeler):
        return {}
    said = {row.pair.id: labeler.member_labels(row.judgments) for row in labelled}
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


def _check_coverage(labelled: Sequence[Labelled], num_labels: int, min_coverage: float) -> None:
    if num_labels > 0 and num_labels >= min_coverage * len(labelled):
        return
    counted = ", ".join(f"{reason} {count}" for reason, count in _reasons(labelled).most_common())
    raise CoverageError(
        f"label: {num_labels} of {len(labelled)} pairs got a label, below min_coverage {min_coverage:.0%} "
        f"({counted or 'no pairs'}): read 4-label/judgments.jsonl, then mend or change the labeler, or lower label.min_coverage"
    )


def _reasons(labelled: Sequence[Labelled]) -> Counter[str]:
    return Counter(row.outcome.value for row in labelled if isinstance(row.outcome, Abstention))


def summarize(labelled: Sequence[Labelled], gold: Gold | None) -> dict[str, Any]:
    """Figures about the labeler, each an Estimate as JSON."""
    covered = proportion([isinstance(row.outcome, float) for row in labelled])
    soft = [row.outcome for row in labelled if isinstance(row.outcome, float)]
    return {
        "num_pairs": len(labelled),
        "num_labels": len(soft),
        "num_judgments": sum(len(row.judgments) for row in labelled),
        "num_tokens": sum(j.num_prompt_tokens + j.num_completion_tokens for row in labelled for j in row.judgments),
        "coverage": covered.to_json(),
        "abstentions": dict(_reasons(labelled)),
        "abstained_judgments": dict(
            Counter(j.abstained.value for row in labelled for j in row.judgments if j.abstained)
        ),
        "position_bias": _position_bias(labelled).to_json(),
        "p_a": mean(soft).to_json(),
        "confidence": mean([max(p, 1 - p) for p in soft]).to_json(),
        **_against_gold(labelled, gold),
    }


def _position_bias(labelled: Sequence[Labelled]) -> Estimate:
    stays, clusters = [], []
    for row in labelled:
        for own in by_question(row.judgments).values():
            stayed = follows_position(own)
            if stayed is not None:
                stays.append(stayed)
                clusters.append(row.pair.id)
    return proportion(stays, clusters) if stays else unknown("no pair was judged in both orders")


def _against_gold(labelled: Sequence[Labelled], gold: Gold | None) -> dict[str, Any]:
    if gold is None:
        none = unknown("no gold is named in the run file (evaluate.gold)").to_json()
        return {"accuracy": none, "accuracy_by_principle": {}, "gold_agreement": none}
    hits: dict[str, list[tuple[str, float]]] = {}
    for row in labelled:
        for (_, principle_id), own in by_question(row.judgments).items():
            hit = _hit(row.pair, principle_id, own, gold)
            if principle_id is not None and hit is not None:
                hits.setdefault(principle_id, []).append((row.pair.id, hit))
    every = [pair for own in hits.values() for pair in own]
    return {
        "accuracy": _accuracy(every).to_json(),
        "accuracy_by_principle": {key: _accuracy(hits[key]).to_json() for key in sorted(hits)},
        "gold_agreement": _gold_agreement(labelled, gold).to_json(),
    }


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


def _gold_agreement(labelled: Sequence[Labelled], gold: Gold) -> Estimate:
    """How often the combined label prefers the response with the higher gold score."""
    hits = []
    for row in labelled:
        if not isinstance(row.outcome, float):
            continue
        a = gold.read(row.pair.prompt, row.pair.response_a).gold
        b = gold.read(row.pair.prompt, row.pair.response_b).gold
        if a is not None and b is not None and a != b:
            hits.append((row.pair.id, 0.5 if row.outcome == 0.5 else float((row.outcome > 0.5) == (a > b))))
    return _accuracy(hits) if hits else unknown("gold tells no two responses apart")
