"""Log-probabilities of given options, with the work on a shared beginning done once.

Neighbouring questions that begin alike form a group, laid out as one row: the shared beginning, then each question's own
ending as a branch that sees the beginning and itself (a block mask), at the positions it would have alone.
With P shared and S own tokens and K questions, the most that sharing can give is (P + S) / (P / K + S).

Axes: B = rows, L = tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MIN_SHARED = 16  # tokens; a shorter common beginning isn't worth a mask
MAX_BRANCH_TOKENS = 768  # in one row: attention grows with the square of a row
TOKENS_PER_BATCH = 6144


@dataclass(frozen=True)
class Ending:
    """A question's tokens, and the tokens whose log-probabilities are read: all after the last token, or one per place."""

    ids: list[int]
    targets: list[int]  # option tokens
    teacher_forced: bool  # True: targets[1:] follow the question in ``ids``; False: every target is a first token


@torch.no_grad()
def option_logprobs(model: Any, prompts: Sequence[list[int]], options: Sequence[list[list[int]]]) -> list[list[float]]:
    """Sum of token log-probabilities (nats) of each option after each prompt.

    Args:
        prompts: token ids, none empty.
        options: for each prompt, its options' token ids, none empty.
    """
    endings, owners = [], []
    for index, (prompt, choices) in enumerate(zip(prompts, options, strict=True)):
        if all(len(option) == 1 for option in choices):
            endings.append(Ending(prompt, [option[0] for option in choices], False))
            owners.append([(index, place) for place in range(len(choices))])
            continue
        for place, option in enumerate(choices):
            endings.append(Ending(prompt + option[:-1], option, True))
            owners.append([(index, place)])
    results = [[0.0] * len(choices) for choices in options]
    groups = sorted(_groups(endings), key=lambda group: (_row_length(endings, group), group[0]))
    for batch in _batches(endings, groups):
        for member, values in _score(model, endings, batch):
            for (index, place), value in zip(owners[member], values, strict=True):
                results[index][place] = value
    return results


def _common(first: list[int], second: list[int]) -> int:
    limit = min(len(first), len(second))
    return next((place for place in range(limit) if first[place] != second[place]), limit)


def _shared(endings: Sequence[Ending], group: list[int]) -> int:
    """Tokens that all members begin with; at least one token stays in each branch."""
    first = endings[group[0]].ids
    common = min((_common(first, endings[i].ids) for i in group[1:]), default=0)
    return min(common, min(len(endings[i].ids) for i in group) - 1)


def _row_length(endings: Sequence[Ending], group: list[int]) -> int:
    shared = _shared(endings, group)
    return shared + sum(len(endings[i].ids) - shared for i in group)


def _groups(endings: Sequence[Ending]) -> list[list[int]]:
    """Runs of neighbours of which each shares most of its tokens with the run's first."""
    groups: list[list[int]] = []
    branch_tokens = 0
    for i, ending in enumerate(endings):
        if groups:
            common = _common(endings[groups[-1][0]].ids, ending.ids)
            own = len(ending.ids) - common
            if common >= max(MIN_SHARED, len(ending.ids) // 2) and branch_tokens + own <= MAX_BRANCH_TOKENS:
                groups[-1].append(i)
                branch_tokens += own
                continue
        groups.append([i])
        branch_tokens = 0
    return groups


def _batches(endings: Sequence[Ending], groups: list[list[int]]) -> Iterator[list[list[int]]]:
    batch: list[list[int]] = []
    for group in groups:
        if batch and (len(batch) + 1) * _row_length(endings, group) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def _score(model: Any, endings: Sequence[Ending], batch: list[list[int]]) -> Iterator[tuple[int, list[float]]]:
    """One forward pass over packed rows; yields each member with the log-probabilities of its targets."""
    device = next(model.parameters()).device
    length = max(_row_length(endings, group) for group in batch)
    ids_BL = torch.zeros(len(batch), length, dtype=torch.long)
    positions_BL = torch.zeros_like(ids_BL)
    branches_BL = torch.full_like(ids_BL, -1)
    reads: list[tuple[int, int, int]] = []  # member, row, place of the token before its first target
    for row, group in enumerate(batch):
        place = shared = _shared(endings, group)
        ids_BL[row, :shared] = torch.tensor(endings[group[0]].ids[:shared])
        positions_BL[row, :shared] = torch.arange(shared)
        branches_BL[row, :shared] = 0
        for branch, member in enumerate(group, start=1):
            own = endings[member].ids[shared:]
            ids_BL[row, place : place + len(own)] = torch.tensor(own)
            positions_BL[row, place : place + len(own)] = torch.arange(shared, shared + len(own))
            branches_BL[row, place : place + len(own)] = branch
            place += len(own)
            extra = len(endings[member].targets) - 1 if endings[member].teacher_forced else 0
            reads.append((member, row, place - 1 - extra))
    packed = any(len(group) > 1 for group in batch)
    mask = _block_mask(branches_BL, model) if packed else (branches_BL >= 0).long()
    hidden_BLD = model.base_model(
        input_ids=ids_BL.to(device), position_ids=positions_BL.to(device), attention_mask=mask.to(device), use_cache=False
    ).last_hidden_state
    yield from _read(model, hidden_BLD, endings, reads)


def _block_mask(branches_BL: Tensor, model: Any) -> Tensor:
    """Additive float[B, 1, L, L]: a token sees the beginning and its own branch up to itself."""
    length = branches_BL.shape[1]
    seen = (branches_BL[:, :, None] == branches_BL[:, None, :]) | (branches_BL[:, None, :] == 0)
    seen &= torch.ones(length, length, dtype=torch.bool).tril()
    dtype = next(model.parameters()).dtype
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _read(
    model: Any, hidden_BLD: Tensor, endings: Sequence[Ending], reads: list[tuple[int, int, int]]
) -> Iterator[tuple[int, list[float]]]:
    spans = [len(endings[m].targets) if endings[m].teacher_forced else 1 for m, _, _ in reads]
    rows = torch.tensor([row for (_, row, _), span in zip(reads, spans, strict=True) for _ in range(span)])
    places = torch.tensor([place + k for (_, _, place), span in zip(reads, spans, strict=True) for k in range(span)])
    logprobs = model.get_output_embeddings()(hidden_BLD[rows, places]).float().log_softmax(-1).cpu()
    start = 0
    for (member, _, _), span in zip(reads, spans, strict=True):
        targets = endings[member].targets
        if endings[member].teacher_forced:
            yield member, [float(sum(logprobs[start + k, target] for k, target in enumerate(targets)))]
        else:
            yield member, [float(logprobs[start, target]) for target in targets]
        start += span
