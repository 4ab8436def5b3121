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

from charter.models.cache import RowCache, move, packed_order
from charter.models.fused import Fused, fuse


class Engine(Protocol):
    """The state of one batch while it is decoded.

    Attributes:
        logits_BV: float32, about each row's next token.
        compact_below: finished rows are worth dropping once at most this share of the rows is left.
    """

    logits_BV: Tensor
    compact_below: float

    def step(self, drawn_B: Tensor) -> None:
        """Take one token per row (int64[B]) and compute ``logits_BV`` after it."""

    def keep(self, kept_B: Tensor) -> None:
        """Go on with these rows alone (int64 places, ordered by ``packed_order``)."""


def make_engine(model: Any, prompts: list[list[int]]) -> Engine:
    """Prefill ``prompts``, one row each."""
    unique, group_of = _unique(prompts)
    device = next(model.parameters()).device
    ids_BL, mask_BL = _left_padded(unique, device)
    group_B = torch.tensor(group_of, device=device)
    fused = fuse(model, joined=True)
    if fused is not None:
        return FusedEngine(fused, ids_BL, mask_BL, group_B)
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

    compact_below = 0.75  # dropping rows copies the whole cache

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
    """Models of Llama's shape, by fused weights.

    A prompt's keys and values are kept once and read by all rows that share it; each row caches what it drew.

    Axes further: P = prompts, W = most rows of a prompt, R = query heads per key-value head, M = tokens of the prompts.
    """

    compact_below = 1.0

    def __init__(self, fused: Fused, ids_PM: Tensor, mask_PM: Tensor, group_B: Tensor) -> None:
        self.fused = fused
        # products of single rows are several times slower in bfloat16 on CPUs
        self.dtype = torch.float32 if fused.dtype == torch.bfloat16 and fused.device.type == "cpu" else fused.dtype
        size = (len(group_B), fused.num_kv_heads, fused.head_size)
        self.own = [RowCache(*size, self.dtype, fused.device) for _ in range(fused.num_layers)]
        self.prompt_keys: list[Tensor] = []
        self.prompt_values: list[Tensor] = []
        padded = not bool(mask_PM.all())
        seen_PMM = _causal(mask_PM) if padded else None

        def attend(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.transpose(1, 2).to(self.dtype) for x in (q, k, v))
            self.prompt_keys.append(k.contiguous())
            self.prompt_values.append(v.contiguous())
            repeats = fused.num_heads // fused.num_kv_heads
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_PMM, is_causal=not padded)
            return out.transpose(1, 2).to(fused.dtype)

        positions_PM = _positions(mask_PM)
        last_1 = torch.tensor([ids_PM.shape[1] - 1], device=fused.device)
        self.logits_BV = fused.logits(fused.hidden(ids_PM, positions_PM, attend, last_1)[:, 0])[group_B]
        self.position_B = positions_PM[group_B, -1] + 1
        self.bias_P11M: Tensor | None = None
        if padded:
            bias_PM = torch.zeros(mask_PM.shape, dtype=self.dtype, device=fused.device)
            self.bias_P11M = bias_PM.masked_fill(~mask_PM, float("-inf"))[:, None, None]
        self._arrange(group_B.tolist(), len(ids_PM))

    def _arrange(self, group_of: list[int], num_prompts: int) -> None:
        """Give each row a place of its own in the grid [P, W]."""
        self.group_of, self.num_prompts = group_of, num_prompts
        count = [0] * num_prompts
        ranks = []
        for group in group_of:
            ranks.append(count[group])
            count[group] += 1
        self.width = max(count)
        places = [group * self.width + rank for group, rank in zip(group_of, ranks, strict=True)]
        whole = places == list(range(num_prompts * self.width))
        self.place_B = None if whole else torch.tensor(places, device=self.fused.device)

    def step(self, drawn_B: Tensor) -> None:
        """See Engine."""
        hidden_B1C = self.fused.hidden(drawn_B[:, None], self.position_B[:, None], self._attend)
        self.logits_BV = self.fused.logits(hidden_B1C[:, 0])
        self.position_B = self.position_B + 1

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.own[layer].add(k[:, 0], v[:, 0])
        own = self.own[layer].parts()
        prompt_keys, prompt_values = (
            cache[layer][: self.num_prompts] for cache in (self.prompt_keys, self.prompt_values)
        )
        # query heads that share a key-value head become query rows
        q_BKRD = (q[:, 0].to(self.dtype) * self.fused.head_size**-0.5).unflatten(1, (self.fused.num_kv_heads, -1))
        scores_PKQM = self._to_grid(q_BKRD) @ prompt_keys.transpose(-1, -2)
        if self.bias_P11M is not None:
            scores_PKQM += self.bias_P11M[: self.num_prompts]
        scores = [self._from_grid(scores_PKQM), *(q_BKRD @ keys.transpose(-1, -2) for keys, _ in own)]
        shares = torch.cat(scores, -1).softmax(-1).split([part.shape[-1] for part in scores], -1)
        out = self._from_grid(self._to_grid(shares[0]) @ prompt_values)
        for share, (_, values) in zip(shares[1:], own, strict=True):
            out += share @ values
        return out.reshape(q.shape).to(q.dtype)

    def _to_grid(self, x_BKRX: Tensor) -> Tensor:
        """float[P, K, W x R, X]: the rows of a prompt side by side; places without a row hold zeros."""
        size = self.num_prompts * self.width
        if self.place_B is not None:
            x_BKRX = x_BKRX.new_zeros(size, *x_BKRX.shape[1:]).index_copy_(0, self.place_B, x_BKRX)
        return x_BKRX.unflatten(0, (-1, self.width)).transpose(1, 2).flatten(2, 3)

    def _from_grid(self, x_PKQX: Tensor) -> Tensor:
        """float[B, K, R, X]"""
        x_BKRX = x_PKQX.unflatten(2, (self.width, -1)).transpose(1, 2).flatten(0, 1)
        return x_BKRX if self.place_B is None else x_BKRX.index_select(0, self.place_B)

    def keep(self, kept_B: Tensor) -> None:
        """See Engine."""
        rows = kept_B.tolist()
        for cache in self.own:
            cache.keep(rows)
        self.position_B = self.position_B[kept_B]
        groups = [self.group_of[row] for row in rows]
        prompts = packed_order(sorted(set(groups)))
        for entries in (*self.prompt_keys, *self.prompt_values):
            move(entries, prompts)
        if self.bias_P11M is not None:
            move(self.bias_P11M, prompts)
        new_place = {old: new for new, old in enumerate(prompts)}
        self._arrange([new_place[group] for group in groups], len(prompts))


def _causal(mask_BL: Tensor) -> Tensor:
    """bool[B, 1, L, L]: real keys up to oneself; padding sees itself, so that it stays finite."""
    length = mask_BL.shape[1]
    seen_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    return (seen_LL & mask_BL[:, None, None, :]) | torch.eye(length, dtype=torch.bool, device=mask_BL.device)
