"""``scale: {fan_out: ray}``: chunks of 1-revise, 3-sample and 4-label made by workers of Ray Data, each with the model in its
own memory.

The file of the stage stays the truth: rows are appended here, in order, as chunks come back by their number; what comes twice
counts once. A worker that dies is replaced, and its chunk made again; it comes out the same, since a chunk depends on nothing
else. Models and constitution are read by their paths: machines share a file system, or have the same files. Labelers behind
an endpoint are asked by the main process alone, which paces its calls.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from charter.config import LabelConfig, ModelConfig, ReviseConfig, SampleConfig, ScaleConfig, labeler_models
from charter.constitution.load import load_constitution
from charter.errors import CharterError, ConfigError, ModelError
from charter.labelers.make import make_labeler
from charter.models.endpoint import is_endpoint
from charter.models.few_shot import worked_examples
from charter.models.load import load_model
from charter.models.protocol import LanguageModel
from charter.records import Prompt, ResponsePair
from charter.stages.chunks import Execute
from charter.stages.revise import Reviser
from charter.stages.sample import sample_together

Make = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""The rows of a chunk of items, both as JSON."""


def sample_task(config: SampleConfig, model: ModelConfig, seed: int) -> dict[str, Any]:
    """What a worker must know to sample, as JSON."""
    return {"stage": "sample", "config": config.model_dump(), "model": model.model_dump(), "seed": seed}


def revise_task(config: ReviseConfig, model: ModelConfig, seed: int, constitution: Path) -> dict[str, Any]:
    """What a worker must know to revise, as JSON."""
    return {
        "stage": "revise", "config": config.model_dump(), "model": model.model_dump(), "seed": seed,
        "constitution": str(constitution.absolute()),
    }  # fmt: skip


def label_task(config: LabelConfig, seed: int, constitution: Path) -> dict[str, Any] | None:
    """What a worker must know to label, as JSON; None where no model on this machine labels."""
    models = labeler_models(config.labeler)
    if not models or any(is_endpoint(model.source) for model in models):
        return None
    return {
        "stage": "label", "config": config.model_dump(mode="json"), "seed": seed,
        "constitution": str(constitution.absolute()),
    }  # fmt: skip


class Worker:
    """Loads the models of a task at the first chunk, and makes chunks."""

    def __init__(self, task: dict[str, Any], num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._task = task
        self._make: Make | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """``{place, items}`` to ``{place, rows, error}``: rows as JSON, or what the user can mend."""
        try:
            if self._make is None:
                self._make = MAKERS[self._task["stage"]](self._task)
            rows = self._make(json.loads(row["items"]))
        except CharterError as error:
            return {"place": row["place"], "rows": "", "error": str(error)}
        return {"place": row["place"], "rows": json.dumps(rows), "error": ""}


def _sampler(task: dict[str, Any]) -> Make:
    config, model = SampleConfig(**task["config"]), load_model(ModelConfig(**task["model"]))
    return lambda items: sample_together(config, model, task["seed"], [Prompt.from_json(item) for item in items])


def _reviser(task: dict[str, Any]) -> Make:
    model = load_model(ModelConfig(**task["model"]))
    examples = () if model.has_chat_template else worked_examples()
    constitution = load_constitution(Path(task["constitution"]))
    reviser = Reviser(ReviseConfig(**task["config"]), constitution, model, task["seed"], examples)
    return lambda items: [
        chain.to_json() for chain in reviser.revise_together([Prompt.from_json(item) for item in items])
    ]


def _labeler(task: dict[str, Any]) -> Make:
    models: dict[ModelConfig, LanguageModel] = {}

    def open_model(config: ModelConfig) -> LanguageModel:
        if config not in models:
            models[config] = load_model(config)
        return models[config]

    constitution = load_constitution(Path(task["constitution"]))
    labeler = make_labeler(LabelConfig(**task["config"]).labeler, open_model, constitution, task["seed"])
    return lambda items: [
        judgment.to_json()
        for own in labeler.label([ResponsePair.from_json(item) for item in items])
        for judgment in own
    ]


MAKERS: dict[str, Callable[[dict[str, Any]], Make]] = {"sample": _sampler, "revise": _reviser, "label": _labeler}


@contextmanager
def spread(scale: ScaleConfig, task: dict[str, Any] | None, num_threads: int) -> Iterator[Execute | None]:
    """Who makes chunks for the length of the block; None where the run file, or there being no task, keeps them here."""
    if scale.fan_out == "local" or task is None:
        yield None
        return
    with ray_workers(scale, task, num_threads) as execute:
        yield execute


@contextmanager
def ray_workers(scale: ScaleConfig, task: dict[str, Any], num_threads: int) -> Iterator[Execute]:
    """Ray for the length of the block: the cluster of RAY_ADDRESS, or one on this machine that ends with it.

    Raises:
        ConfigError: Ray is not installed.
    """
    ray = _ray(scale.workers)
    try:
        yield chunks_on_ray(scale, task, num_threads)
    finally:
        ray.shutdown()


def chunks_on_ray(scale: ScaleConfig, task: dict[str, Any], num_threads: int) -> Execute:
    """Makes chunks while Ray is there."""
    return lambda chunks: _made(scale, task, num_threads, chunks)


def _ray(num_workers: int) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = "RAY_ADDRESS" not in os.environ
    if local:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # nobody else reaches it: it listens on loopback alone
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"scale.fan_out: ray is not installed ({error}): pip install 'charter[ray]', or leave the key out"
        ) from error
    if local:  # Ray Data hangs where the workers take all of Ray's processors, which are only a count
        ray.init(
            address="local", num_cpus=num_workers + 3, _node_ip_address="127.0.0.1", include_dashboard=False, **quiet
        )
    else:
        ray.init(**quiet)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray


def _made(
    scale: ScaleConfig, task: dict[str, Any], num_threads: int, chunks: Sequence[Sequence[Any]]
) -> Iterator[list[dict[str, Any]]]:
    """Rows of the chunks in their order, whatever the order in which they are made."""
    import ray
    import ray.data

    if not chunks:
        return
    rows = [
        {"place": place, "items": json.dumps([item.to_json() for item in chunk])} for place, chunk in enumerate(chunks)
    ]
    maker: Any = Worker  # Ray's types know functions alone
    made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        maker,
        fn_constructor_args=(task, num_threads),
        concurrency=min(scale.workers, len(rows)),
        max_restarts=scale.restarts,
        max_task_retries=scale.restarts,
    )
    waiting: dict[int, str] = {}
    place = 0
    try:
        for row in made.iter_rows():
            if row["error"]:
                raise ModelError(row["error"])
            if row["place"] >= place:
                waiting[row["place"]] = row["rows"]
            while place in waiting:
                yield json.loads(waiting.pop(place))
                place += 1
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"scale.fan_out: a worker of Ray died {scale.restarts + 1} times ({reason}): lower scale.workers if memory is "
            "short; the same command goes on"
        ) from error
    if place < len(chunks):
        raise ModelError(f"scale.fan_out: Ray gave {place} of {len(chunks)} chunks: run the same command again")
