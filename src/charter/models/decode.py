"""Batched sampling with a key-value cache: each prompt computed once per group, finished rows leave the batch.

Axes: B = rows, L = prompt tokens (left-padded), T = response tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

COMPACT_BELOW = 0.75  # rows are dropped from the cache once a quarter of them is finished
MAX_ROWS = 256


@dataclass(frozen=True)
class Sampled:
    """Response token ids per row (stop token included where one was drawn), their log-probabilities, and what ended them."""

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
) -> Sampled:
    """Sample one response per prompt.

    Row i draws its uniforms from a Philox stream keyed by ``seeds[i]``, so its text doesn't depend on its neighbours'
    draws. Equal neighbouring prompts are computed once. ``temperature`` 0 is greedy.
    """
    result = Sampled([[] for _ in prompts], [[] for _ in prompts], [False] * len(prompts))
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(order), MAX_ROWS):
        rows = order[start : start + MAX_ROWS]
        uniforms = np.stack([np.random.Generator(np.random.Philox(seeds[i])).random(max_new_tokens) for i in rows])
        batch = _Batch(model, [list(prompts[i]) for i in rows], torch.from_numpy(uniforms), stop_ids, temperature)
        batch.run(max_new_tokens)
        for place, i in enumerate(rows):
            result.ids[i], result.logprobs[i] = batch.ids[place], batch.logprobs[place]
            result.stopped[i] = batch.stopped[place]
    return result


class _Batch:
    """The state of one batch while it is decoded."""

    def __init__(
        self, model: Any, prompts: list[list[int]], uniforms_BT: Tensor, stop_ids: Sequence[int], temperature: float
    ) -> None:
        self.model, self.temperature = model, temperature
        self.device = next(model.parameters()).device
        self.uniforms_BT = uniforms_BT.to(self.device)
        self.stop = torch.tensor(list(stop_ids), device=self.device)
        self.ids: list[list[int]] = [[] for _ in prompts]
        self.logprobs: list[list[float]] = [[] for _ in prompts]
        self.stopped = [False] * len(prompts)
        self._prefill(prompts)

    def _prefill(self, prompts: list[list[int]]) -> None:
        unique, group_of = _unique(prompts)
        length = max(map(len, unique))
        ids = torch.tensor([[0] * (length - len(p)) + p for p in unique], device=self.device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in unique], device=self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        self.cache = output.past_key_values
        rows = torch.tensor(group_of, device=self.device)
        if len(unique) < len(prompts):
            self.cache.batch_select_indices(rows)
        self.logits_BV = output.logits[:, -1].float()[rows]
        self.mask_BL = mask[rows]
        self.position_B = positions[rows, -1] + 1
        self.rows = list(range(len(prompts)))

    def run(self, max_new_tokens: int) -> None:
        for step in range(max_new_tokens):
            drawn_B, logprob_B = self._draw(step)
            alive = []
            stops = torch.isin(drawn_B, self.stop).tolist()
            for place, (row, token, logprob) in enumerate(
                zip(self.rows, drawn_B.tolist(), logprob_B.tolist(), strict=True)
            ):
                if self.stopped[row]:
                    continue
                self.ids[row].append(token)
                self.logprobs[row].append(logprob)
                self.stopped[row] = stops[place]
                if not stops[place]:
                    alive.append(place)
            if not alive or step + 1 == max_new_tokens:
                return
            if len(alive) <= COMPACT_BELOW * len(self.rows):
                drawn_B = self._keep(alive, drawn_B)
            self._step(drawn_B)

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        logits_BV = self.logits_BV if self.temperature in (0, 1) else self.logits_BV / self.temperature
        logprobs_BV = logits_BV.log_softmax(-1)
        if self.temperature == 0:
            drawn_B = logprobs_BV.argmax(-1)
        else:
            cumulative_BV = logprobs_BV.double().exp().cumsum(-1)
            uniform_B1 = self.uniforms_BT[self.rows, step, None] * cumulative_BV[:, -1:]
            drawn_B = torch.searchsorted(cumulative_BV, uniform_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
        return drawn_B, logprobs_BV.gather(1, drawn_B[:, None])[:, 0]

    def _keep(self, alive: list[int], drawn_B: Tensor) -> Tensor:
        kept = torch.tensor(alive, device=self.device)
        self.cache.batch_select_indices(kept)
        self.mask_BL, self.position_B = self.mask_BL[kept], self.position_B[kept]
        self.rows = [self.rows[place] for place in alive]
        return drawn_B[kept]

    def _step(self, drawn_B: Tensor) -> None:
        self.mask_BL = torch.cat([self.mask_BL, self.mask_BL.new_ones(len(drawn_B), 1)], 1)
        output = self.model(
            input_ids=drawn_B[:, None],
            attention_mask=self.mask_BL,
            position_ids=self.position_B[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache, self.logits_BV = output.past_key_values, output.logits[:, -1].float()
        self.position_B = self.position_B + 1


def _unique(prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Distinct prompts in order of first appearance, and for each prompt the index of its equal."""
    seen: dict[tuple[int, ...], int] = {}
    group_of = [seen.setdefault(tuple(prompt), len(seen)) for prompt in prompts]
    return [list(prompt) for prompt in seen], group_of
