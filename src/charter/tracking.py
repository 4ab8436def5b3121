"""Training metrics for a tracker: the lines of a stage's metrics.jsonl, which stays the truth, as TensorBoard's scalars.

reads   STAGE/metrics.jsonl
writes  tensorboard/STAGE/events.out.tfevents.*, anew each time, so that a resumed run shows every step once
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from charter.errors import ConfigError
from charter.store.jsonl import read_rows

FOLDER = "tensorboard"


def check_tracker(tracker: str | None) -> None:
    """Can the tracker be written?

    Raises:
        ConfigError: its package is not installed.
    """
    if tracker is not None and find_spec(tracker) is None:
        raise ConfigError(
            f"tracker: {tracker} is not installed: pip install 'charter[{tracker}]', or leave the key out"
        )


def track(run: Path, stage: str) -> int:
    """Write a stage's numbers as scalars named ``STAGE/metric`` at the line's ``step``; returns how many were written.

    A stage that trains nothing has no metrics, and gets no folder. Values that are no numbers are left out.
    """
    metrics, events = run / stage / "metrics.jsonl", run / FOLDER / stage
    if events.exists():
        shutil.rmtree(events)
    if not metrics.exists():
        return 0
    from torch.utils.tensorboard import SummaryWriter

    num_written = 0
    with SummaryWriter(str(events)) as writer:
        for _, row in read_rows(metrics):
            step = row["step"]
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                    writer.add_scalar(f"{stage}/{name}", value, step)
                    num_written += 1
    return num_written
