"""Batched sampling with a key-value cache: each prompt computed once per group, finished rows leave the batch.

Axes: B = rows, T = response tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charter.errors import ModelError
from charter.models.cache import packed_order
from charter.models.engines import make_engine

MAX_ROWS_CPU, MAX_ROWS_GPU = 64, 256  # on a CPU small batches stay in its caches and can be cut to fit sooner
MAX_CACHED_TOKENS = 1 << 17  # rows x (prompt + response) of one batch


@dataclass(frozen=True)
class Sampled:
    """Response token ids per row (stop token included where one was drawn), their log-probabilities in nats at the
    sampling temperature, and whether the row stopped by itself."""

    ids: list[list[int]]
    logprobs: list[list[float]]
    stopped: list[bool]


@torch.no_grad()
def sample_tokens(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    stop_ids: Sequence[int],
    stops_early: Callable[[list[int]], bool] | None = None,
) -> Sampled:
    """Sample one response per prompt.

    Row i draws its uniforms from a Philox stream keyed by ``seeds[i]``, so its text doesn't depend on its neighbours'
    draws. Rows are batched by length; equal prompts of a batch are computed once. ``temperature`` 0 is greedy.

    Args:
        stops_early: asked of each response so far; True ends it.

    Raises:
        ModelError: the model gives NaN.
    """
    result = Sampled([[] for _ in prompts], [[] for _ in prompts], [False] * len(prompts))
    max_rows = MAX_ROWS_CPU if next(model.parameters()).device.type == "cpu" else MAX_ROWS_GPU
    for rows in _batches([len(prompt) + max_new_tokens for prompt in prompts], max_rows):
        uniforms_BT = np.stack([np.random.Generator(np.random.Philox(seeds[i])).random(max_new_tokens) for i in rows])
        batch = _Batch(model, [list(prompts[i]) for i in rows], uniforms_BT, temperature)
        batch.run(torch.tensor(list(stop_ids), dtype=torch.long, device=batch.device), stops_early)
        for place, i in enumerate(rows):
            result.ids[i], result.logprobs[i] = batch.response(place)
            result.stopped[i] = batch.stopped[place]
    return result


def _batches(lengths: Sequence[int], max_rows: int) -> list[list[int]]:
    """Rows sorted by length, in batches whose cache stays small."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batches and len(batches[-1]) < min(max_rows, MAX_CACHED_TOKENS // lengths[i]):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


class _Batch:
    """Rows that are decoded together. ``rows`` are those still in the engine, by their place in the batch."""

    def __init__(self, model: Any, prompts: list[list[int]], uniforms_BT: np.ndarray, temperature: float) -> None:
        self.engine = make_engine(model, prompts)
        self.device = self.engine.logits_BV.device
        self.temperature = temperature
        self.uniforms_BT = torch.from_numpy(uniforms_BT).to(self.device)
        self.ids_BT = torch.zeros(uniforms_BT.shape, dtype=torch.long, device=self.device)
        self.logprobs_BT = torch.zeros(uniforms_BT.shape, device=self.device)
        self.lengths = [uniforms_BT.shape[1]] * len(prompts)
        self.stopped = [False] * len(prompts)
        self.rows = list(range(len(prompts)))

    def run(self, stop: Tensor, stops_early: Callable[[list[int]], bool] | None) -> None:
        """Draw until every row has stopped or is full."""
        num_steps = self.uniforms_BT.shape[1]
        for step in range(num_steps):
            drawn_B = self._draw(step)
            for place in torch.isin(drawn_B, stop).nonzero()[:, 0].tolist():
                self._stop(self.rows[place], step)
            if stops_early is not None:
                for row in self.rows:
                    if not self.stopped[row] and stops_early(self.ids_BT[row, : step + 1].tolist()):
                        self._stop(row, step)
            alive = [place for place, row in enumerate(self.rows) if not self.stopped[row]]
            if not alive or step + 1 == num_steps:
                return
            if len(alive) < len(self.rows) and len(alive) <= self.engine.compact_below * len(self.rows):
                kept = packed_order(alive)
                kept_B = torch.tensor(kept, device=self.device)
                self.engine.keep(kept_B)
                self.rows, drawn_B = [self.rows[place] for place in kept], drawn_B[kept_B]
            self.engine.step(drawn_B)

    def response(self, row: int) -> tuple[list[int], list[float]]:
        """Token ids and log-probabilities of a row, up to where it stopped."""
        return self.ids_BT[row, : self.lengths[row]].tolist(), self.logprobs_BT[row, : self.lengths[row]].tolist()

    def _stop(self, row: int, step: int) -> None:
        if not self.stopped[row]:
            self.stopped[row], self.lengths[row] = True, step + 1

    def _draw(self, step: int) -> Tensor:
        """int64[B], by inversion of the cumulative distribution."""
        logits_BV = self.engine.logits_BV
        logprobs_BV = (logits_BV if self.temperature in (0, 1) else logits_BV / self.temperature).log_softmax(-1)
        rows_B = torch.tensor(self.rows, device=self.device)
        if self.temperature == 0:
            drawn_B = logprobs_BV.argmax(-1)
        else:
            cumulative_BV = logprobs_BV.double().exp().cumsum(-1)
            uniform_B1 = self.uniforms_BT[rows_B, step, None] * cumulative_BV[:, -1:]
            drawn_B = torch.searchsorted(cumulative_BV, uniform_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
        logprob_B = logprobs_BV.gather(1, drawn_B[:, None])[:, 0]
        if bool(logprob_B.isnan().any()):
            raise ModelError(
                "the model gives NaN for a next token: its weights are damaged or have diverged; load another"
            )
        self.ids_BT[rows_B, step], self.logprobs_BT[rows_B, step] = drawn_B, logprob_B
        return drawn_B
