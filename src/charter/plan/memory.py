"""Which models a stage holds, and how many bytes their weights take; read from the heads of files, without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from charter.config import ModelConfig, RunConfig, labeler_models
from charter.sources import is_python, resolve_python

MAX_HEAD = 100 << 20
TRAINED = {"float32": 16, "bfloat16": 18}  # weight, gradient, two moments; and a float32 copy of bfloat16 weights
HELD = {"float32": 4, "bfloat16": 2}


def num_parameters(model: ModelConfig) -> tuple[int | None, str | None]:
    """(parameters, None), or (None, why that isn't known)."""
    if model.source.startswith(("http://", "https://")):
        return 0, None  # a server's memory is its own
    path = Path(model.source)
    if is_python(model.source):
        given = resolve_python(model.source)
        path = Path(given() if callable(given) else given)
    shards = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if not shards:
        return None, f"{model.source} is not on this machine yet"
    return sum(map(_in_shard, shards)), None


def _in_shard(path: Path) -> int:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(min(size, MAX_HEAD)))
    return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")


def bytes_held(config: RunConfig, stage: str, dtype: str) -> tuple[float | None, str | None]:
    """Bytes of weights, gradients and optimiser of a stage's models at once; activations and caches come on top.

    Args:
        dtype: in which the models of the run are held, float32 or bfloat16.
    """
    own, trained, others = _models(config, stage)
    size, why = num_parameters(config.model)
    if size is None:
        return None, why
    held = size * (own * HELD[dtype] + trained * TRAINED[dtype])
    for model in others:
        if model.source != config.model.source or stage == "4-label":
            more, why = num_parameters(model)
            if more is None:
                return None, why
            held += more * HELD[model.dtype if model.dtype != "auto" else dtype]
    return held, None


def _models(config: RunConfig, stage: str) -> tuple[int, int, list[ModelConfig]]:
    """(copies of the run's model that are only read, copies that are trained, other models)."""
    match stage.split("-")[0]:
        case "1" | "3":
            return 1, 0, []
        case "2" | "5":
            return 0, 1, []
        case "4":
            return 0, 0, list(dict.fromkeys(labeler_models(config.label.labeler)))
        case "6":
            by = config.policy.reward
            values = 1 if config.policy.algorithm == "ppo" else 0
            no_reward_model = by is not None or config.policy.algorithm == "dpo"
            return 1 if no_reward_model else 2, 1 + values, labeler_models(by) if by else []
    judge = [config.evaluate.judge] if config.evaluate.judge else []
    return 2, 0, judge
