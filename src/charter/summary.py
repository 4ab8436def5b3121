"""``summary.json``: the figures of a run, machine-readable and stable. Every figure is {value, low, high, n, reason}.

    policies.<initial | sl-cai | rl-cai | sl-cai-round-N | rl-step-N>.<figure>
    wins.{judge, policy, against.<policy>}   share of prompts that the judge gives to the last policy, where there is a judge
    held_out.{num_prompts, num_seen}         held-out prompts, and how many of them are training prompts too, word for word
    held_out.unseen.<initial | sl-cai | rl-cai>.{harmful_rate, correct_rate}     on the others, where num_seen isn't 0
    labeler.{accuracy, position_bias, coverage, ...}     reward_model.{label_agreement, gold_agreement, ...}
    curves.revision[]   figures of the revised data after each round
    curves.rl[]         training metrics of each step        curves.checkpoints[]   figures of each checkpoint
    warnings[]          data that went in and hardly served, a sentence each
    stages[].{name, wall_seconds, num_tokens}            hashes, seed, charter
    servers[].{source, calls, prompt_tokens, completion_tokens, money, reason}   over all attempts; empty: none was asked

A figure that can't be known has value null and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from charter import __version__ as version
from charter.config import RunConfig
from charter.records import Estimate, EvaluatedResponse, Reading
from charter.source import source_hash
from charter.statistics import mean, proportion, unknown


class Gold(Protocol):
    """What of the gold goes into the summary."""

    name: str
    simulated: bool


MAIN_POLICIES = ("initial", "sl-cai", "rl-cai")
POLICY_FIGURES = (
    "harmful_rate",
    "over_refusal_rate",
    "correct_rate",
    "evasive_rate",
    "rude_rate",
    "false_rate",
    "gold",
    "gold_harmful",
    "gold_benign",
    "num_words",
    "distinct_2",
    "kl_to_sl_cai",
)


def policy_figures(rows: Sequence[EvaluatedResponse], reader: str, why_no_kl: str | None) -> dict[str, Any]:
    """The figures of one policy from its responses to held-out prompts.

    ``harmful_rate`` is over prompts not known to be harmless; ``over_refusal_rate`` and ``correct_rate`` over prompts
    known to be harmless; the rest over all. ``distinct_2`` is a property of the whole set and has no interval.

    Args:
        reader: name of the gold or judge that read the responses, for the reasons.
        why_no_kl: why KL to SL-CAI can't be known; None where the rows have it.
    """
    suspect = [row for row in rows if row.prompt.harmful is not False]
    harmful = [row for row in rows if row.prompt.harmful]
    benign = [row for row in rows if row.prompt.harmful is False]
    kl = [row.kl_k1 for row in rows if row.kl_k1 is not None]
    figures = {
        "harmful_rate": _rate(suspect, lambda r: r.harmful, reader, "no prompt may be harmful"),
        "over_refusal_rate": _rate(benign, lambda r: r.refused, reader, "no prompt is marked harmless"),
        "correct_rate": _rate(benign, lambda r: r.correct, reader, "no prompt is marked harmless"),
        "evasive_rate": _rate(rows, lambda r: r.evasive, reader),
        "rude_rate": _rate(rows, lambda r: r.rude, reader),
        "false_rate": _rate(rows, lambda r: r.false, reader),
        "gold": _gold(rows, reader),
        "gold_harmful": _gold(harmful, reader, "no prompt is marked harmful"),
        "gold_benign": _gold(benign, reader, "no prompt is marked harmless"),
        "num_words": mean([float(row.num_words) for row in rows], _clusters(rows)),
        "distinct_2": distinct_n([row.response for row in rows], 2),
        "kl_to_sl_cai": mean(kl) if kl else unknown(why_no_kl or "no response"),
    }
    return {name: figures[name].to_json() for name in POLICY_FIGURES}


def reading_figures(rows: Sequence[tuple[bool | None, Reading]], reader: str) -> dict[str, Any]:
    """The figures that hold for any text: (is its prompt harmful?, its reading) per row, for the revision curve."""
    suspect = [reading for harmful, reading in rows if harmful is not False]
    benign = [reading for harmful, reading in rows if harmful is False]
    every = [reading for _, reading in rows]
    figures = {
        "harmful_rate": _share([r.harmful for r in suspect], reader),
        "over_refusal_rate": _share([r.refused for r in benign], reader),
        "correct_rate": _share([r.correct for r in benign], reader),
        "rude_rate": _share([r.rude for r in every], reader),
        "false_rate": _share([r.false for r in every], reader),
        "gold": _average([r.gold for r in every], reader),
    }
    return {name: figure.to_json() for name, figure in figures.items()}


def _clusters(rows: Sequence[EvaluatedResponse]) -> list[str]:
    return [row.prompt.id for row in rows]


def _rate(
    rows: Sequence[EvaluatedResponse], of: Callable[[Reading], bool | None], reader: str, none_left: str = "no response"
) -> Estimate:
    if not rows:
        return unknown(none_left)
    return _share([of(row.reading) for row in rows], reader, _clusters(rows))


def _gold(rows: Sequence[EvaluatedResponse], reader: str, none_left: str = "no response") -> Estimate:
    if not rows:
        return unknown(none_left)
    return _average([row.reading.gold for row in rows], reader, _clusters(rows))


def _share(values: Sequence[bool | None], reader: str, clusters: Sequence[str] | None = None) -> Estimate:
    """Share of True among what the reader could tell; what it couldn't is left out and shows in n."""
    known = [i for i, value in enumerate(values) if value is not None]
    if not known:
        return unknown(_nobody_tells(reader))
    return proportion([bool(values[i]) for i in known], [clusters[i] for i in known] if clusters else None)


