"""Hidden states at the ends of many sequences, with every shared beginning computed once, over fused weights.

Trees of one shape are computed together, level by level. Matrix products run over the tokens of a level without any
padding; attention to a node's own tokens and to each of its ancestors is computed apart and merged by log-sum-exp, so an
ancestor's keys are read by all its descendants and copied for none of them.

Axes: N = nodes of a level, S = own tokens of a node (padded), M = tokens of a level (no padding), H = heads, D = head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from charter.models.fused import Fused
from charter.models.tree import Node

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class _Part:
    """Keys and values of one level, per layer [N, H, S, D]; ``bias_N11S`` hides padding, None where there is none."""

    keys: list[Tensor]
    values: list[Tensor]
    bias_N11S: Tensor | None


def end_states(fused: Fused, trees: list[Node]) -> Iterator[tuple[list[Node], Tensor]]:
    """Leaves of a batch of trees, and the normed hidden states [R, C] of their last ``num_read`` tokens, in order."""
    for batch in _batches(trees):
        levels = [
            [node for tree_level in level for node in tree_level]
            for level in zip(*(t.levels() for t in batch), strict=True)
        ]
        parents: list[_Part] = []
        starts = [0] * len(levels[0])
        for nodes in levels[:-1]:
            level = _Level(fused, nodes, starts, parents)
            fused.fill(level.ids_1M, level.positions_1M, level.attend)
            parents.append(level.part())
            starts = [len(node.ids) for node in nodes for _ in node.children]
        level = _Level(fused, levels[-1], starts, parents)
        yield levels[-1], fused.hidden(level.ids_1M, level.positions_1M, level.attend, level.read_places())[0]


def _batches(trees: list[Node]) -> Iterator[list[Node]]:
    """Trees of one signature, sorted by length, in batches of a size that caches like."""
    batch: list[Node] = []
    total = 0
    for tree in sorted(trees, key=lambda t: (repr(t.signature), t.num_tokens)):
        if batch and (tree.signature != batch[0].signature or total + tree.num_tokens > TOKENS_PER_BATCH):
            yield batch
            batch, total = [], 0
        batch.append(tree)
        total += tree.num_tokens
    if batch:
        yield batch


class _Level:
    """The tokens of one level of a batch of trees, and how they attend."""

    def __init__(self, fused: Fused, nodes: list[Node], starts: list[int], parents: list[_Part]) -> None:
        self.fused, self.nodes, self.parents = fused, nodes, parents
        self.lengths = [len(node.ids) - start for node, start in zip(nodes, starts, strict=True)]
        self.longest = max(self.lengths)
        own = [node.ids[start:] for node, start in zip(nodes, starts, strict=True)]
        device = fused.device
        self.ids_1M = torch.tensor([[token for ids in own for token in ids]], device=device)
        places = [range(start, len(node.ids)) for node, start in zip(nodes, starts, strict=True)]
        self.positions_1M = torch.tensor([[place for row in places for place in row]], device=device)
        self.ragged = min(self.lengths) < self.longest
        slots = [n * self.longest + s for n, length in enumerate(self.lengths) for s in range(length)]
        self.slot_M = torch.tensor(slots, device=device)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def read_places(self) -> Tensor:
        """int64[R]: where in the level's tokens the leaves' last ``num_read`` tokens stand."""
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        places = [
            place for node, end in zip(self.nodes, ends, strict=True) for place in range(end - node.num_read, end)
        ]
        return torch.tensor(places, device=self.fused.device)

    def part(self) -> _Part:
        """What descendants attend to."""
        bias = None
        if self.ragged:
            length_N1 = torch.tensor(self.lengths, device=self.fused.device)[:, None]
            hidden_NS = torch.arange(self.longest, device=self.fused.device) >= length_N1
            bias = torch.zeros(hidden_NS.shape, dtype=self.fused.dtype, device=self.fused.device)
            bias = bias.masked_fill(hidden_NS, float("-inf"))[:, None, None]
        return _Part(self.keys, self.values, bias)

    def attend(self, layer: int, q_1MHD: Tensor, k_1MKD: Tensor, v_1MKD: Tensor) -> Tensor:
        """See fused.Attend."""
        repeats = self.fused.num_heads // self.fused.num_kv_heads
        q, k, v = self._padded(q_1MHD), self._padded(k_1MKD), self._padded(v_1MKD)
        k, v = (x.repeat_interleave(repeats, 2) if repeats > 1 else x for x in (k, v))
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        self.keys.append(k)
        self.values.append(v)
        out, lse = attention(q.transpose(1, 2), k, v, None, causal=True)
        out, lse = out.transpose(1, 2), lse.transpose(1, 2)
        for part in self.parents:
            keys, values = part.keys[layer], part.values[layer]
            grouped = q.reshape(len(keys), -1, *q.shape[2:]).transpose(1, 2)
            more, more_lse = attention(grouped, keys, values, part.bias_N11S, causal=False)
            more, more_lse = more.transpose(1, 2).reshape(q.shape), more_lse.transpose(1, 2).reshape(q.shape[:3])
            share = torch.sigmoid(more_lse - lse)[..., None].to(out.dtype)
            out, lse = torch.lerp(out, more, share), torch.logaddexp(lse, more_lse)
        flat = out.reshape(-1, *out.shape[2:])
        return (flat[self.slot_M] if self.ragged else flat)[None]

    def _padded(self, x_1MHD: Tensor) -> Tensor:
        """[N, S, H, D]"""
        x = x_1MHD[0]
        if self.ragged:
            x = x.new_zeros(len(self.nodes) * self.longest, *x.shape[1:]).index_copy_(0, self.slot_M, x)
        return x.view(len(self.nodes), self.longest, *x.shape[1:])


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention [B, H, Q, D], and the log-sum-exp float[B, H, Q] of its scores."""
    if q.device.type == "cpu" and q.dtype != torch.float64:
        # the kernel under scaled_dot_product_attention, which keeps the log-sum-exp to itself
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = kernel(q, k, v, 0.0, causal, attn_mask=bias)
        return out, lse
    return plain_attention(q, k, v, bias, causal=causal)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The same by its definition, on any device."""
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse
