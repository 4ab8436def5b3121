"""Training metrics for a tracker: the numbers of a stage's metrics.jsonl, which stays the truth.

reads   STAGE/metrics.jsonl
writes  tensorboard/STAGE/, trackio/, wandb/ (offline: ``wandb sync`` sends it) or mlflow/ (a file store), in the run folder;
        nothing leaves the machine. A stage is written when it is done, anew each time where the tracker can delete

A tracker that fails never ends a run: the failure is a line for people.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from charter.errors import ConfigError
from charter.store.jsonl import read_rows

Numbers = list[tuple[int, dict[str, float]]]
"""Step and numbers by name."""


def check_tracker(tracker: str | None) -> None:
    """Can the tracker be written?

    Raises:
        ConfigError: its package is not installed.
    """
    if tracker is not None and find_spec(tracker) is None:
        package = f"'charter[{tracker}]'" if tracker in ("tensorboard", "trackio") else tracker
        raise ConfigError(f"tracker: {tracker} is not installed: pip install {package}, or leave the key out")


def track(run: Path, stage: str, tracker: str = "tensorboard", name: str = "charter") -> tuple[int, str | None]:
    """Give a stage's numbers, named ``STAGE/metric``, to the tracker.

    A stage that trains nothing has no metrics, and is left out, as are values that are no numbers.

    Args:
        name: of the run.

    Returns:
        How many numbers were written, and why the tracker failed (None: it didn't).
    """
    metrics = run / stage / "metrics.jsonl"
    rows: Numbers = []
    if metrics.exists():
        rows = [(row["step"], dict(_numbers(row, stage))) for _, row in read_rows(metrics)]
    try:
        _WRITERS[tracker](run / tracker, stage, rows, name)
    except Exception as error:  # whatever a tracker's package raises: the run is worth more
        return 0, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return sum(len(values) for _, values in rows), None


def _numbers(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}/{name}")
        elif name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}/{name}", value


def _tensorboard(folder: Path, stage: str, rows: Numbers, name: str) -> None:
    events = folder / stage
    if events.exists():
        shutil.rmtree(events)
    if not rows:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(events)) as writer:
        for step, values in rows:
            for key, value in values.items():
                writer.add_scalar(key, value, step)


def _trackio(folder: Path, stage: str, rows: Numbers, name: str) -> None:
    if not rows:
        return
    with _environment(TRACKIO_DIR=str(folder)):
        import trackio

        trackio.init(project=name, name=stage, embed=False, auto_log_gpu=False, auto_log_cpu=False)
        for step, values in rows:
            trackio.log(values, step=step)
        trackio.finish()


def _wandb(folder: Path, stage: str, rows: Numbers, name: str) -> None:
    if not rows:
        return
    folder.mkdir(exist_ok=True)
    run = import_module("wandb").init(project=name, name=stage, id=stage, dir=str(folder), mode="offline")
    for step, values in rows:
        run.log(values, step=step)
    run.finish()


def _mlflow(folder: Path, stage: str, rows: Numbers, name: str) -> None:
    if not rows:
        return
    with _environment(MLFLOW_ALLOW_FILE_STORE="true"):
        metric = import_module("mlflow.entities").Metric
        client = import_module("mlflow.tracking").MlflowClient(tracking_uri=folder.absolute().as_uri())
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        for before in client.search_runs([experiment], filter_string=f"attributes.run_name = '{stage}'"):
            client.delete_run(before.info.run_id)
        run = client.create_run(experiment, run_name=stage).info.run_id
        for step, values in rows:
            client.log_batch(run, [metric(key, value, 0, step) for key, value in values.items()])
        client.set_terminated(run)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key)
            else:
                os.environ[key] = value


_WRITERS = {"tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb, "mlflow": _mlflow}
