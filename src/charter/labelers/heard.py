"""A constitution as the labeler hears it: which principles decide, always agree, oppose each other, and what none decides.

reads   run.yaml, constitution.yaml, 3-sample/pairs.jsonl, 4-label/judgments.jsonl

A principle decides a pair where its log-odds, averaged over both orders (and over the members of a committee), reach the
run file's ``min_log_odds``; an order that abstained leaves it unread. A finding needs at least ``FEWEST`` pairs that both
principles decide: "always agree" the whole interval at or above 0.95, "oppose" at most a quarter agreeing and the whole
interval under a half.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from charter.constitution.check import Finding
from charter.constitution.load import load_constitution
from charter.errors import StoreError
from charter.labelers.combine import averaged_log_odds, by_principle
from charter.records import Judgment, ResponsePair
from charter.run_file import load_run
from charter.statistics import proportion, unknown
from charter.store.jsonl import read_jsonl

FEWEST = 30
ALWAYS = 0.95
SELDOM = 0.25
Heard = dict[str, dict[str, float]]  # principle -> pair -> log-odds that A is better


def heard(run: Path) -> dict[str, Any]:
    """What the judgments of a run say about its constitution, as JSON; ``findings`` holds ``Finding``s.

    Keys: num_pairs, min_log_odds, principles[] {principle, num_read, decides}, agreements[] {principles, agreement},
    undecided (share of pairs that were read and that no principle decides), findings[].

    Raises:
        StoreError: no judgments there. CharterError: a file of the run is broken.
    """
    path = run / "4-label" / "judgments.jsonl"
    if not path.is_file():
        raise StoreError(f"{run}: no labels there yet (4-label/judgments.jsonl): check the path, or run it first")
    constitution = load_constitution(run / "constitution.yaml")
    floor = float(getattr(load_run(run / "run.yaml", missing_ok=True).label.labeler, "min_log_odds", 0.0))
    prompt_of = {pair.id: pair.prompt.id for pair in read_jsonl(run / "3-sample" / "pairs.jsonl", ResponsePair)}
    said = _said(path, [principle.id for principle in constitution.principles])
    decides = {id: {pair for pair, odds in own.items() if odds and abs(odds) >= floor} for id, own in said.items()}
    read = sorted(set().union(*said.values()))
    decided = set().union(*decides.values())
    agreements = [_agreement(a, b, said, decides, prompt_of) for a, b in combinations(said, 2)]
    undecided = proportion([pair not in decided for pair in read], [prompt_of.get(pair, pair) for pair in read])
    return {
        "num_pairs": len(read),
        "min_log_odds": floor,
        "principles": [
            {
                "principle": id,
                "num_read": len(own),
                "decides": proportion(
                    [pair in decides[id] for pair in own], [prompt_of.get(pair, pair) for pair in own]
                ).to_json(),
            }
            for id, own in said.items()
        ],
        "agreements": agreements,
        "undecided": undecided.to_json(),
        "findings": [*_silent(said, decides), *_related(agreements)],
    }


def _said(path: Path, ids: list[str]) -> Heard:
    by_pair: dict[str, list[Judgment]] = {}
    for judgment in read_jsonl(path, Judgment):
        by_pair.setdefault(judgment.pair_id, []).append(judgment)
    said: Heard = {id: {} for id in ids}
    for pair, judgments in by_pair.items():
        for id, own in by_principle(judgments).items():
            odds = averaged_log_odds(own)
            if id in said and odds is not None:
                said[id][pair] = odds
    return said


def _agreement(a: str, b: str, said: Heard, decides: dict[str, set[str]], prompt_of: dict[str, str]) -> dict[str, Any]:
    both = sorted(decides[a] & decides[b])
    same = [(said[a][pair] > 0) == (said[b][pair] > 0) for pair in both]
    found = (
        proportion(same, [prompt_of.get(pair, pair) for pair in both]) if both else unknown("no pair that both decide")
    )
    return {"principles": [a, b], "agreement": found.to_json()}


def _silent(said: Heard, decides: dict[str, set[str]]) -> Iterator[Finding]:
    for id, own in said.items():
        if not own:
            yield Finding("unread", (id,), f"{id} was read on no pair: it was not asked, or the labeler abstained")
        elif not decides[id]:
            yield Finding(
                "never decides",
                (id,),
                f"{id} decides none of {len(own):,} pairs: reword it, or sample pairs it is about",
            )


def _related(agreements: list[dict[str, Any]]) -> Iterator[Finding]:
    for row in agreements:
        (a, b), found = row["principles"], row["agreement"]
        if found["n"] < FEWEST or found["low"] is None:
            continue
        told = f"{found['value']:.0%} ({found['low']:.0%} to {found['high']:.0%}) of the {found['n']:,} pairs that both decide"
        if found["low"] >= ALWAYS:
            yield Finding(
                "always agree", (a, b), f"{a} and {b} agree on {told}: one may do, or their weights count double"
            )
        elif found["value"] <= SELDOM and found["high"] < 0.5:
            yield Finding(
                "oppose", (a, b), f"{a} and {b} agree on only {told}: say which goes first, by wording or weight"
            )
