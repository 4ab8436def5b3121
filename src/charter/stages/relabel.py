"""What another constitution would change about the labels of a finished run, and what each principle is worth to them.

reads   run.yaml, constitution.yaml, 3-sample/pairs.jsonl, 4-label/{judgments,preferences}.jsonl
        ledger.sqlite    answered questions are not asked again; new answers are added

An estimate: the same pairs are labelled anew. In a new run the revisions, and with them the pairs, would be others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import RunConfig
from charter.constitution.load import Constitution, load_constitution
from charter.errors import LabelerError, StoreError
from charter.labelers.committee import CommitteeLabeler
from charter.labelers.make import make_labeler
from charter.progress import Progress
from charter.records import Estimate, Judgment, PreferencePair, ResponsePair
from charter.run_file import load_run
from charter.stages.inputs import load_gold
from charter.stages.labeler_models import LabelerModels
from charter.stages.readings import Gold
from charter.statistics import mean, proportion, share, unknown
from charter.store.folder import RunFolder
from charter.store.jsonl import read_jsonl
from charter.store.ledger import Ledger
from charter.store.whole import rewriting

Labels = dict[str, float]
NUM_EXAMPLES = 5


def relabel(run: Path, constitution: Constitution, progress: Progress) -> dict[str, Any]:
    """Label a finished run's pairs by another constitution.

    Returns:
        num_pairs, num_asked (questions that were not in the ledger), flipped (share of the pairs that both label),
        gained, lost (counts), gold_before, gold_after (agreement with gold), examples[].

    Raises:
        StoreError: no labels there, or another process works in the run.
        CharterError: something that the run names is gone.
    """
    config, pairs, before = _read(run)
    gold = load_gold(config.evaluate.gold)
    after: Labels = {}
    batch = config.label.labeler.batch_size
    path = run / "ledger.sqlite"
    with RunFolder.open(run), rewriting(run, path.name), Ledger(path) as ledger, LabelerModels(ledger) as models:
        labeler = make_labeler(config.label.labeler, models, constitution, config.seed)
        progress.start("relabel", len(pairs), "pairs")
        for begin in range(0, len(pairs), batch):
            chunk = pairs[begin : begin + batch]
            for pair, judged in zip(chunk, labeler.label(chunk), strict=True):
                label = labeler.combine(judged)
                if isinstance(label, float) and abs(label - 0.5) >= config.label.min_margin:
                    after[pair.id] = label
            progress.advance(len(chunk))
        num_asked = models.num_asked
    both = [pair for pair in pairs if pair.id in before and pair.id in after]
    flipped = [pair for pair in both if (before[pair.id] > 0.5) != (after[pair.id] > 0.5)]
    return {
        "num_pairs": len(pairs),
        "num_asked": num_asked,
        "flipped": proportion([pair in flipped for pair in both], [pair.prompt.id for pair in both]).to_json(),
        "gained": sum(pair.id in after and pair.id not in before for pair in pairs),
        "lost": sum(pair.id in before and pair.id not in after for pair in pairs),
        "gold_before": _gold_agreement(pairs, before, gold).to_json(),
        "gold_after": _gold_agreement(pairs, after, gold).to_json(),
        "examples": [
            {"pair": pair.to_json(), "before": before[pair.id], "after": after[pair.id]}
            for pair in flipped[:NUM_EXAMPLES]
        ],
    }


def worth(run: Path) -> dict[str, Any]:
    """What each principle buys: the labels without it, from the judgments that are there; nothing is asked.

    Returns:
        gold_agreement of all principles, and principles[] {principle, weight, decides (share of pairs on which it alone
        reaches min_log_odds), flipped, lost (share of labels that go without it), gold_gain (agreement with gold with it
        minus without it, on the same pairs)}.

    Raises:
        StoreError: no labels there. LabelerError: a committee, whose principles are its members'.
    """
    config, pairs, _ = _read(run)
    gold = load_gold(config.evaluate.gold)
    constitution = load_constitution(run / "constitution.yaml")
    judged: dict[str, list[Judgment]] = {pair.id: [] for pair in pairs}
    for row in read_jsonl(run / "4-label" / "judgments.jsonl", Judgment):
        judged.setdefault(row.pair_id, []).append(row)

    def no_model(model: Any) -> Any:
        return _Nobody()

    labeler = make_labeler(config.label.labeler, no_model, constitution, config.seed)
    if isinstance(labeler, CommitteeLabeler):
        raise LabelerError(
            f"{run}: labelled by a committee: its principles are its members', give a run of one labeler"
        )

    def labels(without: str | None) -> Labels:
        found = {}
        for pair_id, own in judged.items():
            label = labeler.combine([j for j in own if without is None or j.principle_id != without])
            if isinstance(label, float):
                found[pair_id] = label
        return found

    whole = labels(None)
    asked = [p for p in constitution.principles if any(j.principle_id == p.id for own in judged.values() for j in own)]
    return {
        "num_pairs": len(pairs),
        "num_labels": len(whole),
        "gold_agreement": _gold_agreement(pairs, whole, gold).to_json(),
        "principles": [
            {"principle": p.id, "weight": p.weight, **_without(pairs, whole, labels(p.id), gold)} for p in asked
        ],
    }


class _Nobody:
    """A model that is not needed: judgments are read, none is made."""

    name = fingerprint = "nobody"


def _read(run: Path) -> tuple[RunConfig, list[ResponsePair], Labels]:
    if not (run / "4-label" / "done.json").is_file():
        raise StoreError(f"{run}: no finished labels there (4-label): check the path, or run it first")
    config = load_run(run / "run.yaml", missing_ok=True)
    pairs = list(read_jsonl(run / "3-sample" / "pairs.jsonl", ResponsePair))
    labels = {row.id: row.p_a for row in read_jsonl(run / "4-label" / "preferences.jsonl", PreferencePair)}
    return config, pairs, labels


def _without(pairs: Sequence[ResponsePair], whole: Labels, left: Labels, gold: Gold | None) -> dict[str, Any]:
    labelled = [pair for pair in pairs if pair.id in whole]
    clusters = [pair.prompt.id for pair in labelled]
    flips = [pair.id in left and (left[pair.id] > 0.5) != (whole[pair.id] > 0.5) for pair in labelled]
    return {
        "flipped": proportion(flips, clusters).to_json(),
        "lost": proportion([pair.id not in left for pair in labelled], clusters).to_json(),
        "gold_gain": _gain(labelled, whole, left, gold).to_json(),
    }


def _gain(pairs: Sequence[ResponsePair], whole: Labels, left: Labels, gold: Gold | None) -> Estimate:
    """A pair without a label counts half: nothing is known of it."""
    gains, clusters = [], []
    for pair in pairs:
        with_it = _hit(pair, whole.get(pair.id, 0.5), gold)
        if with_it is not None:
            gains.append(with_it - (_hit(pair, left.get(pair.id, 0.5), gold) or 0.0))
            clusters.append(pair.prompt.id)
    return mean(gains, clusters) if gains else unknown("no gold, or it tells no two responses apart")


def _gold_agreement(pairs: Sequence[ResponsePair], labels: Labels, gold: Gold | None) -> Estimate:
    hits = [(pair.prompt.id, _hit(pair, labels[pair.id], gold)) for pair in pairs if pair.id in labels]
    known = [(cluster, hit) for cluster, hit in hits if hit is not None]
    if not known:
        return unknown("no gold, or it tells no two responses apart")
    return share([hit for _, hit in known], [cluster for cluster, _ in known])


def _hit(pair: ResponsePair, p_a: float, gold: Gold | None) -> float | None:
    """1 where the label prefers the response with the higher gold, 0.5 where it prefers none."""
    if gold is None:
        return None
    a, b = (gold.read(pair.prompt, text).gold for text in (pair.response_a, pair.response_b))
    if a is None or b is None or a == b:
        return None
    return 0.5 if p_a == 0.5 else float((p_a > 0.5) == (a > b))
