"""Run a run file again and again, each time killed with SIGKILL at a named moment; the last time undisturbed.

    python killed_run.py RUN.yaml FOLDER LABEL:COUNT ...    prints the exit status of each attempt

A moment is the COUNT-th advance of what was started under LABEL. Imports are done once; each attempt is a fork.
"""

import os
import signal
import sys
from pathlib import Path

import transformers.models.llama.modeling_llama  # noqa: F401  the slow import, before the forks

from charter.pipeline import run
from charter.progress import QuietProgress
from charter.run_file import load_run


class KillingProgress(QuietProgress):
    """Ends its own process, as ``kill -9`` would, at a moment."""

    def __init__(self, label: str, count: int) -> None:
        self.label, self.left, self.current = label, count, ""

    def start(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        self.current = stage

    def resume(self, num: int) -> None:
        self.advance(num)  # counts as one

    def advance(self, num: int = 1, note: str = "") -> None:
        self.left -= self.current == self.label
        if self.left == 0 and self.current == self.label:
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(progress: QuietProgress) -> int:
    child = os.fork()
    if child == 0:
        run(load_run(Path(sys.argv[1])), Path(sys.argv[2]), progress)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for moment in sys.argv[3:]:
        label, _, count = moment.rpartition(":")
        print(attempt(KillingProgress(label, int(count))), flush=True)
    print(attempt(QuietProgress()), flush=True)
