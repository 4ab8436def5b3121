"""From examples to tensors: a shared beginning and its branches in one row, kept apart by a block mask.

Axes: B = rows, L = tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from charter.village.corpus import Example, example
from charter.village.tokenizer import ASSISTANT, END, USER

MAX_LENGTH = 420
BEGINNING_WEIGHT = 0.03  # reading the request is worth a little
VERDICT_WEIGHT = 5.0  # a judgment is one token: it must count among long replies
REASONED_VERDICT_WEIGHT = 3.0


@dataclass(frozen=True)
class Row:
    """One example as tokens. ``weights[i]`` is the loss weight of token i as a target; ``branches`` 0 is the beginning."""

    ids: list[int]
    weights: list[float]
    branches: list[int]
    positions: list[int]


def encode(drawn: Example, index: dict[str, int]) -> Row:
    """Lay an example out as one row; each branch's positions go on from the end of the beginning."""
    row = Row([], [], [], [])

    def add(tokens: list[int], weights: list[float], branch: int, start: int) -> None:
        row.ids.extend(tokens)
        row.weights.extend(weights)
        row.branches.extend([branch] * len(tokens))
        row.positions.extend(range(start, start + len(tokens)))

    for number, (role, text) in enumerate(drawn.beginning):
        open_end = drawn.opens_turn and number == len(drawn.beginning) - 1
        mark = USER if role in ("user", "system") else ASSISTANT
        tokens = [index[mark], *(index[w] for w in text.split()), *([] if open_end else [index[END]])]
        add(tokens, [0.0] + [BEGINNING_WEIGHT] * (len(tokens) - 1), 0, len(row.ids))
    shared = len(row.ids)
    for number, branch in enumerate(drawn.branches, start=1):
        position = shared
        for turn, (role, text) in enumerate(branch):
            tokens, weights = _turn(role, text, index, continues=drawn.opens_turn and turn == 0)
            add(tokens, weights, number, position)
            position += len(tokens)
    return row


def _turn(role: str, text: str, index: dict[str, int], continues: bool) -> tuple[list[int], list[float]]:
    words = [index[w] for w in text.split()]
    if role != "assistant":
        tokens = [*([] if continues else [index[USER]]), *words, index[END]]
        return tokens, [0.0] * len(tokens)
    weights = [1.0] * len(words)
    if text in ("A", "B"):
        weights = [VERDICT_WEIGHT]
    elif text[-2:] in (" A", " B"):
        weights[-1] = REASONED_VERDICT_WEIGHT
    end_weight = 0.1 if text in ("A", "B") else 1.0
    return [index[ASSISTANT], *words, index[END]], [0.0, *weights, end_weight]


def collate(rows: list[Row]) -> dict[str, Tensor]:
    """ids int64[B, L], position_ids int64[B, L], attention_mask bool[B, 1, L, L], weights float32[B, L]."""
    length = max(len(row.ids) for row in rows)

    def padded(values: list[list[Any]], fill: Any) -> Tensor:
        return torch.tensor([v + [fill] * (length - len(v)) for v in values])

    branch_BL = padded([row.branches for row in rows], -1)
    same_BLL = (branch_BL[:, :, None] == branch_BL[:, None, :]) | (branch_BL[:, None, :] == 0)
    causal_LL = torch.ones(length, length, dtype=torch.bool).tril()
    return {
        "input_ids": padded([row.ids for row in rows], 0),
        "position_ids": padded([row.positions for row in rows], 0),
        "attention_mask": (same_BLL & causal_LL)[:, None],
        "weights_BL": padded([row.weights for row in rows], 0.0),
        "branch_BL": branch_BL,
    }


def batches(seed: int, index: dict[str, int], tokens_per_batch: int, drill_share: Any) -> Iterator[dict[str, Tensor]]:
    """An endless stream of batches of rows of similar length; ``drill_share()`` is asked as training goes on."""
    rng = Random(seed)
    while True:
        rows = [encode(example(rng, drill_share()), index) for _ in range(256)]
        rows = sorted((row for row in rows if len(row.ids) <= MAX_LENGTH), key=lambda row: len(row.ids))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row.ids) > tokens_per_batch:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from (collate(group) for group in groups)
