"""From a run file to its plan, as JSON: stages, totals, endpoints with their caps, and what was assumed."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from charter.config import EndpointConfig, ModelConfig, RunConfig, Training, labeler_models
from charter.memory import StageMemory, memory_plan
from charter.plan.meter import Meter, StandIn, Tally, TokenRuler
from charter.plan.work import Probe, StageWork
from charter.stages.beforehand import unset_keys, warnings
from charter.stages.inputs import Inputs, gather
from charter.stages.servers import servers_of
from charter.store.jsonl import read_json

COUNTED_ROWS = 64
UPPER = (
    "nothing was generated: every answer counts as long as it may be, no pair is dropped and every pair is labelled, so that "
    "tokens and money are upper bounds{but}"
)
BY_TOKENIZER = ", in tokens of the run's own model, by which the prompts of other models are counted too"
BY_CHARACTERS = " but for one thing: the model's tokenizer isn't here yet, and a token is taken as 4 characters"
MEASURED = (
    "{rows} rows went through the real model: lengths, dropped pairs and speed are theirs; the models that the run will "
    "train answer in other lengths"
)
SERVERS = "no server is asked: its prompts are counted in the tokens of the run's own model, and its time isn't known"
MEMORY = "memory of caches and activations is estimated; the rest is read from the heads of the weight files"


def make_plan(config: RunConfig, *, calibrate: bool) -> dict[str, Any]:
    """What a run will do.

    Keys: name, calibrated, upper_bound, sample_rows, stages[], total, endpoints[], warnings[], assumptions[].

    Raises:
        CharterError: something that the run file names can't be read.
    """
    inputs = gather(config)
    found = _calibrated(config, inputs) if calibrate else counted_plan(config, inputs)
    return {**found, "warnings": [*warnings(config, inputs), *unset_keys(config)]}


def counted_plan(config: RunConfig, inputs: Inputs) -> dict[str, Any]:
    """The plan without loading any model: upper bounds where its tokenizer is at hand, and no times."""
    from charter.models.load import encoder_at_hand

    encoder = encoder_at_hand(config.model.source)
    if encoder is None:
        stand_in = StandIn(config.model.source)
        probe = Probe(
            config, inputs, Meter(stand_in), _StandIns(None, 4.0), stand_in, COUNTED_ROWS, few_shot=False,
            labels_mean_something=False,
        )  # fmt: skip
        return _told(config, probe.work(), None, [UPPER.format(but=BY_CHARACTERS)], COUNTED_ROWS)
    ruler = TokenRuler(encoder)
    settings = (None, ruler.filler_per_token)
    meter = Meter(StandIn(config.model.source, *settings, measure=ruler.prompt))
    others, few_shot = _StandIns(*settings, ruler.prompt), not encoder.has_template
    probe = Probe(config, inputs, meter, others, ruler, COUNTED_ROWS, few_shot, labels_mean_something=False)
    return _told(config, probe.work(), None, [UPPER.format(but=BY_TOKENIZER)], COUNTED_ROWS) | {"upper_bound": True}


class _StandIns:
    """One stand-in behind a meter per model."""

    def __init__(self, answer_tokens: float | None, characters_per_token: float, measure: Any = None) -> None:
        self._settings, self._measure = (answer_tokens, characters_per_token), measure
        self._open: dict[ModelConfig, Meter] = {}

    def __call__(self, model: ModelConfig) -> Meter:
        if model not in self._open:
            self._open[model] = Meter(StandIn(model.source, *self._settings, measure=self._measure))
        return self._open[model]


def _calibrated(config: RunConfig, inputs: Inputs) -> dict[str, Any]:
    import os

    import torch

    from charter.models.endpoint import is_endpoint
    from charter.plan.calibrate import LocalRuler, time_adapters, time_generating, time_passes
    from charter.stages.saved import loaded

    torch.set_num_threads(config.num_threads or os.cpu_count() or 1)
    with loaded(config.model) as model:
        limit = config.revise.sampling.max_new_tokens
        speed = time_generating(model, inputs.prompts, limit, config.revise.rounds if "sl" in config.phases else 0)
        ruler = LocalRuler(model)
        text = " ".join(turn.content for prompt in inputs.prompts[:50] for turn in prompt.messages)
        stand_ins = _StandIns(speed.written_tokens, len(text) / max(1.0, ruler.response(text)), ruler.prompt)
        meters = {config.model.source: Meter(model)}
        meters[config.model.source].name = config.model.source  # by which the plan knows it

        def open_model(wanted: ModelConfig) -> Meter:
            return stand_ins(wanted) if is_endpoint(wanted.source) else meters.get(wanted.source) or stand_ins(wanted)

        asked = labeler_models(config.label.labeler)
        real = all(wanted.source in meters for wanted in asked)
        probe = Probe(
            config,
            inputs,
            meters[config.model.source],
            open_model,
            ruler,
            speed.rows,
            not model.has_chat_template,
            real,
        )
        work = probe.work()
        texts = [(prompt.messages, "a few words " * 8) for prompt in inputs.prompts[: speed.rows]]
        trained, forward = time_passes(model, texts)
        adapters = next(filter(None, (section.lora for section in _sections(config))), None)
        adapted = time_adapters(model, texts, adapters) if adapters is not None else trained
        speed = dataclasses.replace(
            speed, per_trained_token=trained, per_adapted_token=adapted, per_forward_token=forward
        )
    notes = [MEASURED.format(rows=speed.rows), *([SERVERS] if servers_of(config) else [])]
    if any(wanted.source not in meters and not is_endpoint(wanted.source) for wanted in asked):
        notes.append("a labeler that is another local model was not loaded: its time isn't known")
    return _told(config, work, speed, notes, speed.rows)


def _told(config: RunConfig, work: list[StageWork], speed: Any, notes: list[str], rows: int) -> dict[str, Any]:
    prices = {model.source: model.endpoint or EndpointConfig() for model in servers_of(config)}
    held = {entry.stage: entry for entry in memory_plan(config)}
    stages = [_stage(config, stage, speed, held.get(stage.name.partition("-round")[0]), prices) for stage in work]
    seconds = [stage["seconds"] for stage in stages]
    memory = [stage["memory_gb"] for stage in stages]
    return {
        "name": config.name,
        "calibrated": speed is not None,
        "upper_bound": False,
        "sample_rows": rows,
        "stages": stages,
        "total": {
            **{key: sum(stage[key] for stage in stages) for key in TOTALS},
            "seconds": None if None in seconds else round(sum(seconds), 1),
            "money": _sum_known([stage["money"] for stage in stages]),
            "memory_gb": None if None in memory else max(memory),
        },
        "endpoints": [_endpoint(source, settings, work) for source, settings in prices.items()],
        "assumptions": [*notes, MEMORY],
    }


TOTALS = ("calls", "prompt_tokens", "completion_tokens", "trained_tokens")


def _stage(
    config: RunConfig, stage: StageWork, speed: Any, held: StageMemory | None, prices: dict[str, EndpointConfig]
) -> dict[str, Any]:
    seconds, why = _seconds(config, stage, speed)
    size, parts = (held.num_bytes, held.to_json()["parts"]) if held else (None, [])
    unknown = next((f"{part['model']}: {part['note']}" for part in parts if part["num_bytes"] is None), None)
    tallies = list(stage.asked.values())
    return {
        "name": stage.name,
        "rows": stage.rows,
        "unit": stage.unit,
        "calls": round(sum(t.calls for t in tallies)),
        "check_calls": round(stage.check_calls),
        "prompt_tokens": round(sum(t.prompt_tokens for t in tallies)),
        "completion_tokens": round(sum(t.completion_tokens for t in tallies)),
        "trained_tokens": round(stage.trained_tokens),
        "num_tokens": round(stage.counted_tokens),
        "seconds": seconds,
        "seconds_reason": why,
        "money": _sum_known(
            [_money(stage.asked.get(source), s) for source, s in prices.items() if source in stage.asked]
        ),
        "memory_gb": None if size is None else round(size / 1e9, 3),
        "memory_reason": unknown,
        "memory": parts,
        "models": list(stage.asked),
    }


def _seconds(config: RunConfig, stage: StageWork, speed: Any) -> tuple[float | None, str | None]:
    if speed is None:
        return None, "not calibrated"
    if stage.name == "6-policy" and config.policy.rollouts is not None:
        return None, f"{config.policy.rollouts.source} wasn't asked"
    adapters = any(s.lora for s in _sections(config, stage.name))
    per_trained = speed.per_adapted_token if adapters else speed.per_trained_token
    found = stage.trained_tokens * per_trained + stage.forward_tokens * speed.per_forward_token
    for source, tally in stage.asked.items():
        if source != config.model.source:
            return None, f"{source} wasn't asked"
        # what was timed on the sample says it best; what was only counted goes by the model's speed
        found += tally.seconds if tally.seconds else speed.generating(tally, stage.batch_rows)
    return round(found, 1), None


def _sections(config: RunConfig, stage: str = "") -> list[Training]:
    """What trains: in a stage, or (empty) in any."""
    policy: Training = config.dpo if config.policy.algorithm == "dpo" else config.policy
    of = {"2-sft": config.sft, "5-reward": config.reward, "6-policy": policy}
    return [section for name, section in of.items() if stage.startswith(name) or not stage]


def _money(tally: Tally | None, settings: EndpointConfig) -> float | None:
    if tally is None:
        return 0.0
    if settings.price is None:
        return None
    return round((tally.prompt_tokens * settings.price[0] + tally.completion_tokens * settings.price[1]) / 1e6, 4)


def _sum_known(values: list[float | None]) -> float | None:
    """Their sum; None where one of them can't be known."""
    return None if None in values else round(math.fsum(value for value in values if value is not None), 4)


