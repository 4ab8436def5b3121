"""Train the reward model on soft labels, and say how far it can be trusted.

reads   4-label/preferences.jsonl   PreferencePair; SL-CAI or the helpful model to start from
writes  members/N/        with reward.ensemble: model/ and metrics.jsonl of the second member and those after it
        model/            Hugging Face sequence classifier with one output; metrics.jsonl; checkpoints while it trains
        adapter/          with LoRA: adapter and head, PEFT's folder
        held_out.jsonl    {id, prompt_id, p_a, margin}: the reward model on pairs that it never saw; with an ensemble also
                          member_margins, of which the first is margin

Bai et al. 2022 (arXiv:2212.08073), section 4.1. Held-out pairs are split off by prompt, so that no prompt is on both
sides. Every figure stands beside three trivial baselines (stages/baselines.py).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from charter.config import ModelConfig, RewardConfig
from charter.data.preferences import load_preferences
from charter.errors import DataError
from charter.models.chat import padded_apart
from charter.models.local import LocalModel
from charter.progress import Progress
from charter.records import Estimate, PreferencePair
from charter.stages.baselines import agreement, baselines
from charter.stages.inputs import source_hash
from charter.stages.keyed import do_stage
from charter.stages.readings import Gold
from charter.stages.saved import Load, loaded, save_trained, step_reporter
from charter.stages.seeds import row_seed, shuffled
from charter.statistics import calibration, proportion, unknown
from charter.store.folder import RunFolder
from charter.store.hashing import hash_json
from charter.store.jsonl import write_json, write_jsonl
from charter.training import trl_engine
from charter.training.distributed import is_main
from charter.training.lora import adapted
from charter.training.reward import EncodedPair, reward_model_from_policy, score, train_reward

STAGE = "reward"


def run(
    config: RewardConfig,
    folder: Path,
    *,
    preferences: Sequence[PreferencePair],
    start: ModelConfig,
    load: Load,
    gold: Gold | None,
    seed: int,
    progress: Progress,
    trl: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a reward model from ``start``; return its figures on held-out pairs beside the baselines.

    Args:
        trl: settings for TRL's trainer, where it trains instead of our loop.

    Raises:
        DataError: too few prompts or pairs to train and hold out.
    """
    with load(start) as model:
        encoded, fitting = encode_pairs(model, preferences, model.encode_scored)
        train, held_out = split_by_prompt(fitting, config.holdout_fraction, seed)
        of_held_out = [encoded[pair.id] for pair in held_out]
        pairs = [encoded[pair.id] for pair in train]
        trained, margins = _train_one(config, folder, model, pairs, of_held_out, seed, progress, STAGE, trl)
    members = [margins]
    for number in range(2, config.ensemble + 1):
        with load(start) as model:
            own = row_seed(seed, STAGE, "member", str(number))
            drawn, label = [encoded[pair.id] for pair in bootstrap(train, own)], f"{STAGE}: member {number}"
            place = folder / "members" / str(number)
            members.append(_train_one(config, place, model, drawn, of_held_out, own, progress, label, trl)[1])
    rows = zip(held_out, zip(*members, strict=True), strict=True)
    told = [{"id": p.id, "prompt_id": p.prompt.id, "p_a": p.p_a, "margin": own[0]} for p, own in rows]
    if config.ensemble > 1:
        told = [{**row, "member_margins": list(own)} for row, own in zip(told, zip(*members, strict=True), strict=True)]
    if is_main():
        write_jsonl(folder / "held_out.jsonl", told)
    return {
        "num_train": len(train),
        "num_held_out": len(held_out),
        "num_too_long": len(preferences) - len(fitting),
        **({"ensemble": config.ensemble} if config.ensemble > 1 else {}),
        **trained,
        **held_out_figures(held_out, margins, gold),
        "baselines": {name: figure.to_json() for name, figure in baselines(train, held_out, seed).items()},
    }


def _train_one(
    config: RewardConfig,
    folder: Path,
    model: LocalModel,
    pairs: Sequence[EncodedPair],
    held_out: Sequence[EncodedPair],
    seed: int,
    progress: Progress,
    label: str,
    trl: dict[str, Any] | None,
) -> tuple[dict[str, Any], list[float]]:
    """Train a reward model into ``folder/model``; return what training tells, and its margins on held-out pairs."""
    tokenizer = padded_apart(model.tokenizer, model.closing_ids[-1])
    if tokenizer is None:
        tokenizer = model.tokenizer
        progress.say(
            f"{label}: the tokenizer has no special token but the one that ends a text, so that it pads with it too: Transformers "
            "and TRL will read this model's rewards a token earlier than Charter does"
        )
    reward_model = reward_model_from_policy(model.model, tokenizer, shared=config.lora is not None)
    if config.lora is not None:
        reward_model = adapted(reward_model, config.lora, seed)
    model.free()  # of the policy only the tokenizer is needed from here on
    num_steps = config.epochs * -(-len(pairs) // config.batch_size)
    on_step = step_reporter(progress, f"{label}: training", num_steps, "loss")
    if trl is None:
        trained = train_reward(reward_model, pairs, config, seed=seed, folder=folder, on_step=on_step)
    else:
        trained = trl_engine.train_reward(
            reward_model, tokenizer, pairs, config, trl, seed=seed, folder=folder, on_step=on_step
        )
        if trained["num_ties"]:
            progress.say(f"{label}: {trained['num_ties']} ties left out, since TRL knows hard labels alone")
    save_trained(reward_model, model, folder, tokenizer)
    return trained, reward_margins(reward_model, held_out)


def bootstrap(pairs: Sequence[PreferencePair], seed: int) -> list[PreferencePair]:
    """The pairs of as many prompts as there are, drawn with replacement."""
    by_prompt: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.prompt.id, []).append(pair)
    drawn = random.Random(seed).choices(sorted(by_prompt), k=len(by_prompt))
    return [pair for prompt_id in drawn for pair in by_prompt[prompt_id]]


