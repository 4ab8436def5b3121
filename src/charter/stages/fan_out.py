"""``scale: {fan_out: ray}``: chunks of 1-revise and 3-sample made by workers of Ray Data, each with the model in its own memory.

The file of the stage stays the truth: rows are appended here, in order, as chunks come back by their number; what comes twice
counts once. A worker that dies is replaced, and its chunk made again; it comes out the same, since a chunk depends on nothing
else. Models and constitution are read by their paths: machines share a file system, or have the same files.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from charter.config import ModelConfig, ReviseConfig, SampleConfig, ScaleConfig
from charter.constitution.load import load_constitution
from charter.errors import CharterError, ConfigError, ModelError
from charter.models.few_shot import worked_examples
from charter.models.load import load_model
from charter.records import Prompt
from charter.stages.chunks import Execute
from charter.stages.revise import Reviser
from charter.stages.sample import sample_together


def sample_task(config: SampleConfig, model: ModelConfig, seed: int) -> dict[str, Any]:
    """What a worker must know to sample, as JSON."""
    return {"stage": "sample", "config": config.model_dump(), "model": model.model_dump(), "seed": seed}


def revise_task(config: ReviseConfig, model: ModelConfig, seed: int, constitution: Path) -> dict[str, Any]:
    """What a worker must know to revise, as JSON."""
    return {
        "stage": "revise", "config": config.model_dump(), "model": model.model_dump(), "seed": seed,
        "constitution": str(constitution.absolute()),
    }  # fmt: skip


class Worker:
    """Loads the model of a task, and makes chunks."""

    def __init__(self, task: dict[str, Any], num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._task, self._seed = task, task["seed"]
        self._model: Any = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """``{place, prompts}`` to ``{place, rows, error}``: rows as JSON, or what the user can mend."""
        try:
            rows = self._make([Prompt.from_json(prompt) for prompt in json.loads(row["prompts"])])
        except CharterError as error:
            return {"place": row["place"], "rows": "", "error": str(error)}
        return {"place": row["place"], "rows": json.dumps(rows), "error": ""}

    def _make(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        task = self._task
        if self._model is None:
            self._model = load_model(ModelConfig(**task["model"]))
        if task["stage"] == "sample":
            return sample_together(SampleConfig(**task["config"]), self._model, self._seed, prompts)
        examples = () if self._model.has_chat_template else worked_examples()
        constitution = load_constitution(Path(task["constitution"]))
        reviser = Reviser(ReviseConfig(**task["config"]), constitution, self._model, self._seed, examples)
        return [chain.to_json() for chain in reviser.revise_together(prompts)]


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
    scale: ScaleConfig, task: dict[str, Any], num_threads: int, chunks: Sequence[Sequence[Prompt]]
) -> Iterator[list[dict[str, Any]]]:
    """Rows of the chunks in their order, whatever the order in which they are made."""
    import ray
    import ray.data

    if not chunks:
        return
    rows = [
        {"place": place, "prompts": json.dumps([prompt.to_json() for prompt in chunk])}
        for place, chunk in enumerate(chunks)
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
