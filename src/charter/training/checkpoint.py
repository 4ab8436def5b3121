"""Checkpoints of a training loop: atomic, complete, without pickles. Resuming gives the bitwise same run.

checkpoint/step-00000040/   model.safetensors      trained weights by name, in float32
                            optimizer.safetensors  optimiser state by entry and name
                            state.json             step, settings, random states
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from charter.errors import StoreError, TrainingError
from charter.store.disk import store_errors

KEEP = 2


def save_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, *, step: int, settings: str
) -> None:
    """Write the state after ``step`` updates; at most the last two are kept.

    Args:
        weights: what the optimiser trains, by name.
        settings: a hash of what the run depends on; a checkpoint of other settings is never resumed.

    Raises:
        TrainingError: a weight is NaN or infinite; nothing is written.
        StoreError: it can't be written; older checkpoints are left alone.
    """
    check_finite(weights, f"step {step}: the last good state is in {folder}")
    final, draft = folder / f"step-{step:08d}", folder / f".draft-{step:08d}"
    if final.exists():
        return
    with store_errors(folder):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            _write(draft, weights, optimizer, {"step": step, "settings": settings, **_random_states()})
            draft.rename(final)
        except SafetensorError as error:
            raise StoreError(f"{folder}: {error}: free some space and run the same command again") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _sync(folder)
        for old in sorted(folder.glob("step-*"))[:-KEEP]:
            shutil.rmtree(old)


def check_finite(weights: Mapping[str, Tensor], consequence: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        TrainingError: a weight does; names it, and says ``consequence``.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise TrainingError(f"weight {name} is not finite; {consequence}; lower the learning rate and run again")


def _write(draft: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    save_file(
        {name: weight.detach().contiguous().clone() for name, weight in weights.items()}, draft / "model.safetensors"
    )
    save_file(_optimizer_tensors(weights, optimizer), draft / "optimizer.safetensors")
    (draft / "state.json").write_text(json.dumps(state))
    for path in [*draft.iterdir(), draft]:
        _sync(path)


def load_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, *, settings: str
) -> int:
    """Restore the newest checkpoint into weights and optimiser; return its step, 0 where there is none.

    Raises:
        TrainingError: the checkpoint belongs to other settings, data or another model.
    """
    found = sorted(folder.glob("step-*")) if folder.is_dir() else []
    if not found:
        return 0
    newest = found[-1]
    with store_errors(newest):
        state = json.loads((newest / "state.json").read_text())
        saved = load_file(newest / "model.safetensors")
        moments = load_file(newest / "optimizer.safetensors")
    if state["settings"] != settings or saved.keys() != weights.keys():
        raise TrainingError(
            f"{newest} was made with other settings, data or another model: remove {folder} to train anew, or go back"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
    for key, value in moments.items():
        entry, _, name = key.partition("/")
        optimizer.state[weights[name]][entry] = value.to(weights[name].device)
    torch.set_rng_state(torch.tensor(state["torch_random_state"], dtype=torch.uint8))
    if torch.cuda.is_available() and state["cuda_random_states"]:
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in state["cuda_random_states"]])
    return int(state["step"])


def _random_states() -> dict[str, Any]:
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch_random_state": torch.get_rng_state().tolist(), "cuda_random_states": [s.tolist() for s in on_gpus]}


def _optimizer_tensors(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{entry}/{name}": torch.as_tensor(value).detach().contiguous().clone()
        for name, weight in weights.items()
        for entry, value in optimizer.state.get(weight, {}).items()
    }


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
