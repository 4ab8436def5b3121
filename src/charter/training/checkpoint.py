"""Checkpoints of a training loop: atomic, complete, without pickles. Resuming gives the bitwise same run.

    checkpoint/step-00000040/   model.safetensors  optimizer.safetensors  state.json (step, torch's random state)
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

KEEP = 2


def save_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write the state after ``step`` updates; at most the last two are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    if final.exists():
        return
    draft = folder / f".draft-{step:08d}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save_file({n: p.detach().contiguous().clone() for n, p in _trained(model)}, draft / "model.safetensors")
    save_file(_optimizer_tensors(model, optimizer), draft / "optimizer.safetensors")
    state = {"step": step, "torch_random_state": torch.get_rng_state().tolist()}
    (draft / "state.json").write_text(json.dumps(state))
    for path in [*draft.iterdir(), draft]:
        _sync(path)
    draft.rename(final)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Restore the newest checkpoint into model and optimiser; return its step, 0 where there is none."""
    found = sorted(folder.glob("step-*")) if folder.is_dir() else []
    if not found:
        return 0
    weights = load_file(found[-1] / "model.safetensors")
    with torch.no_grad():
        for name, parameter in _trained(model):
            parameter.copy_(weights[name])
    _restore_optimizer(model, optimizer, load_file(found[-1] / "optimizer.safetensors"))
    state = json.loads((found[-1] / "state.json").read_text())
    torch.set_rng_state(torch.tensor(state["torch_random_state"], dtype=torch.uint8))
    return int(state["step"])


def remove_checkpoints(folder: Path) -> None:
    """A finished stage needs none."""
    shutil.rmtree(folder, ignore_errors=True)


def _trained(model: Any) -> list[tuple[str, Tensor]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _optimizer_tensors(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in _trained(model):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = torch.as_tensor(value).detach().contiguous().clone()
    return tensors


def _restore_optimizer(model: Any, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    by_name = dict(_trained(model))
    for key, value in tensors.items():
        entry, _, name = key.partition("/")
        optimizer.state[by_name[name]][entry] = value.to(by_name[name].device) if entry != "step" else value


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
