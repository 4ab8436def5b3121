"""Keys and values of the tokens that rows have drawn, laid out for reading.

Each step of decoding reads all of them, so on a CPU reading is most of attention's cost: three times as slow where there
are gaps between the rows. So nothing is kept ready for tokens to come but for a few, and those are laid out token by token.

Axes: T = tokens, B = rows, K = key-value heads, D = head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

RECENT = 16  # tokens; then they join the earlier ones, which are copied


class RowCache:
    """Of one layer. Rows that leave are overwritten by the last ones, so that nothing else moves."""

    def __init__(self, num_rows: int, num_heads: int, head_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.num_rows, self.num_recent = num_rows, 0
        self.recent_TBKD = [
            torch.empty(RECENT, num_rows, num_heads, head_size, dtype=dtype, device=device) for _ in "kv"
        ]
        self.earlier_BKTD = [torch.empty(num_rows, num_heads, 0, head_size, dtype=dtype, device=device) for _ in "kv"]

    def add(self, k_BKD: Tensor, v_BKD: Tensor) -> None:
        """A token of each row."""
        if self.num_recent == RECENT:
            self.earlier_BKTD = [torch.cat(parts, 2) for parts in zip(*self.parts(), strict=True)]
            self.num_recent = 0
        for recent_TBKD, x_BKD in zip(self.recent_TBKD, (k_BKD, v_BKD), strict=True):
            recent_TBKD[self.num_recent, : self.num_rows] = x_BKD
        self.num_recent += 1

    def parts(self) -> list[list[Tensor]]:
        """Keys and values [B, K, T, D] of the first tokens, then of those after them."""
        recent = [x_TBKD[: self.num_recent, : self.num_rows].permute(1, 2, 0, 3) for x_TBKD in self.recent_TBKD]
        earlier = [x_BKTD[: self.num_rows] for x_BKTD in self.earlier_BKTD]
        return [earlier, recent] if earlier[0].shape[2] else [recent]

    def keep(self, order: list[int]) -> None:
        """Go on with these rows alone (see ``packed_order``)."""
        self.num_rows = len(order)
        for recent_TBKD, earlier_BKTD in zip(self.recent_TBKD, self.earlier_BKTD, strict=True):
            move(recent_TBKD.transpose(0, 1), order)
            move(earlier_BKTD, order)


def packed_order(kept: list[int]) -> list[int]:
    """The same places, ordered so that as many as can stay where they are: the last ones fill the holes."""
    size = len(kept)
    stays = {place for place in kept if place < size}
    movers = iter([place for place in kept if place >= size])
    return [place if place in stays else next(movers) for place in range(size)]


def move(entries: Tensor, order: list[int]) -> None:
    """Bring the entries ``order`` (see ``packed_order``) to the front, in place."""
    for to, place in enumerate(order):
        if to != place:
            entries[to] = entries[place]