def _average(values: Sequence[float | None], reader: str, clusters: Sequence[str] | None = None) -> Estimate:
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    if not known:
        return unknown(_nobody_tells(reader))
    return mean([value for _, value in known], [clusters[i] for i, _ in known] if clusters else None)


def _nobody_tells(reader: str) -> str:
    if reader == "none":
        return "nobody reads the responses: name evaluate.gold or evaluate.judge in the run file"
    return f"{reader} can't tell"


def distinct_n(responses: Sequence[str], n: int) -> Estimate:
    """Distinct n-grams of words over all n-grams of all responses (Li et al. 2016, arXiv:1510.03055)."""
    grams = [
        tuple(words[i : i + n]) for words in (text.split() for text in responses) for i in range(len(words) - n + 1)
    ]
    if not grams:
        return unknown(f"no response has {n} words")
    return Estimate(len(set(grams)) / len(grams), None, None, len(grams), reason="of the whole set: no interval")


def no_policy(reason: str) -> dict[str, Any]:
    """The figures of a policy that this run doesn't make."""
    return {name: unknown(reason).to_json() for name in POLICY_FIGURES}


def summarize_run(
    config: RunConfig, hashes: dict[str, str | None], stages: dict[str, dict[str, Any]], gold: Gold | None
) -> dict[str, Any]:
    """Put ``summary.json`` together from the summaries of the stages, by stage folder."""
    evaluated = stages["7-evaluate"]
    missing = {"sl-cai": "phase sl is left out of this run", "rl-cai": "phase rl is left out of this run"}
    no_labels = (
        missing["rl-cai"] if "rl" not in config.phases else "nothing is labelled where policy.reward needs no labels"
    )
    policies = {name: evaluated["policies"].get(name) or no_policy(missing[name]) for name in MAIN_POLICIES}
    return {
        "name": config.name,
        "charter": version,
        "source": source_hash(),
        "seed": config.seed,
        "phases": list(config.phases),
        "hashes": hashes,
        "gold": {"name": gold.name, "simulated": gold.simulated} if gold else None,
        "reader": evaluated["reader"],
        "policies": {**policies, **evaluated["policies"]},
        **({"wins": evaluated["wins"]} if "wins" in evaluated else {}),
        "labeler": _labeler(stages.get("4-label"), no_labels),
        "reward_model": _reward_model(stages.get("5-reward"), no_labels),
        "curves": evaluated["curves"],
        "counts": {name: _counts(summary) for name, summary in stages.items() if name != "7-evaluate"},
        "stages": [
            {"name": name, "wall_seconds": summary["wall_seconds"], "num_tokens": summary.get("num_tokens")}
            for name, summary in stages.items()
        ],
    }


def _labeler(stage: dict[str, Any] | None, why: str) -> dict[str, Any]:
    names = ("accuracy", "position_bias", "coverage", "gold_agreement")
    if stage is None:
        return {name: unknown(why).to_json() for name in names}
    told = (*names, "accuracy_by_principle", "abstentions", "p_a", "confidence")
    return {
        **{name: stage[name] for name in told},
        **{key: stage[key] for key in ("committee", "check") if key in stage},
    }


def _reward_model(stage: dict[str, Any] | None, why: str) -> dict[str, Any]:
    names = ("label_agreement", "gold_agreement")
    if stage is None:
        return {name: unknown(why).to_json() for name in names}
    return {name: stage[name] for name in (*names, "calibration", "baselines")}


def _counts(summary: dict[str, Any]) -> dict[str, Any]:
    """The plain counts of a stage: its figures stand elsewhere."""
    return {key: value for key, value in summary.items() if key.startswith("num_") or key == "filters"}
