"""A prompt and its responses in one row: the prompt is computed once, a block mask keeps the responses apart.

Architectures that can't take such a mask get a row per response; the results are the same.

Axes: B = rows, L = tokens of a row, R = responses in all rows, T = response tokens, N = response tokens of all rows,
D = hidden size, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from charter.models.fused import Fused, fuse
from charter.objectives.entropy import token_logprobs, token_logprobs_and_entropy
from charter.training.attention import block_mask, packed_attention

TOKENS_PER_FORWARD = 8192
LOGITS_PER_CHUNK = 2**26  # a quarter of a GB in float32
MIN_TOKENS = 512  # a forward pass with fewer tokens is bound by overhead; padding is then the smaller evil
MAX_PADDING = 0.1  # of the tokens of a larger forward pass

_shares: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class PackedRow:
    """A prompt and the responses that continue it, as token ids; neither is empty."""

    prompt: list[int]
    responses: list[list[int]]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(frozen=True)
class PackedBatch:
    """Tensors for one forward pass.

    Attributes:
        shapes: for each row the length of its prompt and of its responses.
        ids_BL, position_BL: int64[B, L], padded at the right.
        branch_BL: int64[B, L], 0 on the prompt, 1, 2, ... on its responses, -1 on padding.
        length_B: int64[B], tokens of each row without padding.
        row_RT, place_RT: int64[R, T], where the hidden state that predicts each response token stands.
        target_RT: int64[R, T], the response tokens.
        mask_RT: bool[R, T], True where a token counts.
        row_R, last_R: int64[R], where each response's last token stands.
    """

    shapes: list[tuple[int, list[int]]]
    ids_BL: Tensor
    position_BL: Tensor
    branch_BL: Tensor
    length_B: Tensor
    row_RT: Tensor
    place_RT: Tensor
    target_RT: Tensor
    mask_RT: Tensor
    row_R: Tensor
    last_R: Tensor

    @property
    def has_branches(self) -> bool:
        """False where every row has one response: a causal model then needs no mask, for it never looks at padding."""
        return any(len(lengths) > 1 for _, lengths in self.shapes)


@dataclass(frozen=True)
class ResponseLogprobs:
    """Of every response, in the order of rows and within them.

    Attributes:
        logprobs_RT: float32[R, T] in nats, 0 where masked.
        mask_RT: bool[R, T], True where a token counts.
        entropy_RT: float32[R, T] in nats, without gradient, 0 where masked; None where it wasn't asked for.
    """

    logprobs_RT: Tensor
    mask_RT: Tensor
    entropy_RT: Tensor | None


def pack(rows: Sequence[PackedRow], device: Any) -> PackedBatch:
    """Lay rows out, right-padded; responses in the order of rows and within them."""
    length = max(len(row) for row in rows)
    longest = max(len(response) for row in rows for response in row.responses)
    ids, positions, branches = [], [], []  # of rows
    row_of, places, targets, lengths, lasts = [], [], [], [], []  # of responses
    for b, row in enumerate(rows):
        start = shared = len(row.prompt)
        ids_L, positions_L, branches_L = list(row.prompt), list(range(shared)), [0] * shared
        for branch, response in enumerate(row.responses, start=1):
            size = len(response)
            ids_L += response
            positions_L += range(shared, shared + size)
            branches_L += [branch] * size
            places.append([shared - 1, *range(start, start + size - 1)] + [0] * (longest - size))
            targets.append(response + [0] * (longest - size))
            row_of.append(b)
            lengths.append(size)
            start += size
            lasts.append(start - 1)
        padding = length - start
        ids.append(ids_L + [0] * padding)
        positions.append(positions_L + [0] * padding)
        branches.append(branches_L + [-1] * padding)
    mask_RT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    row_R = torch.tensor(row_of)
    row_RT = row_R[:, None].expand(-1, longest)
    last_R, length_B = torch.tensor(lasts), torch.tensor([len(row) for row in rows])
    of_responses = (row_RT, torch.tensor(places), torch.tensor(targets), mask_RT, row_R, last_R)
    of_rows = (torch.tensor(ids), torch.tensor(positions), torch.tensor(branches), length_B)
    shapes = [(len(row.prompt), [len(response) for response in row.responses]) for row in rows]
    return PackedBatch(shapes, *(tensor.to(device) for tensor in (*of_rows, *of_responses)))


def shares_prompts(model: Any) -> bool:
    """Does the model compute packed rows rightly? Found by trying once; a sliding window shorter than a row can't."""
    if model not in _shares:
        text_config = model.config.get_text_config()
        windowed = set(getattr(text_config, "layer_types", None) or ()) - {"full_attention"}
        if getattr(text_config, "sliding_window", None) and not getattr(text_config, "layer_types", None):
            windowed = {"sliding_attention"}
        _shares[model] = not windowed and _packs_rightly(model)
    return _shares[model]


@torch.no_grad()
def _packs_rightly(model: Any) -> bool:
    training = model.training
    model.eval()
    row = PackedRow([1, 2, 3], [[2, 1], [3, 1, 2]])
    try:
        packed_RD, plain_RD = (hidden_at_ends(model, rows) for rows in ([row], unpacked([row])))
    except (TypeError, ValueError, RuntimeError, IndexError):  # whatever an architecture says to such a mask
        return False
    finally:
        model.train(training)
    return torch.allclose(packed_RD.float(), plain_RD.float(), atol=1e-2 * float(plain_RD.float().std()), rtol=1e-2)


def unpacked(rows: Sequence[PackedRow]) -> list[PackedRow]:
    """A row per response, in the same order."""
    return [PackedRow(row.prompt, [response]) for row in rows for response in row.responses]


