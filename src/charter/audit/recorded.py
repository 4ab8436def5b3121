"""Do the files of a run fit together? Labels are rebuilt from their judgments, and responses read again by the gold.

A file that was changed is no fault of a link. What differs is a finding about the files, and the links are then measured on
what was rebuilt, or read again, here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charter.audit.evidence import FLAGS, NO_GOLD, Evidence
from charter.audit.figures import LABELER, POLICY, RECORD, Finding, figure
from charter.config import AnyLabeler, CheckerConfig, CommitteeConfig, HumanConfig, LabelConfig, RunConfig
from charter.constitution.load import Constitution
from charter.errors import CharterError
from charter.labelers.combine import combine, log_odds
from charter.labelers.committee import combine_voices
from charter.records import Abstention, Judgment, Reading
from charter.run_file import load_run
from charter.statistics import counted, unknown

PREFERENCES = "4-label/preferences.jsonl"
EVALUATED = "7-evaluate"
SAME = 1e-6
MAX_READ = 20_000
"""Responses that the gold reads again; of more, so many are drawn evenly over the files."""

Combine = Callable[[Sequence[Judgment]], float | Abstention]


def run_config(folder: Path) -> tuple[RunConfig | None, str]:
    """The run file as settings, or why it can't be read as such."""
    try:
        return load_run(folder / "run.yaml"), ""
    except CharterError as error:
        return None, f"the run file isn't one of this version ({error})"


def combiner(config: AnyLabeler, constitution: Constitution | None) -> Combine:
    """How the labeler that ``config`` describes makes one label of a pair's judgments; no model is needed for it."""
    if isinstance(config, CommitteeConfig):
        members = {
            f"{number} {member.kind}": combiner(member, constitution) for number, member in enumerate(config.members, 1)
        }
        return lambda judgments: _of_committee(judgments, members, config)
    weights: dict[str | None, float] = defaultdict(lambda: 1.0)
    if isinstance(config, (HumanConfig, CheckerConfig)):
        return lambda judgments: combine(judgments, weights, 1.0)
    if config.principles == "all" and constitution is not None:
        weights.update({p.id: p.weight for p in constitution.principles})
    return lambda judgments: combine(judgments, weights, config.sharpness, config.min_log_odds)


def _of_committee(
    judgments: Sequence[Judgment], members: dict[str, Combine], config: CommitteeConfig
) -> float | Abstention:
    said = [own([j for j in judgments if j.labeler == name]) for name, own in members.items()]
    voices = [label for label in said if isinstance(label, float)]
    return combine_voices(voices, config.method) if voices else Abstention.UNDECIDED


def rebuilt_label(
    judgments: Sequence[Judgment], config: LabelConfig, constitution: Constitution | None
) -> float | None:
    """The label that the judgments of one pair amount to; None: none."""
    outcome = combiner(config.labeler, constitution)(judgments)
    return outcome if isinstance(outcome, float) and abs(outcome - 0.5) >= config.min_margin else None


def check_labels(evidence: Evidence) -> tuple[Evidence, dict[str, Any], list[Finding]]:
    """The evidence with every label as its judgments amount to, and what was found."""
    pairs = evidence.pairs
    config, why_not = run_config(evidence.folder)
    if not evidence.judgments or np.isnan(pairs.label_P).all():
        why_not = f"no labels in {PREFERENCES}, or no judgments behind them"
    if config is None or why_not:
        return evidence, figure(unknown(why_not), PREFERENCES), []
    rebuilt_P = np.full(len(pairs.pairs), np.nan)
    places = {pair.id: i for i, pair in enumerate(pairs.pairs)}
    for pair_id, group in itertools.groupby(evidence.judgments, lambda judgment: judgment.pair_id):
        label = rebuilt_label(list(group), config.label, evidence.constitution)
        if label is not None and pair_id in places:
            rebuilt_P[places[pair_id]] = log_odds(label)
    known_P = ~(np.isnan(pairs.label_P) & np.isnan(rebuilt_P))
    # in probabilities, as labels are written: 16 nats are cut off in both
    off_P = known_P & ~(np.abs(_p(pairs.label_P) - _p(rebuilt_P)) <= SAME)
    num, n = int(off_P.sum()), int(known_P.sum())
    size = counted(num, n)
    source = f"{PREFERENCES} against 4-label/judgments.jsonl"
    if not num:
        return evidence, figure(size, source), []
    says = (
        f"{num:,} of {n:,} labels aren't what the judgments amount to: {PREFERENCES} or judgments.jsonl was changed; the "
        "labeler is measured on the labels as rebuilt"
    )
    turned = float((np.nan_to_num(np.sign(pairs.label_P)) != np.nan_to_num(np.sign(rebuilt_P)))[known_P].mean())
    fault = Finding(RECORD, "record", PREFERENCES, size, "share of labels", 0.0, turned, says, of_link=LABELER)
    return (
        dataclasses.replace(evidence, pairs=dataclasses.replace(pairs, label_P=rebuilt_P)),
        figure(size, source),
        [fault],
    )


def _p(log_odds_P: Any) -> Any:
    return 1 / (1 + np.exp(-log_odds_P))


def check_readings(evidence: Evidence) -> tuple[Evidence, dict[str, Any], list[Finding]]:
    """The evidence with every reading as the gold gives it now, and what was found."""
    rows = [(name, i) for name, own in evidence.policies.items() for i in range(len(own))]
    if evidence.gold is None or not rows:
        return evidence, figure(unknown(NO_GOLD if rows else f"no responses in {EVALUATED}"), EVALUATED), []
    chosen = rows[:: -(-len(rows) // MAX_READ)]
    policies = {name: list(own) for name, own in evidence.policies.items()}
    off: list[str] = []
    for name, i in chosen:
        row = policies[name][i]
        read = evidence.gold.read(row.prompt, row.response)
        if _read_otherwise(row.reading, read):
            off.append(name)
            policies[name][i] = dataclasses.replace(row, reading=read)
    size = counted(len(off), len(chosen))
    source = f"{EVALUATED} against the gold"
    if not off:
        return evidence, figure(size, source), []
    files = ", ".join(f"{name}.jsonl" for name in dict.fromkeys(off))
    says = (
        f"{len(off):,} of {len(chosen):,} readings aren't what the gold says of the response ({EVALUATED}: {files}): they, the "
        "texts or the gold were changed; the policies are measured on what it says now"
    )
    turned = len(off) / len(chosen)
    fault = Finding(RECORD, "record", EVALUATED, size, "share of readings", 0.0, turned, says, of_link=POLICY)
    return dataclasses.replace(evidence, policies=policies), figure(size, source), [fault]


def _read_otherwise(recorded: Reading, read: Reading) -> bool:
    if recorded.gold is None or read.gold is None:
        return recorded.gold is not read.gold
    return abs(recorded.gold - read.gold) > SAME or any(getattr(recorded, f) != getattr(read, f) for f in FLAGS)
