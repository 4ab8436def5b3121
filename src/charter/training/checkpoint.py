"""Checkpoints of a training loop: atomic, complete, without pickles. Resuming gives the bitwise same run.

checkpoint/step-00000040/   model.safetensors      trained weights by name, in float32
                            optimizer.safetensors  optimiser state by entry and name
                            state.json             step, settings, random states

Several processes write ``shards/`` in place of the two files, by torch's distributed checkpoint, in safetensors; a number of
processes can go on from what another number wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from charter.errors import TrainingError
from charter.store.disk import store_errors
from charter.training import distributed

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
    if distributed.world().size > 1:
        _save_together(draft, weights, optimizer)
        if not distributed.is_main():
            distributed.barrier()  # for the renaming
            return
    with store_errors(folder):
        if distributed.world().size == 1:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        try:
            _write(draft, weights, optimizer, {"step": step, "settings": settings, **_random_states()})
            draft.rename(final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _sync(folder)
        for old in sorted(folder.glob("step-*"))[:-KEEP]:
            shutil.rmtree(old)
    distributed.barrier()


def check_finite(weights: Mapping[str, Tensor], consequence: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        TrainingError: a weight does; names it, and says ``consequence``.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and not bool(distributed.whole(torch.isfinite(weight).all())):
            raise TrainingError(f"weight {name} is not finite; {consequence}; lower the learning rate and run again")


def _write(draft: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    if distributed.world().size == 1:
        save_file(
            {name: weight.detach().contiguous().clone() for name, weight in weights.items()},
            draft / "model.safetensors",
        )
        save_file(_optimizer_tensors(weights, optimizer), draft / "optimizer.safetensors")
    (draft / "state.json").write_text(json.dumps(state))
    for path in [*draft.rglob("*"), draft]:
        _sync(path)


def _save_together(draft: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Every process writes its part; returns when all have."""
    import torch.distributed.checkpoint as dcp

    if distributed.is_main():
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "shards").mkdir(parents=True)
    distributed.barrier()
    parts = {f"model/{name}": weight.detach() for name, weight in weights.items()}
    parts |= {f"{e}/{name}": v for name, w in weights.items() for e, v in optimizer.state.get(w, {}).items()}
    dcp.save(parts, storage_writer=dcp.HuggingFaceStorageWriter(str(draft / "shards"), save_distributed=True))
    distributed.barrier()


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
        saved, moments = _read_shards(newest, weights) if (newest / "shards").is_dir() else _read(newest)
    if state["settings"] != settings or saved.keys() != weights.keys():
        raise TrainingError(
            f"{newest} was made with other settings, data or another model: remove {folder} to train anew, or go back"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(distributed.like(saved[name], weight))
    for key, value in moments.items():
        entry, _, name = key.partition("/")
        optimizer.state[weights[name]][entry] = distributed.like(value, weights[name])
    torch.set_rng_state(torch.tensor(state["torch_random_state"], dtype=torch.uint8))
    if torch.cuda.is_available() and state["cuda_random_states"]:
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in state["cuda_random_states"]])
    return int(state["step"])


def _read(newest: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return load_file(newest / "model.safetensors"), load_file(newest / "optimizer.safetensors")


def _read_shards(newest: Path, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and moments, split as this process's weights are, whoever wrote them."""
    import torch.distributed.checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(str(newest / "shards"))
    known: dict[str, Any] = reader.read_metadata().state_dict_metadata
    sizes = {key: entry.size for key, entry in known.items()}
    parts = {}
    for key, size in sizes.items():
        weight = weights.get(key.partition("/")[2])
        fits = weight is not None and weight.shape == size
        parts[key] = torch.zeros_like(weight.detach()) if weight is not None and fits else torch.zeros(size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it should be, in one process
        dcp.load(parts, storage_reader=reader, no_dist=distributed.world().size == 1)
    saved = {key.removeprefix("model/"): value for key, value in parts.items() if key.startswith("model/")}
    return saved, {key: value for key, value in parts.items() if not key.startswith("model/")}


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
