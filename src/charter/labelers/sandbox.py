"""Run what a model wrote against tests, in a process of its own: limited time, memory and files, and no network.

The limits are the kernel's (setrlimit, a network namespace of its own); the folder is a fresh one that goes afterwards. It is
a fence against accidents and simple malice, no prison: run it in a container or a virtual machine where that matters.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from charter.errors import LabelerError

FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """``seconds`` of processor and of wall time alike."""

    seconds: float = 5.0
    memory_mb: int = 512


def passes(response: str, tests: str, limits: Limits) -> bool:
    """Does the program in the response (its last fenced block, else all of it) run through the tests to their end?

    The tests end by printing a word drawn for this call, so that a program that exits early, or prints what it likes, passes
    nothing.

    Raises:
        LabelerError: this machine can't shut the network off for a process.
    """
    blocks = FENCED.findall(response)
    program = blocks[-1] if blocks else response
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="charter-code-") as name:
        folder = Path(name)
        (folder / "program.py").write_text(program, encoding="utf-8", errors="replace")
        (folder / "tests.py").write_text(tests, encoding="utf-8", errors="replace")
        (folder / "run.py").write_text(RUNNER, encoding="utf-8")
        return _run(folder, word, limits).endswith(f"\n{word}\n".encode())


RUNNER = """
import sys
word = sys.stdin.read()
names = {"__name__": "__main__"}
exec(compile(open("program.py", encoding="utf-8").read(), "program.py", "exec"), names)
exec(compile(open("tests.py", encoding="utf-8").read(), "tests.py", "exec"), names)
sys.__stdout__.write("\\n" + word + "\\n")
sys.__stdout__.flush()
"""


def _run(folder: Path, word: str, limits: Limits) -> bytes:
    process = subprocess.Popen(
        [*_without_network(), sys.executable, "-I", "run.py"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "TMPDIR": str(folder)},
        preexec_fn=_limiter(limits),
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(word.encode(), timeout=limits.seconds)
    except subprocess.TimeoutExpired:
        output = b""
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever it started goes with it
        process.communicate()
    return output[-4096:] if process.returncode == 0 else b""


def _limiter(limits: Limits) -> Callable[[], None]:
    import resource

    memory = limits.memory_mb << 20
    seconds = max(1, round(limits.seconds))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    return limit


@functools.cache
def _without_network() -> tuple[str, ...]:
    """The words that start a program in a network and process namespace of its own."""
    unshare = shutil.which("unshare")
    words = (unshare or "", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    if unshare is None or subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        raise LabelerError(
            "label.labeler.check: code needs unshare (util-linux) and user namespaces, to run without network: "
            "allow them, or use another check"
        )
    return words
