"""Attention inside packed rows: a token sees its prompt and its own response, never a sibling.

Axes: B = rows, L = tokens of a row, M = tokens of all rows without padding, H = heads, D = head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_PART = 96  # response tokens; attention to fewer at a time is bound by overhead

Shape = tuple[int, list[int]]
"""Tokens of a row's prompt and of each of its responses."""
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values float[M, H, D] of all rows, one after another -> float[M, H, D]."""


def packed_attention(shapes: Sequence[Shape], dtype: torch.dtype, device: torch.device) -> Attention:
    """On a GPU all rows at once, padded; on a CPU, where a call costs little and padding much, row by row."""
    return (RowAttention if device.type == "cpu" else PaddedAttention)(shapes, dtype, device)


class RowAttention:
    """Row by row without padding.

    A row's responses are taken a few at a time with the prompt's keys, so that the cost grows with the number of
    responses, not with its square. The prompt's own queries go with the first part.
    """

    def __init__(self, shapes: Sequence[Shape], dtype: torch.dtype, device: torch.device) -> None:
        self.masks: list[list[Tensor | None]] = []  # of the parts of each row; None: causal
        self.query_sizes: list[int] = []
        self.key_sizes: list[int] = []
        for prompt, lengths in shapes:
            parts = _parts(lengths, max(MIN_PART, prompt))
            sizes = [sum(part) for part in parts]
            self.query_sizes += [prompt + sizes[0], *sizes[1:]]
            self.key_sizes += [prompt, *sizes] if len(parts) > 1 else [prompt + sizes[0]]
            masks = [block_mask(_branches(prompt, part).to(device), dtype)[0, 0] for part in parts]
            first = None if len(parts[0]) == 1 else masks[0]
            self.masks.append([first, *(mask[prompt:] for mask in masks[1:])])

    def __call__(self, q_MHD: Tensor, k_MHD: Tensor, v_MHD: Tensor) -> Tensor:
        """See ``Attention``."""
        queries = iter(q_MHD.split(self.query_sizes))
        keys, values = (iter(x_MHD.split(self.key_sizes)) for x_MHD in (k_MHD, v_MHD))
        found = []
        for masks in self.masks:
            k, v = next(keys), next(values)
            if len(masks) == 1:
                found.append(_attend(next(queries), k, v, masks[0]))
                continue
            for mask in masks:
                own_k, own_v = torch.cat([k, next(keys)]), torch.cat([v, next(values)])
                found.append(_attend(next(queries), own_k, own_v, mask))
        return torch.cat(found)


class PaddedAttention:
    """All rows in one call: causal where each has one response, else under a block mask."""

    def __init__(self, shapes: Sequence[Shape], dtype: torch.dtype, device: torch.device) -> None:
        branches = [_branches(prompt, lengths)[0] for prompt, lengths in shapes]
        branch_BL = torch.nn.utils.rnn.pad_sequence(branches, batch_first=True, padding_value=-1).to(device)
        self.shape = branch_BL.shape
        self.slot_M = (branch_BL >= 0).flatten().nonzero()[:, 0]
        branched = any(len(lengths) > 1 for _, lengths in shapes)
        self.mask_B1LL = block_mask(branch_BL, dtype) if branched else None

    def __call__(self, q_MHD: Tensor, k_MHD: Tensor, v_MHD: Tensor) -> Tensor:
        """See ``Attention``."""
        q, k, v = (self._padded(x) for x in (q_MHD, k_MHD, v_MHD))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask_B1LL, is_causal=self.mask_B1LL is None)
        return out.transpose(1, 2).flatten(0, 1)[self.slot_M]

    def _padded(self, x_MHD: Tensor) -> Tensor:
        """float[B, H, L, D]"""
        padded = x_MHD.new_zeros(self.shape.numel(), *x_MHD.shape[1:]).index_copy(0, self.slot_M, x_MHD)
        return padded.view(*self.shape, *x_MHD.shape[1:]).transpose(1, 2)


def block_mask(branch_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive float[B, 1, L, L]: a token sees the prompt (branch 0) and its own branch, up to itself; -1 is padding."""
    length = branch_BL.shape[1]
    seen_BLL = (branch_BL[:, :, None] == branch_BL[:, None, :]) | (branch_BL[:, None, :] == 0)
    seen_BLL &= torch.ones(length, length, dtype=torch.bool, device=branch_BL.device).tril()
    return torch.zeros(seen_BLL.shape, dtype=dtype, device=branch_BL.device).masked_fill(
        ~seen_BLL, torch.finfo(dtype).min
    )[:, None]


def _attend(q_LHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, mask_LL: Tensor | None) -> Tensor:
    """float[L, H, D]"""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_LHD, k_LHD, v_LHD))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_LL, is_causal=mask_LL is None)
    return out[0].transpose(0, 1)


def _branches(prompt: int, lengths: Sequence[int]) -> Tensor:
    """int64[1, L]: 0 on the prompt, 1, 2, ... on the responses."""
    sizes = torch.tensor([prompt, *lengths])
    return torch.repeat_interleave(torch.arange(len(sizes)), sizes)[None]


def _parts(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Neighbouring responses, together at most ``size`` tokens or a single one."""
    parts = [[lengths[0]]]
    for length in lengths[1:]:
        if sum(parts[-1]) + length <= size:
            parts[-1].append(length)
        else:
            parts.append([length])
    return parts
