"""Is this machine fit for a run? Each finding says what is there, and how to mend what isn't.

Keys are told by name alone: their values are never read further than whether they are empty.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from charter.store.wal import enter_wal

Level = Literal["ok", "note", "problem"]
MIN_PYTHON = (3, 11)
MIN_FREE_GB = 5.0
QUICK_SECONDS = 2.0
NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "jinja2", "filelock")
EXTRAS = {
    "endpoint": (("openai",), "models behind OpenAI-compatible servers"),
    "rate": (("starlette", "uvicorn"), "the page where people label"),
    "math": (("math_verify",), "the math checker"),
    "parquet": (("pyarrow",), "Parquet files"),
    "postgres": (("psycopg",), "labels of people in PostgreSQL"),
    "tensorboard": (("tensorboard",), "training curves (tracker: tensorboard)"),
}
KEYS = ("OPENAI_API_KEY", "HF_TOKEN")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``fix`` is what to do where it isn't ok."""

    name: str
    level: Level
    says: str
    fix: str | None = None


def examine(folder: Path, run_file: Path | None = None, overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every finding, as JSON; ``folder`` is where runs will be written.

    Raises:
        CharterError: the run file is wrong.
    """
    found = [_python(), *map(_needed, NEEDED), _device(), *(_extra(name) for name in EXTRAS)]
    found += [*_disk(folder), _hub(), *map(_key, KEYS)]
    if run_file is not None:
        from charter.doctor_run import examine_run

        found += examine_run(run_file, list(overrides))
    return [asdict(finding) for finding in found]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= MIN_PYTHON:
        return Finding("python", "ok", version)
    return Finding("python", "problem", version, "install Python 3.11 or later")


def _needed(package: str) -> Finding:
    try:
        return Finding(package, "ok", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "problem", "not installed", f"pip install {package}")


def _device() -> Finding:
    try:
        import torch
    except Exception as error:  # a broken installation raises nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding("device", "problem", f"torch can't be loaded: {reason}", "install torch anew")
    if not torch.cuda.is_available():
        says = f"cpu, {torch.get_num_threads()} threads, float32"
        return Finding("device", "note", says, "for models of a billion parameters and more, use a machine with a GPU")
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return Finding(
        "device", "ok", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GB, {dtype}"
    )


def _extra(name: str) -> Finding:
    packages, use = EXTRAS[name]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if not missing:
        return Finding(f"extra {name}", "ok", f"for {use}")
    return Finding(f"extra {name}", "note", f"not installed; for {use}", f"pip install 'charter[{name}]'")


def _disk(folder: Path) -> list[Finding]:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free / 1e9
    low = free < MIN_FREE_GB
    fix = "free some space: checkpoints of a model take 12 to 16 bytes per parameter" if low else None
    found = [Finding("disk", "problem" if low else "ok", f"{free:.1f} GB free at {there}", fix)]
    try:
        with tempfile.TemporaryDirectory(dir=there) as scratch:
            (Path(scratch) / "x").write_bytes(b"x")
            found.append(Finding("write", "ok", f"{there} can be written"))
            connection = sqlite3.connect(Path(scratch) / "x.sqlite", isolation_level=None)
            try:
                enter_wal(connection, 5.0)
                mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
            finally:
                connection.close()
    except (OSError, sqlite3.Error) as error:
        return [*found, Finding("write", "problem", f"{there}: {error}", "choose a local folder that you may write to")]
    wal = Finding("sqlite", "ok", f"{sqlite3.sqlite_version}, write-ahead log")
    if mode != "wal":
        wal = Finding("sqlite", "problem", f"journal mode {mode}", "choose a local disk: network disks often lack it")
    return [*found, wal]


def _hub() -> Finding:
    offline = [
        name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name) not in (None, "", "0")
    ]
    if offline:
        return Finding(
            "hub", "note", f"offline by {', '.join(offline)}", f"unset {offline[0]} to load models by hub id"
        )
    if status_of(hub_url()) is None:
        fix = "connect or set a proxy to load models by hub id; models in folders need no Hub"
        return Finding("hub", "note", f"not offline mode, but {hub_url()} is unreachable", fix)
    return Finding("hub", "ok", "online: models given by hub id are downloaded when a run starts")


def hub_url() -> str:
    """Where the Hub is."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def status_of(url: str) -> int | None:
    """What a server says to a quick request without a key; None: nothing comes within two seconds."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="GET"), timeout=QUICK_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _key(name: str) -> Finding:
    if os.environ.get(name):
        return Finding(f"key {name}", "ok", "set")
    return Finding(f"key {name}", "note", "not set", f"export {name}=..., if what you use asks for it")