def hidden_at_ends(model: Any, rows: Sequence[PackedRow]) -> Tensor:
    """float[R, D]: the body's last hidden state at the last token of every response."""
    batch = _packed_for(model, rows)
    return _hidden(model, batch, batch.row_R, batch.last_R)


def hidden_before_tokens(model: Any, rows: Sequence[PackedRow]) -> tuple[Tensor, PackedBatch]:
    """float[N, D]: the body's last hidden state before each response token, in the order of ``mask_RT``."""
    batch = _packed_for(model, rows)
    return _hidden(model, batch, batch.row_RT[batch.mask_RT], batch.place_RT[batch.mask_RT]), batch


def _packed_for(model: Any, rows: Sequence[PackedRow]) -> PackedBatch:
    return pack(rows, next(model.parameters()).device)


def _hidden(model: Any, batch: PackedBatch, row_N: Tensor, place_N: Tensor) -> Tensor:
    """Hidden states at the places: by fused weights where the architecture is known, else by the model itself."""
    fused = None if has_own_ways(model) else fuse(model)
    if fused is not None:
        return _fused_hidden(fused, batch, row_N, place_N)
    inputs = {"input_ids": batch.ids_BL}
    if batch.has_branches:
        mask_B1LL = block_mask(batch.branch_BL, next(model.parameters()).dtype)
        inputs |= {"position_ids": batch.position_BL, "attention_mask": mask_B1LL}
    body = getattr(model, "forward_body", model.base_model)  # a split model has its own way in
    hidden_BLD: Tensor = body(**inputs, use_cache=False).last_hidden_state
    return hidden_BLD[row_N, place_N]


def has_own_ways(model: Any) -> bool:
    """Does its forward pass do more in training than the fused one knows of (dropout, gradient checkpointing)?"""
    ways = ("attention_dropout", "gradient_checkpointing")
    return model.training and any(getattr(module, way, False) for module in model.modules() for way in ways)


def _fused_hidden(fused: Fused, batch: PackedBatch, row_N: Tensor, place_N: Tensor) -> Tensor:
    """Matrix products run over the tokens alone; only attention sees padding."""
    real_BL = batch.branch_BL >= 0
    # the flash kernels of CPUs are several times slower in bfloat16, backward above all
    dtype = torch.float32 if fused.dtype == torch.bfloat16 and fused.device.type == "cpu" else fused.dtype
    repeats = fused.num_heads // fused.num_kv_heads
    attention = packed_attention(batch.shapes, dtype, fused.device)

    def attend(_: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x[0].to(dtype) for x in (q, k, v))
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        return attention(q, k, v).to(fused.dtype)[None]

    read_N = (batch.length_B.cumsum(0) - batch.length_B)[row_N] + place_N
    return fused.hidden(batch.ids_BL[real_BL][None], batch.position_BL[real_BL][None], attend, read_N)[0]


def prepared(model: Any, rows: Sequence[PackedRow]) -> Sequence[PackedRow]:
    """The rows as the model can take them."""
    return rows if shares_prompts(model) else unpacked(rows)


def response_logprobs(
    model: Any, rows: Sequence[PackedRow], *, temperature: float = 1.0, with_entropy: bool = False
) -> ResponseLogprobs:
    """Log-probabilities of all response tokens under a causal LM; the head is applied to response positions alone.

    Args:
        temperature: > 0, divides the logits, as in sampling.
    """
    hidden_ND, batch = hidden_before_tokens(model, prepared(model, rows))
    chosen = batch.mask_RT
    target_N = batch.target_RT[chosen]
    head = model.get_output_embeddings()
    size = max(1, LOGITS_PER_CHUNK // head.weight.shape[0])
    chunks = list(zip(hidden_ND.split(size), target_N.split(size), strict=True))
    keep = len(chunks) == 1 or not torch.is_grad_enabled()
    found = [
        _read_head(head, h, t, temperature, with_entropy)
        if keep  # else the logits of a chunk are computed again in the backward pass, so that only one is in memory
        else checkpoint(_read_head, head, h, t, temperature, with_entropy, use_reentrant=False)
        for h, t in chunks
    ]
    zeros_RT = torch.zeros(chosen.shape, device=chosen.device)
    logprobs_RT = zeros_RT.masked_scatter(chosen, torch.cat([logprobs_N for logprobs_N, _ in found]))
    if not with_entropy:
        return ResponseLogprobs(logprobs_RT, chosen, None)
    entropy_RT = zeros_RT.masked_scatter(
        chosen, torch.cat([entropy_N for _, entropy_N in found if entropy_N is not None])
    )
    return ResponseLogprobs(logprobs_RT, chosen, entropy_RT)


def _read_head(
    head: Any, hidden_ND: Tensor, target_N: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logits_NV = head(hidden_ND).float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    return (
        token_logprobs_and_entropy(logits_NV, target_N) if with_entropy else (token_logprobs(logits_NV, target_N), None)
    )


def rows_by_tokens(rows: Sequence[PackedRow], tokens: int = TOKENS_PER_FORWARD) -> list[list[int]]:
    """Indices of rows in batches of similar length, each at most ``tokens`` with padding; deterministic."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    batches: list[list[int]] = []
    filled = 0  # tokens of the last batch without padding
    for i in order:
        padded = (len(batches[-1]) + 1) * len(rows[i]) if batches else 0
        wasteful = filled >= MIN_TOKENS and padded - filled - len(rows[i]) > MAX_PADDING * padded
        if batches and padded <= tokens and not wasteful:
            batches[-1].append(i)
            filled += len(rows[i])
        else:
            batches.append([i])
            filled = len(rows[i])
    return batches