def train_reward_from_file(
    data: Path,
    model: ModelConfig,
    out: Path,
    *,
    config: RewardConfig,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """Train a reward model on preference data alone, into ``out/5-reward``; the same call resumes.

    Rows that can't be used are left out and counted.

    Args:
        limit: use so many pairs, drawn by the seed; None: all.

    Raises:
        DataError: no usable pair; ModelError, StoreError, TrainingError as they come.
    """
    faults: list[str] = []
    preferences = shuffled(load_preferences(data, faults), seed, STAGE, "limit")[:limit]

    def work(path: Path) -> dict[str, Any]:
        return run(
            config, path, preferences=preferences, start=model, load=loaded, gold=None, seed=seed, progress=progress
        )

    reads = {
        "seed": seed,
        "config": config.settings(),
        "model": source_hash(model),
        "pairs": hash_json([pair.to_json() for pair in preferences]),
    }
    with RunFolder.open(out) as folder:
        do_stage(folder, "5-reward", reads, work, progress)
        summary = {"data": str(data), "num_left_out": len(faults), "seed": seed, **folder.stage("5-reward").summary()}
        write_json(out / "summary.json", summary)
    return summary


def encode_pairs(
    model: LocalModel, pairs: Sequence[PreferencePair], encode: Callable[[str], list[int]]
) -> tuple[dict[str, EncodedPair], list[PreferencePair]]:
    """Token ids by pair id, the responses by ``encode``, and the pairs that fit into the model's context."""
    encoded, fitting = {}, []
    for pair in pairs:
        own = EncodedPair(
            model.encode_prompt(pair.prompt.messages),
            encode(pair.response_a),
            encode(pair.response_b),
            pair.p_a,
        )
        if len(own.prompt_ids) + max(len(own.a_ids), len(own.b_ids)) <= model.context:
            encoded[pair.id] = own
            fitting.append(pair)
    return encoded, fitting


def reward_margins(reward_model: Any, pairs: Sequence[EncodedPair]) -> list[float]:
    """Reward of A minus reward of B (nats) for each pair."""
    rewards = score(reward_model, [pair.prompt_ids for pair in pairs], [[pair.a_ids, pair.b_ids] for pair in pairs])
    return [a - b for a, b in rewards]


def split_by_prompt(
    pairs: Sequence[PreferencePair], holdout_fraction: float, seed: int
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """(train, held out): the prompts with the lowest hashes are held out, at least one and never all.

    Raises:
        DataError: all pairs are of one prompt.
    """
    prompt_ids = sorted({pair.prompt.id for pair in pairs}, key=lambda id: row_seed(seed, STAGE, "holdout", id))
    if len(prompt_ids) < 2:
        raise DataError(f"{len(prompt_ids)} prompts with a label: a reward model needs at least 2; sample more prompts")
    count = min(len(prompt_ids) - 1, max(1, round(holdout_fraction * len(prompt_ids))))
    held_out = set(prompt_ids[:count])
    return [p for p in pairs if p.prompt.id not in held_out], [p for p in pairs if p.prompt.id in held_out]


def held_out_figures(pairs: Sequence[PreferencePair], margins: Sequence[float], gold: Gold | None) -> dict[str, Any]:
    """Agreement with labels and with gold, and calibration, from reward margins (A minus B, nats)."""
    p_a = [1 / (1 + math.exp(-max(-500.0, min(500.0, margin)))) for margin in margins]
    return {
        "label_agreement": agreement(margins, pairs).to_json(),
        "gold_agreement": _gold_agreement(pairs, margins, gold).to_json(),
        "calibration": calibration(p_a, [pair.p_a for pair in pairs]),
    }


def _gold_agreement(pairs: Sequence[PreferencePair], margins: Sequence[float], gold: Gold | None) -> Estimate:
    if gold is None:
        return unknown("no gold is named in the run file (evaluate.gold)")
    hits, clusters = [], []
    for pair, margin in zip(pairs, margins, strict=True):
        a, b = gold.read(pair.prompt, pair.response_a).gold, gold.read(pair.prompt, pair.response_b).gold
        if a is not None and b is not None and a != b:
            hits.append((margin > 0) == (a > b))
            clusters.append(pair.prompt.id)
    return proportion(hits, clusters) if hits else unknown("gold tells no two held-out responses apart")
