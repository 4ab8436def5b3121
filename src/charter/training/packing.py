"""A prompt and its responses in one row: the prompt is computed once, a block mask keeps the responses apart.

Axes: B = rows, L = tokens of a row, R = responses in all rows, T = response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedRow:
    """A prompt and the responses that continue it, as token ids."""

    prompt: list[int]
    responses: list[list[int]]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(frozen=True)
class PackedBatch:
    """Tensors for one forward pass.

    Attributes:
        inputs: input_ids int64[B, L], position_ids int64[B, L], attention_mask: float[B, 1, L, L] additive.
        row_RT, place_RT: int64[R, T], where the hidden state that predicts each response token stands.
        target_RT: int64[R, T], the response tokens.
        mask_RT: bool[R, T], True where a token counts.
        last_R: int64[R], place of each response's last token; row_R its row.
    """

    inputs: dict[str, Tensor]
    row_RT: Tensor
    place_RT: Tensor
    target_RT: Tensor
    mask_RT: Tensor
    row_R: Tensor
    last_R: Tensor


def pack(rows: Sequence[PackedRow], device: Any, dtype: torch.dtype) -> PackedBatch:
    """Lay rows out, right-padded; responses in the order of rows and within them."""
    length = max(len(row) for row in rows)
    num_responses = sum(len(row.responses) for row in rows)
    longest = max(len(response) for row in rows for response in row.responses)
    ids_BL = torch.zeros(len(rows), length, dtype=torch.long)
    position_BL = torch.zeros_like(ids_BL)
    branch_BL = torch.full_like(ids_BL, -1)
    row_RT, place_RT, target_RT = (torch.zeros(num_responses, longest, dtype=torch.long) for _ in range(3))
    mask_RT = torch.zeros(num_responses, longest, dtype=torch.bool)
    row_R, last_R = torch.zeros(num_responses, dtype=torch.long), torch.zeros(num_responses, dtype=torch.long)
    response_index = 0
    for b, row in enumerate(rows):
        shared = len(row.prompt)
        ids_BL[b, :shared] = torch.tensor(row.prompt)
        position_BL[b, :shared] = torch.arange(shared)
        branch_BL[b, :shared] = 0
        start = shared
        for branch, response in enumerate(row.responses, start=1):
            size = len(response)
            ids_BL[b, start : start + size] = torch.tensor(response)
            position_BL[b, start : start + size] = torch.arange(shared, shared + size)
            branch_BL[b, start : start + size] = branch
            r = response_index
            row_RT[r] = b
            place_RT[r, :size] = torch.tensor([shared - 1, *range(start, start + size - 1)])
            target_RT[r, :size] = torch.tensor(response)
            mask_RT[r, :size] = True
            row_R[r], last_R[r] = b, start + size - 1
            start += size
            response_index += 1
    inputs = {"input_ids": ids_BL, "position_ids": position_BL, "attention_mask": block_mask(branch_BL, dtype)}
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    rest = (row_RT, place_RT, target_RT, mask_RT, row_R, last_R)
    return PackedBatch(inputs, *(tensor.to(device) for tensor in rest))


def block_mask(branch_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive float[B, 1, L, L]: a token sees the prompt (branch 0) and its own branch, up to itself; -1 is padding."""
    length = branch_BL.shape[1]
    seen_BLL = (branch_BL[:, :, None] == branch_BL[:, None, :]) | (branch_BL[:, None, :] == 0)
    seen_BLL &= torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(seen_BLL.shape, dtype=dtype).masked_fill(~seen_BLL, torch.finfo(dtype).min)[:, None]


def response_logprobs(model: Any, rows: Sequence[PackedRow]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of all response tokens under a causal LM; the head is applied to response positions alone.

    Returns:
        logprobs_RT float32[R, T] in nats (0 where masked), mask_RT bool[R, T], entropy_RT float32[R, T] (no gradient).
    """
    parameter = next(model.parameters())
    batch = pack(rows, parameter.device, parameter.dtype)
    hidden_BLD = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
    chosen = batch.mask_RT
    hidden_ND = hidden_BLD[batch.row_RT[chosen], batch.place_RT[chosen]]
    logprobs_NV = model.get_output_embeddings()(hidden_ND).float().log_softmax(-1)
    logprobs_N = logprobs_NV.gather(1, batch.target_RT[chosen][:, None])[:, 0]
    with torch.no_grad():
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
    zeros_RT = torch.zeros(chosen.shape, device=parameter.device)
    return zeros_RT.masked_scatter(chosen, logprobs_N), chosen, zeros_RT.masked_scatter(chosen, entropy_N)


def rows_by_tokens(rows: Sequence[PackedRow], tokens: int) -> list[list[int]]:
    """Indices of rows in batches of similar length, each at most ``tokens`` with padding; deterministic."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * len(rows[i]) <= tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
