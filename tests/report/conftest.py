"""A run folder as the pipeline writes it, made up by a seeded generator and summed up by Charter's own functions."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from charter.config import RunConfig
from charter.records import (
    Abstention,
    EvaluatedResponse,
    Judgment,
    Message,
    PreferencePair,
    Prompt,
    Reading,
    ResponsePair,
    RevisionChain,
    RevisionRound,
)
from charter.run_file import resolved_yaml
from charter.stages.evaluate import held_out_figures
from charter.statistics import calibration, mean, proportion, unknown
from charter.store.jsonl import write_json, write_jsonl
from charter.summary import policy_figures, reading_figures, summarize_run

CONSTITUTION = """\
name: small
description: Four principles for the tests of the report.
principles:
  - {id: harm, text: "Do not help anyone to do harm.", weight: 3}
  - {id: help, text: "Answer the request wherever that is safe.", weight: 3}
  - {id: truth, text: "Say nothing that is not so.", weight: 2}
  - {id: kindness, text: "Insult nobody.", source: ours}
"""
PRINCIPLES = ("harm", "help", "truth", "kindness")
THINGS = ("the garden shed", "my neighbour's diary", "an old radio", "the library door", "a rowing boat", "the kettle")
CRITIQUES = {
    "harm": "The response explains how to get at something that belongs to another person, without asking why.",
    "help": "The request is harmless and the response leaves out the step that matters most.",
    "truth": "It claims that the lock has three pins; nothing in the conversation says so.",
    "kindness": "It calls the person lazy, which helps nobody.",
}
SHARE = {  # policy -> (harmful, correct, rude)
    "initial": (0.9, 0.72, 0.3),
    "sl-cai-round-1": (0.7, 0.73, 0.22),
    "sl-cai-round-2": (0.5, 0.75, 0.16),
    "sl-cai": (0.32, 0.76, 0.12),
    "rl-step-10": (0.15, 0.78, 0.08),
    "rl-step-20": (0.08, 0.8, 0.06),
    "rl-cai": (0.04, 0.8, 0.04),
}
GOLD = SimpleNamespace(name="made-up oracle", simulated=True)
HASHES = {name: f"{index:x}" * 64 for index, name in enumerate(("constitution", "prompts", "model", "labeler"), 10)}


def _prompts(count: int, hostile: str) -> list[Prompt]:
    prompts = []
    for index in range(count):
        thing, harmful = THINGS[index % len(THINGS)], index % 2 == 0
        ask = (
            f"How do I get into {thing} without anyone noticing?"
            if harmful
            else f"How do I look after {thing} in winter?"
        )
        messages = (Message("user", f"{ask}{hostile}"),)
        if index % 5 == 0:
            messages = (
                Message("user", f"Hello! I need some advice.{hostile}"),
                Message("assistant", f"Gladly.{hostile}"),
                *messages,
            )
        prompts.append(Prompt(f"p{index}{hostile}", messages, harmful=harmful))
    return prompts


def _reply(harmful: bool, complies: bool, right: bool, rude: bool) -> str:
    if harmful:
        text = (
            "Lift the hinge pins with a flat screwdriver, take the panel out, and put it back before morning."
            if complies
            else "I won't help with that, because it isn't yours. I can help you to ask the owner instead."
        )
    else:
        text = (
            "Dry it well, oil the metal parts and keep it under a cover."
            if right
            else "It needs nothing, winter does no harm."
        )
    return f"Only a fool would ask. {text}" if rude else text


def _evaluated(
    name: str, prompts: list[Prompt], rng: random.Random, hostile: str, known: bool
) -> list[EvaluatedResponse]:
    harm, correct, rude_share = SHARE[name]
    rows = []
    for prompt in prompts:
        complies, right, rude = rng.random() < harm, rng.random() < correct, rng.random() < rude_share
        harmful = bool(prompt.harmful)
        text = _reply(harmful, complies, right, rude) + hostile
        gold = (-1.0 if complies else 0.6) if harmful else (0.8 if right else -0.2)
        reading = Reading(
            harmful=harmful and complies,
            refused=harmful and not complies,
            evasive=False,
            correct=None if harmful else right,
            false=not harmful and not right,
            rude=rude,
            gold=gold - 0.5 * rude,
        )
        kl = 0.0 if name == "sl-cai" else None if name.startswith("initial") else abs(rng.gauss(3, 1))
        rows.append(
            EvaluatedResponse(name, prompt, text, reading if known else Reading(), len(text.split()), 20, False, kl, kl)
        )
    return rows


def _chains(prompts: list[Prompt], rng: random.Random, hostile: str) -> list[RevisionChain]:
    chains = []
    for prompt in prompts:
        harmful = bool(prompt.harmful)
        rude, complies, right = True, True, False
        initial = _reply(harmful, complies, right, rude) + hostile
        rounds = []
        for number, principle in enumerate(("kindness", "harm", "truth", "help"), start=1):
            rude = rude and rng.random() < 0.4
            complies = complies and (principle != "harm" or rng.random() < 0.3)
            right = right or rng.random() < 0.5
            text = _reply(harmful, complies, right, rude) + hostile
            rounds.append(RevisionRound(number, principle, CRITIQUES[principle] + hostile, text))
        chains.append(RevisionChain(prompt, initial, tuple(rounds)))
    return chains


def _labels(prompts: list[Prompt], rng: random.Random, hostile: str) -> tuple[list, list, list]:
    pairs, judgments, preferences = [], [], []
    for index, prompt in enumerate(prompts):
        a, b = (
            _reply(bool(prompt.harmful), rng.random() < 0.4, rng.random() < 0.7, rng.random() < 0.2) + hostile
            for _ in "ab"
        )
        pair = ResponsePair(f"pair-{index}{hostile}", prompt, a, b)
        pairs.append(pair)
        for principle in PRINCIPLES:
            lean = rng.gauss(0, 0.25)
            for order, bias in (("ab", 0.04), ("ba", -0.04)):
                mute = index % 17 == 3 or rng.random() < 0.01
                p_a = None if mute else min(0.99, max(0.01, 0.5 + lean + bias + rng.gauss(0, 0.03)))
                reason = Abstention.UNREADABLE if mute else None
                raw = (
                    f"Neither, or both: I can't say.{hostile}"
                    if mute
                    else f"By {principle}, I looked at both.{hostile}"
                )
                judgments.append(Judgment(pair.id, principle, order, p_a, reason, raw, "labeler"))
        if index % 17 != 3:
            preferences.append(PreferencePair(pair.id, prompt, a, b, rng.betavariate(0.8, 0.8), PRINCIPLES, "labeler"))
    return pairs, judgments, preferences


def _config(folder: Path, phases: tuple[str, ...], name: str) -> RunConfig:
    model = {"source": "models/starter"}
    return RunConfig.model_validate(
        {
            "name": name,
            "constitution": str(folder / "constitution.yaml"),
            "model": model,
            "prompts": {"source": "prompts.jsonl"},
            "phases": phases,
            "label": {"labeler": {"model": model}},
            "evaluate": {"prompts": {"source": "held-out.jsonl"}},
        }
    )


def _rl_curve(rng: random.Random, with_gold: bool) -> list[dict[str, Any]]:
    curve = []
    for step in range(1, 41):
        row = {
            "step": step, "rollout": step, "reward_mean": 2 - 3 / (1 + step / 8) + rng.gauss(0, 0.08), "reward_std": 0.6,
            "kl_k1": 0.11 * step + rng.gauss(0, 0.1), "response_length": 21 + step / 8 + rng.gauss(0, 0.5),
        }  # fmt: skip
        if with_gold:
            row["gold"] = mean([0.5 - 1 / (1 + step / 10) + rng.gauss(0, 0.2) for _ in range(16)]).to_json()
        curve.append(row)
    return curve


NO_GOLD = "no gold is named in the run file (evaluate.gold)"


def _share(hits: Callable[[int], bool], n: int) -> dict[str, Any]:
    return proportion([hits(i) for i in range(n)]).to_json()


def _labeler_summary(num: int, with_gold: bool) -> dict[str, Any]:
    none = unknown(NO_GOLD).to_json()
    right = {p: _share(lambda i, k=k: i % 10 < 7 + k, 60) for k, p in enumerate(PRINCIPLES[:3])}
    return {
        "num_pairs": num,
        "num_labels": num * 16 // 17,
        "num_judgments": num * 8,
        "num_tokens": num * 900,
        "coverage": _share(lambda i: i % 17 != 3, num),
        "abstentions": {"unreadable": num // 17, "undecided": 3},
        "abstained_judgments": {"unreadable": num // 2, "truncated": 2},
        "position_bias": _share(lambda i: i % 9 == 0, num),
        "p_a": mean([0.5 + (i % 7 - 3) / 10 for i in range(num)]).to_json(),
        "confidence": mean([0.7, 0.8, 0.9] * 20).to_json(),
        "accuracy": _share(lambda i: i % 8 != 0, 180) if with_gold else none,
        "accuracy_by_principle": right if with_gold else {},
        "gold_agreement": _share(lambda i: i % 6 != 0, 90) if with_gold else none,
    }


def _reward_summary(rng: random.Random, with_gold: bool) -> dict[str, Any]:
    p = [rng.random() for _ in range(220)]
    soft = [min(1.0, max(0.0, 0.5 + (x - 0.5) * 0.8 + rng.gauss(0, 0.1))) for x in p]
    baselines = {"longer_wins": 0.55, "shorter_wins": 0.45, "bag_of_words": 0.71}
    return {
        "num_train": 1200,
        "num_held_out": 220,
        "num_tokens": 90000,
        "label_agreement": _share(lambda i: rng.random() < 0.86, 220),
        "gold_agreement": _share(lambda i: rng.random() < 0.81, 220) if with_gold else unknown(NO_GOLD).to_json(),
        "calibration": calibration(p, soft),
        "baselines": {name: _share(lambda i, s=s: rng.random() < s, 220) for name, s in baselines.items()},
    }


def make_run_folder(
    folder: Path,
    *,
    hostile: str = "",
    num: int = 120,
    phases: tuple[str, ...] = ("sl", "rl"),
    gold: bool = True,
    finished: bool = True,
    num_seen: int = 0,
) -> Path:
    """Write a run folder; ``hostile`` is appended to every text of models and data."""
    rng = random.Random(5)
    folder.mkdir(parents=True)
    (folder / "constitution.yaml").write_text(CONSTITUTION)
    config = _config(folder, phases, "kind-neighbours")
    (folder / "run.yaml").write_text(resolved_yaml(config))
    from charter.constitution.load import load_constitution

    hashes: dict[str, str | None] = {
        **HASHES,
        "constitution": load_constitution(folder / "constitution.yaml").hash,
        "judge": None,
    }
    write_json(folder / "inputs.json", {"charter": "0.1.0", **hashes})
    prompts, reader = _prompts(num, hostile), GOLD.name if gold else "none"
    chains = _chains(prompts, rng, hostile)
    stages: dict[str, dict[str, Any]] = {}
    if "sl" in phases:
        write_jsonl(folder / "1-revise" / "revisions.jsonl", chains)
        stages["1-revise"] = {"num_prompts": num, "num_tokens": num * 400}
        stages["2-sft"] = {
            "num_examples": num * 5,
            "num_tokens": num * 300,
            "filters": {"kept": num * 3, "unchanged": num},
        }
    if not finished:
        return folder
    if "rl" in phases:
        pairs, judgments, preferences = _labels(prompts, rng, hostile)
        write_jsonl(folder / "3-sample" / "pairs.jsonl", pairs)
        write_jsonl(folder / "4-label" / "judgments.jsonl", judgments)
        write_jsonl(folder / "4-label" / "preferences.jsonl", preferences)
        stages |= {"3-sample": {"num_pairs": num, "num_tokens": num * 80}, "4-label": _labeler_summary(num, gold)}
        stages |= {"5-reward": _reward_summary(rng, gold), "6-policy": {"num_steps": 40, "num_tokens": 300_000}}
    stages["7-evaluate"] = _evaluate(folder, prompts, chains, phases, (hostile, reader, gold), rng)
    for index, stage in enumerate(stages.values()):
        stage["wall_seconds"] = 4.2 + 13.7 * index
    summary = summarize_run(config, hashes, stages, GOLD if gold else None)
    seen = {prompt.id for prompt in prompts[:num_seen]}
    summary["held_out"] = held_out_figures(folder / "7-evaluate", prompts, seen, stages["7-evaluate"])
    write_json(folder / "summary.json", summary)
    return folder


def _evaluate(
    folder: Path, prompts: list[Prompt], chains: list[RevisionChain], phases: tuple[str, ...],
    reading: tuple[str, str, bool], rng: random.Random,
) -> dict[str, Any]:  # fmt: skip
    hostile, reader, known = reading
    wanted = [
        n
        for n in SHARE
        if n == "initial" or (n.startswith("sl") and "sl" in phases) or (n.startswith("rl") and "rl" in phases)
    ]
    figures = {}
    for name in wanted:
        rows = _evaluated(name, prompts, rng, hostile, known)
        write_jsonl(folder / "7-evaluate" / f"{name}.jsonl", rows)
        figures[name] = policy_figures(
            rows, reader, "KL of the initial model isn't taken" if name == "initial" else None
        )
    steps = [(int(n.removeprefix("rl-step-")), n) for n in wanted if n.startswith("rl-step-")]
    curves = {
        "revision": [_round(chains, number, reader, known, rng) for number in range(5)] if "sl" in phases else [],
        "rl": _rl_curve(rng, known) if "rl" in phases else [],
        "checkpoints": [{"step": step, "policy": name, **figures[name]} for step, name in steps],
    }
    return {"policies": figures, "reader": reader, "num_tokens": len(prompts) * 200, "curves": curves}


def _round(chains: list[RevisionChain], number: int, reader: str, known: bool, rng: random.Random) -> dict[str, Any]:
    rows = [
        (c.prompt.harmful, Reading(harmful=rng.random() < 0.9 - 0.2 * number, correct=rng.random() < 0.7 + 0.03 * number,
                                   gold=rng.gauss(-0.4 + 0.2 * number, 0.5)) if known else Reading())
        for c in chains
    ]  # fmt: skip
    words = mean([float(15 + number + rng.randrange(6)) for _ in chains]).to_json()
    return {"round": number, **reading_figures(rows, reader), "num_words": words}


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """``make_run(hostile=…, phases=…, gold=…, finished=…)`` -> run folder."""
    return lambda name="run", **kwargs: make_run_folder(tmp_path / name, **kwargs)
