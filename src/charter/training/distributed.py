"""Several processes that train one model: who computes what, and sums over all of them. In one process nothing happens.

Every process knows the whole batch and computes its share. A loss is a sum divided by a count of the whole batch, and
gradients are summed, never averaged: the gradient is the same for any number of processes.

ddp    every process holds the whole model; gradients are summed once per update, in buckets.
fsdp   FSDP2 (torch's ``fully_shard``): float32 weights, gradients and optimiser state are split over the processes, layer
       by layer; the whole model, in its own precision, is there too: what samples, is saved and is compared with.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from charter.errors import ConfigError, TrainingError
from charter.training.packing import PackedRow, rows_by_tokens

STORE = "CHARTER_STORE"  # a file through which the processes of one machine find each other
LINGER_SECONDS = 0.2  # for what is still under way to the others
BUCKET = 2**23  # gradients that are summed at once
Item = TypeVar("Item")
Value = TypeVar("Value", int, float, Tensor)


@dataclass(frozen=True)
class World:
    """The processes that train together."""

    rank: int = 0
    size: int = 1
    sharding: str = "none"


_world = World()


def join(processes: int, sharding: str, seconds: float) -> None:
    """Become one of the processes that torchrun, or Charter, has started.

    Raises:
        ConfigError: there are not as many as the run file says.
    """
    global _world
    told, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if told != processes:
        raise ConfigError(
            f"scale.processes is {processes}, but {told} were started: let scale.launch start {processes}"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    place = f"file://{os.environ[STORE]}" if STORE in os.environ else "env://"
    patience = datetime.timedelta(seconds=seconds)
    dist.init_process_group(backend, init_method=place, rank=rank, world_size=told, timeout=patience)
    _world = World(dist.get_rank(), dist.get_world_size(), sharding)
    counted = total(1)
    if counted != processes:
        raise ConfigError(f"scale.processes is {processes}, but {counted} answer: look at what scale.launch starts")


def end() -> None:
    """End this process, whose work is done. Never returns.

    Not by the interpreter's own way: gloo's threads sometimes abort the process there, which looks like a death.
    """
    barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(LINGER_SECONDS)
    os._exit(0)


def world() -> World:
    """The processes that train together, this one's rank among them."""
    return _world


def is_main() -> bool:
    """Is this the process that writes files? The only one is."""
    return _world.rank == 0


def barrier() -> None:
    """Wait for the others."""
    if _world.size > 1:
        total(0)


def total(value: Value) -> Value:
    """The sum over all processes; a tensor is summed in place."""
    if _world.size == 1:
        return value
    if isinstance(value, Tensor):
        dist.all_reduce(value)
        return value
    summed = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(summed)
    return type(value)(summed.item())


def largest(value: float) -> float:
    """The largest over all processes."""
    return max(map(float, gathered([value])))


