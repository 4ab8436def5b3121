"""One process of several that do a training stage together: ``python -m charter.worker RUN_FOLDER STAGE``.

Started by the pipeline (training/launch.py), itself or through torchrun. Every process runs the same stage code on the same
files; the first one writes.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from charter.config import RunConfig
from charter.errors import CharterError
from charter.pipeline import Pipeline, threads_of
from charter.progress import QuietProgress
from charter.run_file import load_run
from charter.stages.inputs import gather
from charter.store.folder import RunFolder
from charter.store.jsonl import write_json
from charter.store.ledger import Ledger
from charter.training import distributed
from charter.training.launch import RESULT, tell_error, watch_parent


class OneStage(Pipeline):
    """Does a single training stage, whose inputs are there."""

    def __init__(self, config: RunConfig, folder: Path, ledger: Ledger, stage: str) -> None:
        super().__init__(config, gather(config), RunFolder(folder, None), ledger, QuietProgress())
        self._keys = defaultdict(str)
        self._only, self._found = stage, {}  # type: str, dict[str, Any]

    def _stage(
        self, name: str, reads: dict[str, Any], work: Callable[[Path], dict[str, Any]], *, trains: bool = False
    ) -> None:
        self._found = work(self._folder.path / name)

    def do(self) -> dict[str, Any]:
        """Returns the stage's summary."""
        if self._only == "5-reward":
            self._train_reward()
        elif self._only == "6-policy":
            self._train_policy()
        else:
            rounds = self._only.removeprefix("2-sft").removeprefix("-round-")
            self._train_sft(self._only, int(rounds or self._config.revise.rounds))
        return self._found


def main(folder: Path, stage: str) -> None:
    """Do the stage together with the others."""
    config = load_run(folder / "run.yaml")
    scale = config.scale
    torch.set_num_threads(threads_of(config))
    try:
        distributed.join(scale.processes, scale.sharding, scale.stall_seconds)
        with Ledger(folder / "ledger.sqlite") as ledger:
            found = OneStage(config, folder, ledger, stage).do()
        if distributed.is_main():
            write_json(folder / stage / RESULT, found)
        distributed.end()
    except CharterError as error:
        tell_error(folder / stage, error)
        os._exit(2)  # without waiting for the others


if __name__ == "__main__":
    watch_parent()
    main(Path(sys.argv[1]), sys.argv[2])
