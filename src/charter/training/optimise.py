"""What all loops share: AdamW with warm-up and linear decay, gradient clipping, a guard against NaN, metrics as lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from charter.errors import TrainingError
from charter.training.checkpoint import load_checkpoint, save_checkpoint

MAX_GRAD_NORM = 1.0


class Trainer:
    """Optimiser, schedule, checkpoints and metrics of one loop over ``num_steps`` updates.

    Attributes:
        step: updates done, after resuming from the newest checkpoint.
    """

    def __init__(
        self, model: Any, folder: Path, *, num_steps: int, learning_rate: float, warmup_fraction: float, decay: bool = True
    ) -> None:
        self.model, self.num_steps, self.decay = model, num_steps, decay
        self._rate = learning_rate
        self._warmup = max(1, round(warmup_fraction * num_steps))
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self._checkpoints, self._metrics = folder / "checkpoint", folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.step = load_checkpoint(self._checkpoints, model, self.optimizer)
        self._rewind_metrics()

    def update(self, loss_value: float) -> float:
        """One optimiser step on the gradients that are there; returns their norm before clipping.

        Raises:
            TrainingError: the loss or a gradient is NaN or infinite; the weights are left as they were.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM))
        if not (math.isfinite(norm) and math.isfinite(loss_value)):
            raise TrainingError(
                f"step {self.step + 1}: loss {loss_value} and gradient norm {norm} are not finite; the last good state is in "
                f"{self._checkpoints}; lower the learning rate (now {self._rate:g}) and run again"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return norm

    def learning_rate(self) -> float:
        """Of the coming update: linear warm-up, then linear decay to a twentieth."""
        warm = min(1.0, (self.step + 1) / self._warmup)
        left = 1 - self.step / max(1, self.num_steps)
        return self._rate * warm * (max(0.05, left) if self.decay else 1.0)

    def log(self, row: dict[str, Any]) -> None:
        """Append one line of metrics."""
        with self._metrics.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def checkpoint(self) -> None:
        """Save the state, so that the same command goes on from here."""
        save_checkpoint(self._checkpoints, self.model, self.optimizer, self.step)

    def _rewind_metrics(self) -> None:
        """Drop lines of updates that are to be done again (and a torn last line)."""
        if not self._metrics.exists():
            return
        kept = []
        for line in self._metrics.read_text().splitlines(keepends=True):
            if line.endswith("\n") and json.loads(line)["step"] <= self.step:
                kept.append(line)
        draft = self._metrics.with_suffix(".draft")
        draft.write_text("".join(kept))
        draft.rename(self._metrics)
