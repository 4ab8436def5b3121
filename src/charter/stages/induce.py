"""``charter constitution induce``: which principles reconstruct preferences that were given?

reads   preference data (any form of charter.data.preferences), candidates from a constitution, a model that labels
writes  ledger.sqlite in the folder that it is given: nothing is asked twice

Method, after Findeis et al. 2024 (Inverse Constitutional AI, arXiv:2406.06560): a model says what the chosen responses of
training pairs have in common, each proposal and each given candidate is read by the labeler on every pair, principles are
chosen by training agreement, and held-out pairs tell how well they reconstruct the labels. Departures: no clustering of
proposals (equal wording is one); greedy forward choice instead of a vote count; soft answers are added in log-odds.
Prompts, never single pairs, are split, so that no held-out prompt was seen when choosing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charter.config import ConstitutionalConfig
from charter.constitution.load import Constitution, fill
from charter.errors import DataError
from charter.labelers.combine import averaged_log_odds, by_principle
from charter.labelers.make import make_labeler
from charter.models.protocol import LanguageModel
from charter.progress import Progress
from charter.records import Conversation, Message, PreferencePair, Principle, ResponsePair
from charter.stages.baselines import agreement, baselines
from charter.stages.labeler_models import LabelerModels
from charter.store.ledger import Ledger

HELD_OUT = 0.3
SHOWN = 4  # pairs in one request for proposals
MAX_CHARS = 1200  # of each text in it
LONGEST = 300  # characters of a proposal that is kept
MAX_NEW_TOKENS = 256
Odds = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Plan:
    """How to induce.

    Args:
        num_requests: how often the model is asked for principles; 0: only the candidates that were given.
        most: principles to choose at most.
        min_gain: training agreement that another principle must add.
    """

    num_requests: int
    most: int = 10
    min_gain: float = 0.005
    seed: int = 0


def induce(
    pairs: Sequence[PreferencePair],
    labeler: ConstitutionalConfig,
    given: Constitution,
    plan: Plan,
    folder: Path,
    progress: Progress,
) -> tuple[Constitution, dict[str, Any]]:
    """Choose principles on training pairs and test them on held-out ones.

    Args:
        given: candidates, and the wording of principles that the model proposes; it may hold no principle.

    Returns:
        The chosen principles as drafts (none: no principle beats a coin), and, as JSON: num_train, num_held_out,
        candidates[] {principle, text, origin (proposed or given), train_agreement}, chosen[] {principle, origin,
        train_agreement so far}, held_out_agreement, baselines.

    Raises:
        DataError: too few prompts, or no candidate at all. CharterError: something can't be asked.
    """
    sided = [pair for pair in pairs if pair.p_a != 0.5]
    held_out = [pair for pair in sided if _rank(plan.seed, pair.prompt.id) < HELD_OUT]
    train = [pair for pair in sided if _rank(plan.seed, pair.prompt.id) >= HELD_OUT]
    if len({pair.prompt.id for pair in train}) < 2 or len({pair.prompt.id for pair in held_out}) < 2:
        raise DataError(f"{len(sided)} pairs with a side are too few to split by prompt: give at least 10 prompts")
    with Ledger(folder / "ledger.sqlite") as ledger, LabelerModels(ledger) as models:
        proposed = propose(models(labeler.model), train, given, plan)
        origin = {p.id: "proposed" for p in proposed} | {p.id: "given" for p in given.principles}
        candidates = replace(given, principles=(*given.principles, *proposed))
        if not candidates.principles:
            raise DataError("no candidate principle: name some with --candidates, or a model that proposes them")
        asking = labeler.model_copy(update={"kind": "constitutional", "principles": "all"})
        reader = make_labeler(asking, models, candidates, plan.seed)
        odds: Odds = {principle.id: {} for principle in candidates.principles}
        progress.start("induce", len(sided), "pairs")
        for begin in range(0, len(sided), labeler.batch_size):
            chunk = sided[begin : begin + labeler.batch_size]
            for judgments in reader.label([ResponsePair(p.id, p.prompt, p.response_a, p.response_b) for p in chunk]):
                for id, own in by_principle(judgments).items():
                    found = averaged_log_odds(own)
                    if id is not None and found is not None and abs(found) >= labeler.min_log_odds:
                        odds[id][own[0].pair_id] = found
            progress.advance(len(chunk))
    chosen = choose(odds, train, plan)
    ids = [id for id, _ in chosen]
    told = _told(odds, candidates, origin, chosen, (train, held_out), plan)
    by_id = {p.id: p for p in candidates.principles}
    drafts = tuple(replace(by_id[id], tags=(*by_id[id].tags, "draft", f"induced-{origin[id]}")) for id in ids)
    return replace(candidates, principles=drafts), told


def _told(
    odds: Odds,
    candidates: Constitution,
    origin: dict[str, str],
    chosen: Sequence[tuple[str, float]],
    split: tuple[list[PreferencePair], list[PreferencePair]],
    plan: Plan,
) -> dict[str, Any]:
    (train, held_out), ids = split, [id for id, _ in chosen]
    return {
        "num_train": len(train),
        "num_held_out": len(held_out),
        "candidates": [
            {"principle": p.id, "text": p.text, "origin": origin[p.id]}
            | {"train_agreement": agreement(_margins(odds, [p.id], train), train).to_json()}
            for p in candidates.principles
        ],
        "chosen": [{"principle": id, "origin": origin[id], "train_agreement": value} for id, value in chosen],
        "held_out_agreement": agreement(_margins(odds, ids, held_out), held_out).to_json() if ids else None,
        "baselines": {name: row.to_json() for name, row in baselines(train, held_out, plan.seed).items()},
    }


def choose(odds: Odds, train: Sequence[PreferencePair], plan: Plan) -> list[tuple[str, float]]:
    """Greedy: the principle whose log-odds, added, raise training agreement most, until none adds ``min_gain``.

    Returns each chosen principle with the training agreement that it brought the set to; a coin's 0.5 is the start.
    """
    chosen: list[tuple[str, float]] = []
    best = 0.5
    while len(chosen) < plan.most:
        taken = [id for id, _ in chosen]
        tried = {id: _value(odds, [*taken, id], train) for id in odds if id not in taken}
        if not tried:
            break
        id = max(tried, key=lambda name: tried[name])
        if tried[id] < best + plan.min_gain:
            break
        best = tried[id]
        chosen.append((id, best))
    return chosen


def _value(odds: Odds, ids: Sequence[str], pairs: Sequence[PreferencePair]) -> float:
    return agreement(_margins(odds, ids, pairs), pairs).value or 0.0


def _margins(odds: Odds, ids: Sequence[str], pairs: Sequence[PreferencePair]) -> list[float]:
    return [sum(odds[id].get(pair.id, 0.0) for id in ids) for pair in pairs]


def propose(
    model: LanguageModel, train: Sequence[PreferencePair], given: Constitution, plan: Plan
) -> tuple[Principle, ...]:
    """Principles in the model's words: one from each line of its answers that isn't there yet."""
    ranked = sorted(train, key=lambda pair: _rank(plan.seed, pair.id))
    groups = [ranked[start : start + SHOWN] for start in range(0, SHOWN * plan.num_requests, SHOWN)]
    requests = [_request(group) for group in groups if group]
    if not requests:
        return ()
    answers = model.generate(
        requests, max_new_tokens=MAX_NEW_TOKENS, temperature=0.7, seeds=[plan.seed + i for i in range(len(requests))]
    )
    seen = {" ".join(principle.text.casefold().split()) for principle in given.principles}
    taken = {principle.id for principle in given.principles}
    found: list[Principle] = []
    for line in (line for answer in answers for line in answer.text.splitlines()):
        text = " ".join(re.sub(r"^[\s\d.)*\u2022-]+", "", line).split())
        if len(text.split()) < 4 or len(text) > LONGEST or text.casefold() in seen:
            continue
        seen.add(text.casefold())
        id = next(name for i in range(len(taken) + 1) if (name := f"proposed-{len(found) + 1 + i}") not in taken)
        taken.add(id)
        words = given.defaults
        wording = [fill(told, text) for told in (words.critique_request, words.revision_request, words.comparison)]
        found.append(Principle(id, text, wording[0], wording[1], wording[2], source=model.name))
    return tuple(found)


def _request(pairs: Sequence[PreferencePair]) -> Conversation:
    """Texts of the data are quoted as JSON strings: they are shown, and end nothing."""
    shown = []
    for number, pair in enumerate(pairs, 1):
        better, worse = (pair.response_a, pair.response_b) if pair.p_a > 0.5 else (pair.response_b, pair.response_a)
        texts = {"request": pair.prompt.messages[-1].content, "better": better, "worse": worse}
        shown.append(f"{number}. " + json.dumps({key: text[:MAX_CHARS] for key, text in texts.items()}))
    return (
        Message(
            "user",
            "Below are requests, each with two responses, as JSON. The response called better was preferred.\n\n"
            + "\n".join(shown)
            + "\n\nWhat general rules explain these preferences? Write up to three, one per line, each a sentence that "
            "says what a response should do or leave. Do not mention these examples.",
        ),
    )


def _rank(seed: int, key: str) -> float:
    """A number in [0, 1) by a hash."""
    digest = hashlib.sha256(f"induce\x1f{seed}\x1f{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48


def first(pairs: Sequence[PreferencePair], limit: int, seed: int) -> list[PreferencePair]:
    """``limit`` of the pairs, drawn by a hash of their ids."""
    return sorted(pairs, key=lambda pair: _rank(seed, pair.id))[:limit]
