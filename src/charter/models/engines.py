"""Two ways to run one decoding step, behind one shape: over any Transformers model, and over fused weights.

An engine computes each distinct prompt once, copies its keys and values to the rows that share it, and then takes one
token per row and step.

Axes: B = rows, L = tokens (prompts padded on the left), V = vocabulary, D = head size, K = key-value heads.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from charter.models.fused import Fused, fuse


class Engine(Protocol):
    """The state of one batch while it is decoded. ``logits_BV`` (float32) speaks about each row's next token."""

    logits_BV: Tensor

    def step(self, drawn_B: Tensor) -> None:
        """Take one token per row (int64[B]) and compute ``logits_BV`` after it."""

    def keep(self, kept_B: Tensor) -> None:
        """Go on with these rows alone (int64 places)."""


def make_engine(model: Any, prompts: list[list[int]], max_new_tokens: int) -> Engine:
    """Prefill ``prompts``, one row each."""
    unique, group_of = _unique(prompts)
    device = next(model.parameters()).device
    ids_BL, mask_BL = _left_padded(unique, device)
    group_B = torch.tensor(group_of, device=device)
    fused = fuse(model)
    if fused is not None:
        return FusedEngine(fused, ids_BL, mask_BL, group_B, max_new_tokens)
    return TransformersEngine(model, ids_BL, mask_BL, group_B)


def _unique(prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Distinct prompts in order of first appearance, and for each prompt the index of its equal."""
    seen: dict[tuple[int, ...], int] = {}
    group_of = [seen.setdefault(tuple(prompt), len(seen)) for prompt in prompts]
    return [list(prompt) for prompt in seen], group_of


def _left_padded(prompts: list[list[int]], device: Any) -> tuple[Tensor, Tensor]:
    """int64[B, L] ids and bool[B, L] mask."""
    length = max(map(len, prompts))
    ids_BL = torch.zeros(len(prompts), length, dtype=torch.long)
    mask_BL = torch.zeros(len(prompts), length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids_BL[row, length - len(prompt) :] = torch.tensor(prompt)
        mask_BL[row, length - len(prompt) :] = True
    return ids_BL.to(device), mask_BL.to(device)


def _positions(mask_BL: Tensor) -> Tensor:
    return (mask_BL.cumsum(1) - 1).clamp(min=0)


class TransformersEngine:
    """Any causal LM, by its own forward pass and its own cache."""

    def __init__(self, model: Any, ids_BL: Tensor, mask_BL: Tensor, group_B: Tensor) -> None:
        self.model = model
        mask_BL = mask_BL.long()
        positions_BL = _positions(mask_BL)
        output = model(
            input_ids=ids_BL, attention_mask=mask_BL, position_ids=positions_BL, use_cache=True, logits_to_keep=1
        )
        self.cache = output.past_key_values
        if len(group_B) > len(ids_BL):
            self.cache.batch_select_indices(group_B)
        self.logits_BV = output.logits[:, -1].float()[group_B]
        self.mask_BL, self.position_B = mask_BL[group_B], positions_BL[group_B, -1] + 1

    def step(self, drawn_B: Tensor) -> None:
        """See Engine."""
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

    def keep(self, kept_B: Tensor) -> None:
        """See Engine."""
        self.cache.batch_select_indices(kept_B)
        self.mask_BL, self.position_B = self.mask_BL[kept_B], self.position_B[kept_B]


class FusedEngine:
    """Models of Llama's shape, by fused weights and a cache of fixed size."""

    def __init__(self, fused: Fused, ids_BL: Tensor, mask_BL: Tensor, group_B: Tensor, max_new_tokens: int) -> None:
        self.fused, self.length = fused, ids_BL.shape[1]
        size = (len(group_B), fused.num_kv_heads, self.length + max_new_tokens, fused.head_size)
        self.keys, self.values = (
            [torch.empty(size, dtype=fused.dtype, device=fused.device) for _ in range(fused.num_layers)] for _ in "kv"
        )
        padded = not bool(mask_BL.all())
        seen_BLL = _causal(mask_BL) if padded else None

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            self.keys[layer][:, :, : self.length] = k[group_B]
            self.values[layer][:, :, : self.length] = v[group_B]
            repeats = fused.num_heads // fused.num_kv_heads
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen_BLL, is_causal=not padded).transpose(1, 2)

        positions_BL = _positions(mask_BL)
        last_1 = torch.tensor([self.length - 1], device=fused.device)
        self.logits_BV = fused.logits(fused.hidden(ids_BL, positions_BL, attend, last_1)[:, 0])[group_B]
        self.position_B = positions_BL[group_B, -1] + 1
        self.bias_B11L = None
        if padded:
            bias_BL = torch.zeros(size[0], size[2], dtype=fused.dtype, device=fused.device)
            bias_BL[:, : self.length] = torch.where(mask_BL, 0.0, float("-inf"))[group_B]
            self.bias_B11L = bias_BL[:, None, None]

    def step(self, drawn_B: Tensor) -> None:
        """See Engine."""
        hidden_B1C = self.fused.hidden(drawn_B[:, None], self.position_B[:, None], self._attend)
        self.logits_BV = self.fused.logits(hidden_B1C[:, 0])
        self.position_B = self.position_B + 1
        self.length += 1

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        end = self.length + 1
        keys, values = self.keys[layer][:, :, :end], self.values[layer][:, :, :end]
        keys[:, :, -1], values[:, :, -1] = k[:, 0], v[:, 0]
        # query heads that share a key-value head become query rows
        folded_BKRD = q.view(len(q), self.fused.num_kv_heads, -1, self.fused.head_size)
        bias = None if self.bias_B11L is None else self.bias_B11L[..., :end]
        return F.scaled_dot_product_attention(folded_BKRD, keys, values, attn_mask=bias).reshape(q.shape)

    def keep(self, kept_B: Tensor) -> None:
        """See Engine."""
        self.keys = [self._kept(keys, kept_B) for keys in self.keys]
        self.values = [self._kept(values, kept_B) for values in self.values]
        self.position_B = self.position_B[kept_B]
        self.bias_B11L = None if self.bias_B11L is None else self.bias_B11L[kept_B]

    def _kept(self, cache: Tensor, kept_B: Tensor) -> Tensor:
        kept = torch.empty((len(kept_B), *cache.shape[1:]), dtype=cache.dtype, device=cache.device)
        kept[:, :, : self.length] = cache[kept_B, :, : self.length]
        return kept


def _causal(mask_BL: Tensor) -> Tensor:
    """bool[B, 1, L, L]: real keys up to oneself; padding sees itself, so that it stays finite."""
    length = mask_BL.shape[1]
    seen_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    return (seen_LL & mask_BL[:, None, None, :]) | torch.eye(length, dtype=torch.bool, device=mask_BL.device)
