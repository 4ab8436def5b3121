"""A stage is done once per key: the hash of everything that its result depends on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from charter.errors import ModelError
from charter.progress import Progress
from charter.sources import is_local
from charter.store.disk import store_errors
from charter.store.folder import RunFolder, StageFolder
from charter.store.hashing import hash_file, hash_folder, hash_json
from charter.store.whole import KEY_FILE

State = Literal["done", "begun", "to do"]
CHECKPOINT, DONE_WITH = "checkpoint", ".checkpoint"
HASHED_BESIDE, HASHED_HERE = ("source", "labels"), ("pairs", "helpful_data")  # settings that may be paths


def do_stage(
    folder: RunFolder, name: str, reads: dict[str, Any], work: Callable[[Path], dict[str, Any]], progress: Progress
) -> str:
    """Do a stage unless it is done, and return its key.

    What was begun under the same key goes on where it stopped; what was begun or done under another one is cleared.

    Args:
        reads: all that the result depends on, as JSON.
        work: does the stage in the given folder and returns its summary.

    Raises:
        ModelError: the device is out of memory; and whatever ``work`` raises.
    """
    key = stage_key(name, reads)
    stage = folder.stage(name)
    if stage.is_done(key):
        _remove_checkpoints(stage.path)
        progress.say(f"{name}: done before")
        return key
    _begin(stage, key)
    progress.start(f"{name}: loading the model")
    with stage.attempt():
        try:
            summary = work(stage.path)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{name}: the device is out of memory: where models train, lower tokens_per_forward or set "
                "gradient_checkpointing, which keeps what is done; elsewhere lower batch_size; then run again"
            ) from error
        _rename_checkpoints(stage.path, CHECKPOINT, DONE_WITH)
        stage.finish(key, summary)
    _remove_checkpoints(stage.path)
    progress.finish(name)
    return key


def stage_key(name: str, reads: dict[str, Any]) -> str:
    """Hash of a stage's name and of all that its result depends on: by content, so that nothing is redone elsewhere."""
    return hash_json({"stage": name, **_placeless(reads)})


def _placeless(value: Any, key: str = "") -> Any:
    """Settings without paths: of models, prompts and labels the content is hashed beside, of other data it stands here."""
    if isinstance(value, dict):
        return {name: _placeless(item, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_placeless(item, key) for item in value]
    if not isinstance(value, str) or key not in HASHED_BESIDE + HASHED_HERE or not is_local(value):
        return value
    path = Path(value)
    if key in HASHED_BESIDE or not path.exists():
        return "a path"
    return hash_folder(path) if path.is_dir() else hash_file(path)


def state_of(path: Path, key: str) -> State:
    """How far a stage is under this key; nothing is written."""
    if not path.is_dir():
        return "to do"
    done = StageFolder(path).done_key()
    if done is None:
        return "begun" if _is_begun(path, key) else "to do"
    return "done" if done == key else "to do"


def _is_begun(path: Path, key: str) -> bool:
    marker = path / KEY_FILE
    return marker.is_file() and marker.read_text() == key


def _begin(stage: StageFolder, key: str) -> None:
    if _is_begun(stage.path, key) and stage.done_key() is None:
        _rename_checkpoints(stage.path, DONE_WITH, CHECKPOINT)
        return
    stage.clear()
    with store_errors(stage.path):
        (stage.path / KEY_FILE).write_text(key)


def _rename_checkpoints(folder: Path, before: str, after: str) -> None:
    """Hide the checkpoints of training while the stage is closed (they are none of its content), or bring them back.

    They go only when all that was made of them is safe: a kill at any moment trains nothing again.
    """
    with store_errors(folder):
        for path in list(folder.rglob(before)):
            path.rename(path.with_name(after))


def _remove_checkpoints(folder: Path) -> None:
    for path in list(folder.rglob(DONE_WITH)):
        shutil.rmtree(path, ignore_errors=True)