def _endpoint(source: str, settings: EndpointConfig, work: list[StageWork]) -> dict[str, Any]:
    tally = sum((stage.asked[source] for stage in work if source in stage.asked), Tally())
    money, tokens = _money(tally, settings), round(tally.prompt_tokens + tally.completion_tokens)
    over_money = money is not None and settings.max_spend is not None and money > settings.max_spend
    return {
        "source": source,
        "calls": round(tally.calls),
        "prompt_tokens": round(tally.prompt_tokens),
        "completion_tokens": round(tally.completion_tokens),
        "price": settings.price and list(settings.price),
        "money": money,
        "max_spend": settings.max_spend,
        "max_tokens": settings.max_tokens,
        "stops_before_the_end": over_money or (settings.max_tokens is not None and tokens > settings.max_tokens),
    }


def against(plan: dict[str, Any], run: Path) -> list[dict[str, Any]]:
    """Planned over used, stage by stage of a finished run: tokens as its summary counts them, and seconds.

    Raises:
        StoreError, DataError: there is no finished run.
    """
    used = {stage["name"]: stage for stage in read_json(run / "summary.json")["stages"]}
    return [
        {
            "name": stage["name"],
            "used_tokens": used[stage["name"]]["num_tokens"],
            "tokens_ratio": _ratio(stage["num_tokens"], used[stage["name"]]["num_tokens"]),
            "used_seconds": used[stage["name"]]["wall_seconds"],
            "seconds_ratio": _ratio(stage["seconds"], used[stage["name"]]["wall_seconds"]),
        }
        for stage in plan["stages"]
        if stage["name"] in used
    ]


def _ratio(planned: float | None, used: float | None) -> float | None:
    return round(planned / used, 3) if planned is not None and used else None
