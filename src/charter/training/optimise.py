"""What all loops share: AdamW with warm-up and linear decay, gradient clipping, a guard against NaN, metrics as lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charter.errors import ConfigError, TrainingError
from charter.store.hashing import hash_json
from charter.store.jsonl import JsonlAppender, read_rows, write_jsonl
from charter.training import distributed
from charter.training.checkpoint import load_checkpoint, save_checkpoint
from charter.training.heap import keep_freed_memory

MAX_GRAD_NORM = 1.0
BETAS = (0.9, 0.98)
LAST_RATE = 0.05  # of the learning rate, where it decays


class Trainer:
    """Optimiser, schedule, checkpoints and metrics of one loop over ``num_steps`` updates.

    Weights that are not float32 are trained through a float32 copy: in bfloat16 small updates would round to nothing, and so
    would the gradients of many forward passes that add up.

    Attributes:
        model: what is trained: the model that was given or, under fsdp, its split copy (training/distributed.py).
        step: updates done, after resuming from the newest checkpoint.
    """

    def __init__(
        self,
        model: Any,
        folder: Path,
        *,
        num_steps: int,
        learning_rate: float,
        warmup_fraction: float,
        settings: Any,
        decay: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        """``settings``: JSON of all that the run depends on; a checkpoint of other settings is refused."""
        if next(model.parameters()).device.type == "cpu":
            keep_freed_memory()
        if gradient_checkpointing:
            checkpoint_layers(model)
        self.model, self.num_steps, self.decay = distributed.sharded(model), num_steps, decay
        self._whole = dict(model.named_parameters())
        self._rate = learning_rate
        self._warmup = max(1, round(warmup_fraction * num_steps))
        self._trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._weights: dict[str, Tensor] = {name: _full_precision(p) for name, p in self._trained.items()}
        for name, weight in self._weights.items():
            if weight is not self._trained[name]:
                self._trained[name].register_post_accumulate_grad_hook(_add_up_in(weight))
        self.optimizer = torch.optim.AdamW(
            self._weights.values(), lr=learning_rate, betas=BETAS, weight_decay=0.0, fused=True
        )
        self.checkpoints, self._metrics = folder / "checkpoint", folder / "metrics.jsonl"
        self._settings = hash_json(settings)
        folder.mkdir(parents=True, exist_ok=True)
        self.step = load_checkpoint(self.checkpoints, self._weights, self.optimizer, settings=self._settings)
        self._publish()
        self.gather()
        self._rows = self._rewind_metrics()

    def update(self, loss_value: float) -> float:
        """One optimiser step on the gradients that are there; returns their norm before clipping.

        Raises:
            TrainingError: the loss or a gradient is NaN or infinite; the weights are left as they were.
        """
        distributed.sum_gradients(self._weights.values())
        found = torch.nn.utils.clip_grad_norm_(self._weights.values(), MAX_GRAD_NORM, foreach=True)
        norm = float(distributed.whole(found))
        if not (math.isfinite(norm) and math.isfinite(loss_value)):
            raise TrainingError(
                f"step {self.step + 1}: loss {loss_value} and gradient norm {norm} are not finite; the last good state is in "
                f"{self.checkpoints}; lower the learning rate (now {self._rate:g}) and run again"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._publish()
        self.step += 1
        return norm

    def learning_rate(self) -> float:
        """Of the coming update: linear warm-up, then linear decay to a twentieth."""
        warm = min(1.0, (self.step + 1) / self._warmup)
        left = 1 - self.step / max(1, self.num_steps)
        return self._rate * warm * (max(LAST_RATE, left) if self.decay else 1.0)

    def log(self, row: dict[str, Any]) -> None:
        """Append one line of metrics; its ``step`` or, where several updates make a step, ``num_updates`` says when."""
        self._rows.append(row)
        if distributed.is_main():
            with JsonlAppender(self._metrics) as file:
                file.append([row])

    def rows(self) -> list[dict[str, Any]]:
        """All metrics so far."""
        return list(self._rows)

    def checkpoint(self) -> None:
        """Save the state, so that the same command goes on from here."""
        save_checkpoint(self.checkpoints, self._weights, self.optimizer, step=self.step, settings=self._settings)

    @torch.no_grad()
    def _publish(self) -> None:
        """Bring the float32 copies, where there are any, into the model."""
        for name, weight in self._weights.items():
            if weight is not self._trained[name]:
                self._trained[name].copy_(weight)

    @torch.no_grad()
    def gather(self) -> None:
        """Bring split weights into the whole model that was given; elsewhere they are there."""
        for name, parameter in self._trained.items():
            if self._whole[name] is not parameter:
                self._whole[name].copy_(distributed.whole(parameter))

    def _rewind_metrics(self) -> list[dict[str, Any]]:
        """Drop lines of updates that are to be done again (and a torn last line); return those that stay."""
        if distributed.is_main() and self._metrics.exists():
            with JsonlAppender(self._metrics):
                pass
            rows = [row for _, row in read_rows(self._metrics)]
            write_jsonl(self._metrics, [r for r in rows if r.get("num_updates", r["step"]) <= self.step])
        distributed.barrier()
        return [row for _, row in read_rows(self._metrics)] if self._metrics.exists() else []


def checkpoint_layers(model: Any) -> None:
    """Have each layer forget what it computed, and compute it again in the backward pass.

    Raises:
        ConfigError: the model can't.
    """
    parts: list[Any] = list(model.values()) if isinstance(model, torch.nn.ModuleDict) else [model]
    for part in parts:
        # older Transformers know it by the second name alone
        enable = getattr(part, "activation_checkpointing_enable", None) or part.gradient_checkpointing_enable
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise ConfigError(f"gradient_checkpointing: {type(part).__name__} has none: leave it out") from error


def _full_precision(parameter: Tensor) -> Tensor:
    if parameter.dtype in (torch.float32, torch.float64):
        return parameter
    return parameter.detach().float().clone().requires_grad_()


def _add_up_in(weight: Tensor) -> Callable[[Tensor], None]:
    """A hook that adds a weight's gradient to that of its float32 copy, as soon as a backward pass has found it."""

    def hand_over(parameter: Tensor) -> None:
        assert parameter.grad is not None
        found, parameter.grad = parameter.grad.float(), None
        weight.grad = found if weight.grad is None else weight.grad.add_(found)

    return hand_over


def fingerprint(rows: Any) -> str:
    """A hash of training data: token ids and labels as JSON."""
    return hash_json(json.loads(json.dumps(rows)))


def disable_dropout(model: Any) -> None:
    """Policy and reference must be compared without noise."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
