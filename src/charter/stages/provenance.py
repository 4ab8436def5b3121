"""From one pair back to everything that led to its label.

reads   run.yaml, constitution.yaml, 3-sample/pairs.jsonl, 4-label/{judgments,preferences}.jsonl, ledger.sqlite
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charter.config import AnyLabeler, ModelConfig
from charter.constitution.load import load_constitution
from charter.errors import DataError, StoreError
from charter.labelers.combine import averaged_log_odds, by_question
from charter.labelers.make import make_labeler, min_log_odds
from charter.labelers.replay import ReplayedModel
from charter.models.endpoint import endpoint_fingerprint, is_endpoint
from charter.models.load import fingerprint, model_folder, public_model_name
from charter.records import Abstention, Judgment, PreferencePair, ResponsePair
from charter.run_file import load_run
from charter.store.jsonl import read_jsonl
from charter.store.ledger import Ledger


def provenance(run: Path, pair_id: str) -> dict[str, Any]:
    """Pair, judgments, label and every question as it was asked, as JSON.

    Keys: pair, label (p_a or null), rebuilt (what the judgments amount to), abstained, labeler,
    principles[] {labeler, principle, weight, log_odds, min_log_odds, counts, p_ab, p_ba},
    judgments[], questions[] (model, conversation, and prefill, options, logprobs, or reply), num_tokens.

    Raises:
        DataError: no such pair. StoreError: no run folder, or labels are not made yet.
        CharterError: the run file can't be read, or names something that is gone.
    """
    if not (run / "4-label" / "judgments.jsonl").is_file():
        raise StoreError(f"{run}: no labels there yet (4-label/judgments.jsonl): check the path, or run it first")
    pair = _pair(run, pair_id)
    config = load_run(run / "run.yaml", missing_ok=True)
    constitution = load_constitution(run / "constitution.yaml")
    judgments = [row for row in read_jsonl(run / "4-label" / "judgments.jsonl", Judgment) if row.pair_id == pair.id]
    stored = next((p for p in _records(run / "4-label" / "preferences.jsonl", PreferencePair) if p.id == pair.id), None)
    heard: list[dict[str, Any]] = []
    with Ledger(run / "ledger.sqlite") as ledger:

        def replayed(model: ModelConfig) -> ReplayedModel:
            known = endpoint_fingerprint(model.source) if is_endpoint(model.source) else _folder_fingerprint(model)
            return ReplayedModel(public_model_name(model.source, known), known, ledger, heard)

        labeler = make_labeler(config.label.labeler, replayed, constitution, config.seed)
        labeler.label([pair])
    outcome = labeler.combine(judgments)
    if isinstance(outcome, float) and abs(outcome - 0.5) < config.label.min_margin:
        outcome = Abstention.UNDECIDED
    rebuilt = outcome if isinstance(outcome, float) else None
    weights = {principle.id: principle.weight for principle in constitution.principles}
    return {
        "pair": pair.to_json(),
        "label": stored.p_a if stored else None,
        "rebuilt": rebuilt,
        "abstained": None if stored else outcome.value if isinstance(outcome, Abstention) else "no label is on disk",
        "labeler": labeler.name,
        "principles": list(_principles(judgments, getattr(labeler, "weights", None) or weights, config.label.labeler)),
        "judgments": [judgment.to_json() for judgment in judgments],
        "questions": heard,
        "num_tokens": sum(judgment.num_prompt_tokens + judgment.num_completion_tokens for judgment in judgments),
    }


def _folder_fingerprint(model: ModelConfig) -> str:
    return fingerprint(model_folder(model.source))


def _pair(run: Path, pair_id: str) -> ResponsePair:
    """The pair of this id, or the only one whose id begins like it."""
    pairs = list(_records(run / "3-sample" / "pairs.jsonl", ResponsePair))
    found = [pair for pair in pairs if pair.id == pair_id] or [pair for pair in pairs if pair.id.startswith(pair_id)]
    if len(found) == 1:
        return found[0]
    few = ", ".join(pair.id for pair in (found or pairs)[:3])
    problem = f"{len(found)} pairs begin like {pair_id!r}" if found else f"no pair {pair_id!r}"
    raise DataError(f"{run}: {problem}: give the id of one, such as {few}")


def _records(path: Path, record: Any) -> Iterator[Any]:
    if path.is_file():
        yield from read_jsonl(path, record)


def _principles(
    judgments: list[Judgment], weights: Mapping[Any, float], config: AnyLabeler
) -> Iterator[dict[str, Any]]:
    for (labeler, principle_id), own in by_question(judgments).items():
        odds, least = averaged_log_odds(own), min_log_odds(config, labeler)
        said = {judgment.order: judgment.p_a for judgment in own}
        yield {
            "labeler": labeler,
            "principle": principle_id,
            "weight": weights.get(principle_id, 1.0) if principle_id else 1.0,
            "log_odds": odds,
            "min_log_odds": least,
            "counts": odds is not None and abs(odds) >= least,
            "p_ab": said.get("ab"),
            "p_ba": said.get("ba"),
            "abstained": next((judgment.abstained.value for judgment in own if judgment.abstained), None),
        }