def gathered(rows: Sequence[Any]) -> list[Any]:
    """The rows (JSON) of all processes, by rank."""
    if _world.size == 1:
        return list(rows)
    own = torch.frombuffer(bytearray(json.dumps(list(rows)).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(_world.size)]
    dist.all_gather(sizes, torch.tensor([len(own)]))
    longest = max(int(size) for size in sizes)
    texts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(texts, torch.cat([own, own.new_zeros(longest - len(own))]))
    return [row for text, n in zip(texts, sizes, strict=True) for row in json.loads(bytes(text[: int(n)].tolist()))]


def share(items: Sequence[Item]) -> tuple[list[Item], int]:
    """This process's part of a list, the parts of all being a partition in order; and where it begins."""
    begin, end = (len(items) * r // _world.size for r in (_world.rank, _world.rank + 1))
    return list(items[begin:end]), begin


def passes(rows: Sequence[PackedRow], tokens: int) -> list[tuple[list[int], float]]:
    """This process's forward passes over a batch: indices of rows, and a weight of 1.

    Rows are dealt out so that all have about as many tokens. Under fsdp every pass is one of all processes: those with
    fewer pass over a row again, with weight 0.
    """
    if _world.size == 1:
        return [(piece, 1.0) for piece in rows_by_tokens(rows, tokens)]
    by_length = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    own = [i for place, i in enumerate(by_length) if _dealt_to(place) == _world.rank]
    found = [([own[i] for i in piece], 1.0) for piece in rows_by_tokens([rows[i] for i in own], tokens)]
    if _world.sharding == "fsdp":
        most = torch.tensor(len(found))
        dist.all_reduce(most, dist.ReduceOp.MAX)
        found += [([0], 0.0)] * (int(most) - len(found))
    return found


def _dealt_to(place: int) -> int:
    """0 1 2 2 1 0 0 1 2 ..."""
    turn, seat = divmod(place, _world.size)
    return seat if turn % 2 == 0 else _world.size - 1 - seat


def sum_gradients(weights: Iterable[Tensor]) -> None:
    """Sum what the processes found; under fsdp the backward pass has done it."""
    if _world.size == 1 or _world.sharding == "fsdp":
        return
    bucket: list[Tensor] = []
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        if bucket and sum(g.numel() for g in bucket) + weight.numel() > BUCKET:
            _sum_together(bucket)
            bucket = []
        bucket.append(weight.grad)
    _sum_together(bucket)


def _sum_together(gradients: Sequence[Tensor]) -> None:
    flat = total(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def sharded(model: Any) -> Any:
    """What is trained in the model's place: under fsdp a copy in float32 that is split over the processes, else itself.

    Raises:
        TrainingError: it isn't split as it should be, or the processes don't start from the same weights.
    """
    if _world.size == 1:
        return model
    _check_same(model)
    if _world.sharding != "fsdp":
        return model
    # models that stand on one base (LoRA) are split each for itself
    whole = (
        torch.nn.ModuleDict({k: copy.deepcopy(m) for k, m in model.items()})
        if _are_several(model)
        else copy.deepcopy(model)
    )
    for part in _parts(whole):
        _split(part)
    mine = sum(parameter.to_local().numel() for part in _parts(whole) for parameter in part.parameters())
    every = sum(parameter.numel() for part in _parts(model) for parameter in part.parameters())
    if total(mine) < every or mine >= every:
        raise TrainingError(f"fsdp: process {_world.rank} holds {mine} of {every} weights: use scale.sharding: ddp")
    return whole


def _are_several(model: Any) -> bool:
    return isinstance(model, torch.nn.ModuleDict)


def _parts(model: Any) -> list[Any]:
    return list(model.values()) if _are_several(model) else [model]


def _split(model: Any) -> None:
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    dtype = next(model.parameters()).dtype
    model.float()
    policy = MixedPrecisionPolicy(param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32)
    device = next(model.parameters()).device.type
    mesh = dist.device_mesh.init_device_mesh(device, (_world.size,))
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # a sum, not a mean
            module.set_force_sum_reduction_for_comms(True)
    # our loops call the body, and the head on their own: the body must be a way into the whole
    model.forward_body = types.MethodType(_forward_body, model)
    register_fsdp_forward_method(model, "forward_body")


def _forward_body(model: Any, **inputs: Any) -> Any:
    return model.base_model(**inputs)


def _check_same(model: Any) -> None:
    """Every process must start from the same weights."""
    own = torch.stack([parameter.detach().double().abs().sum().cpu() for parameter in model.parameters()]).sum()
    low, high = own.clone(), own.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if float(low) != float(high):
        raise TrainingError("the processes of this run start from different weights: give all of them the same files")


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its splitting."""
    read: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if read is None else read()


def like(tensor: Tensor, weight: Tensor) -> Tensor:
    """A whole tensor, split as the weight is and on its device."""
    mesh = getattr(weight, "device_mesh", None)
    if mesh is None or tensor.shape != weight.shape or hasattr(tensor, "device_mesh"):
        return tensor.to(weight.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(weight.device), mesh, weight.placements)  # type: ignore[attr-defined]
