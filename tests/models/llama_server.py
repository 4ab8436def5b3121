"""llama.cpp's own OpenAI-compatible server on a model folder: a server that we did not write.

It is installed apart, because its build takes minutes: ``pip install "llama-cpp-python[server]" gguf safetensors`` in an
environment of its own, and its interpreter named in ``CHARTER_LLAMA_PYTHON``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.models.local_server import answers, free_port

GGUF = Path(__file__).with_name("gguf_file.py")
NEEDS = "llama_cpp.server, gguf, safetensors"


def interpreter() -> str | None:
    """The Python that has the server, None where there is none."""
    python = os.environ.get("CHARTER_LLAMA_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", f"import {NEEDS}"], capture_output=True, check=False)
    return python if found.returncode == 0 else None


class LlamaServer:
    """The server on a free port; ``kill`` and ``start`` as often as wanted."""

    def __init__(self, python: str, folder: Path, work: Path, context: int = 2048) -> None:
        self._python, self._file = python, work / "model.gguf"
        subprocess.run([python, str(GGUF), str(folder), str(self._file)], check=True, capture_output=True)
        self._port = free_port()
        self._context = context
        self._log = work / "server.log"
        self.base_url = f"http://127.0.0.1:{self._port}/v1"
        self.source = f"{self.base_url}#model"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._python, "-m", "llama_cpp.server", "--model", str(self._file), "--port", str(self._port)]
        command += ["--logits_all", "true", "--n_ctx", str(self._context), "--n_threads", "1", "--n_threads_batch", "1"]
        command += ["--host", "127.0.0.1", "--verbose", "false"]
        with self._log.open("ab") as log:
            own = {**os.environ, "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=own)
        for _ in range(300):
            if answers(self.base_url):
                return
            time.sleep(0.1)
        raise RuntimeError(f"no answer: {self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> LlamaServer:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.kill()
