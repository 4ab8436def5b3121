"""Sequences that begin alike, as regular trees: each shared beginning is one node, computed once for all that follow.

The questions of a labeler nest: worked examples > conversation > order of the two responses > principle. With P shared and S
own tokens and K questions, the most that one level of sharing can give is (P + S) / (P / K + S).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MIN_SHARED = 12  # tokens; a shorter common beginning isn't worth a pass of its own
MAX_TREE_TOKENS = 8192


@dataclass
class Node:
    """A beginning and what follows it.

    Attributes:
        ids: all tokens from the start of the text, not only the node's own.
        signature: how many children, and of which shape; nodes of one signature can be computed together.
        num_tokens: own and below, counted from the start of the text.
        num_read: for a leaf, how many of its last tokens are read; they are never shared.
        member: for a leaf, which sequence it is.
    """

    ids: list[int]
    children: list[Node] = field(default_factory=list)
    signature: tuple = ()
    num_tokens: int = 0
    num_read: int = 1
    member: int = -1

    def levels(self) -> list[list[Node]]:
        """The node, its children, their children, …"""
        found = [[self]]
        while found[-1][0].children:
            found.append([child for node in found[-1] for child in node.children])
        return found

    def depth_first(self, start: int = 0) -> Iterator[tuple[Node, int]]:
        """Each node before its children, with the place where its own tokens start."""
        yield self, start
        for child in self.children:
            yield from child.depth_first(len(self.ids))


def grow(sequences: Sequence[list[int]], num_read: Sequence[int], max_tokens: int = MAX_TREE_TOKENS) -> list[Node]:
    """Trees over runs of neighbouring sequences; a sequence that shares nothing is a tree of one leaf.

    Args:
        num_read: how many last tokens of each sequence are read.
        max_tokens: of one tree.
    """
    leaves = [
        Node(ids, num_tokens=len(ids), num_read=reads, member=member)
        for member, (ids, reads) in enumerate(zip(sequences, num_read, strict=True))
    ]
    nodes = leaves
    while True:
        runs = _runs(nodes, max_tokens)
        if len(runs) == len(nodes):
            return nodes
        nodes = [_parent(run, shared) if len(run) > 1 else run[0] for run, shared in runs]


def _runs(nodes: list[Node], max_tokens: int) -> list[tuple[list[Node], int]]:
    """Neighbours of one signature, with the number of tokens that they share."""
    runs: list[tuple[list[Node], int]] = []
    total = 0
    for node in nodes:
        if runs:
            run, shared = runs[-1]
            common = min(shared, _common(run[-1], node))
            # to join, the run gives up some of what it shares; to stay apart, the node repeats what is common
            lost = len(run) * (shared - common) if len(run) > 1 else 0
            fits = total + node.num_tokens - common <= max_tokens
            if node.signature == run[0].signature and common >= max(MIN_SHARED, lost + 1) and fits:
                run.append(node)
                runs[-1] = (run, common)
                total += node.num_tokens - common
                continue
        runs.append(([node], len(node.ids)))
        total = node.num_tokens
    return runs


def _parent(run: list[Node], shared: int) -> Node:
    tokens = shared + sum(node.num_tokens - shared for node in run)
    return Node(run[0].ids[:shared], run, (len(run), run[0].signature), tokens)


def _common(first: Node, second: Node) -> int:
    """Tokens that both begin with; each keeps at least one of its own, a leaf all that are read."""
    low, high = 0, max(0, min(len(first.ids) - first.num_read, len(second.ids) - second.num_read))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first.ids[low:middle] == second.ids[low:middle] else (low, middle - 1)
    return low
