"""Log-probabilities of given options, with the work on a shared beginning done once.

Models of Llama's shape go through fused weights (``shared``). Any other model gets each tree of questions as one row, in
which a token sees its own branch alone (a tree mask), at the positions it would have alone; a model that doesn't honour
such a mask, or has a sliding window, gets one row per question.

Axes: B = rows, L = tokens, R = places that are read, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from charter.models.fused import Fused, fuse
from charter.models.shared import end_states
from charter.models.tree import MAX_TREE_TOKENS, Node, grow

TOKENS_PER_BATCH = 8192
MAX_ROW = 1024  # tokens of a row with branches: its attention grows with the square
MAX_LOGITS = 1 << 26  # R x V of one batch
_honoured: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Asked:
    """One sequence and what is read of it: for each of its last tokens, the next tokens in question and their owners."""

    ids: list[int]
    targets: list[list[int]]
    owners: list[tuple[int, int]]  # (question, option) of each target of a row


@torch.no_grad()
def option_logprobs(
    model: Any, prompts: Sequence[list[int]], options: Sequence[Sequence[list[int]]]
) -> list[list[float]]:
    """Sum of token log-probabilities (nats) of each option after each prompt.

    Args:
        prompts: token ids, none empty. Neighbours that begin alike share that work.
        options: for each prompt, its options' token ids, none empty.
    """
    asked = _asked(prompts, options)
    fused = fuse(model)
    batches = _fused_logits(fused, asked) if fused is not None else _packed_logits(model, asked)
    results = [[0.0] * len(choices) for choices in options]
    for members, logits_RV in batches:
        reads = [(member, row) for member in members for row in asked[member].targets]
        places = [place for place, (_, row) in enumerate(reads) for _ in row]
        tokens = [token for _, row in reads for token in row]
        values = iter(logits_RV.log_softmax(-1)[places, tokens].tolist())
        for member, row in reads:
            for (question, option), value in zip(asked[member].owners, [next(values) for _ in row], strict=True):
                results[question][option] += value
    return results


def _asked(prompts: Sequence[list[int]], options: Sequence[Sequence[list[int]]]) -> list[_Asked]:
    """One sequence per question where each option is one token; else one per option, which follows the prompt."""
    found = []
    for question, (prompt, choices) in enumerate(zip(prompts, options, strict=True)):
        if all(len(option) == 1 for option in choices):
            owners = [(question, place) for place in range(len(choices))]
            found.append(_Asked(prompt, [[option[0] for option in choices]], owners))
            continue
        for place, option in enumerate(choices):
            found.append(_Asked(prompt + option[:-1], [[token] for token in option], [(question, place)]))
    return found


def _trees(asked: Sequence[_Asked], max_tokens: int) -> list[Node]:
    return grow([a.ids for a in asked], [len(a.targets) for a in asked], max_tokens)


def _fused_logits(fused: Fused, asked: Sequence[_Asked]) -> Iterator[tuple[list[int], Tensor]]:
    head_VC = (
        fused.head.float()
    )  # so few places are read that their logits may well be exact where weights are bfloat16
    for leaves, hidden_RC in end_states(fused, _trees(asked, MAX_TREE_TOKENS)):
        yield [leaf.member for leaf in leaves], F.linear(hidden_RC.float(), head_VC)


def _packed_logits(model: Any, asked: Sequence[_Asked]) -> Iterator[tuple[list[int], Tensor]]:
    trees = _trees(asked, MAX_ROW if _honours_branches(model) else 0)
    batch: list[Node] = []
    reads = 0
    for tree in sorted(trees, key=lambda tree: tree.num_tokens):
        num_read = sum(leaf.num_read for leaf in tree.levels()[-1])
        full = (len(batch) + 1) * tree.num_tokens > TOKENS_PER_BATCH
        if batch and (full or (reads + num_read) * model.config.get_text_config().vocab_size > MAX_LOGITS):
            yield _pack(model, batch)
            batch, reads = [], 0
        batch.append(tree)
        reads += num_read
    if batch:
        yield _pack(model, batch)


def _pack(model: Any, trees: list[Node]) -> tuple[list[int], Tensor]:
    """Members in order, and float32[R, V] logits of their reads; one row per tree, depth first."""
    length = max(tree.num_tokens for tree in trees)
    ids_BL = torch.zeros(len(trees), length, dtype=torch.long)
    positions_BL, ends_BL = torch.zeros_like(ids_BL), torch.zeros_like(ids_BL)
    members: list[int] = []
    rows: list[int] = []
    places: list[int] = []
    for row, tree in enumerate(trees):
        place = 0
        for node, start in tree.depth_first():
            own = len(node.ids) - start
            here = slice(place, place + own)
            ids_BL[row, here] = torch.tensor(node.ids[start:])
            positions_BL[row, here] = torch.arange(start, len(node.ids))
            ends_BL[row, here] = place + node.num_tokens - start  # who comes later than that isn't below this node
            place += own
            if not node.children:
                members.append(node.member)
                rows += [row] * node.num_read
                places += range(place - node.num_read, place)
    branching = any(tree.children for tree in trees)
    mask = _tree_mask(ends_BL, model.dtype) if branching else (ends_BL > 0).long()
    inputs = {"input_ids": ids_BL, "position_ids": positions_BL, "attention_mask": mask}
    return members, logits_at(model, inputs, torch.tensor(rows), torch.tensor(places))


def _tree_mask(ends_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive float[B, 1, L, L]: a token sees earlier tokens whose subtree it is in."""
    place_L = torch.arange(ends_BL.shape[1])
    seen_BLL = (place_L[:, None] >= place_L) & (place_L[:, None] < ends_BL[:, None, :])
    return torch.zeros(seen_BLL.shape, dtype=dtype).masked_fill(~seen_BLL, torch.finfo(dtype).min)[:, None]


def logits_at(model: Any, inputs: dict[str, Tensor], rows_R: Tensor, places_R: Tensor) -> Tensor:
    """float32[R, V]: a forward pass whose head sees only the given places, so the other logits are never computed.

    Whatever the model does to its logits (soft caps, scales) is done.
    """
    device = next(model.parameters()).device

    def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0][rows_R.to(device), places_R.to(device)][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        logits: Tensor = model(**{name: tensor.to(device) for name, tensor in inputs.items()}, use_cache=False).logits
    finally:
        hook.remove()
    return logits[0].float()


def _honours_branches(model: Any) -> bool:
    """Whether a tree in one row gives what its sequences give alone; tried once per model."""
    if model not in _honoured:
        _honoured[model] = not _has_window(model) and _try_branches(model)
    return _honoured[model]


def _has_window(model: Any) -> bool:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    return window or kinds != {"full_attention"}


def _try_branches(model: Any) -> bool:
    top = model.config.get_text_config().vocab_size - 1
    beginning = [(7 * i + 3) % top for i in range(16)]
    sequences = [beginning + [(i * k + 5) % top for i in range(1, 4)] for k in (11, 13)]
    together = grow(sequences, [1, 1], MAX_ROW)
    try:
        branched = _pack(model, together)[1]
    except (ValueError, RuntimeError, TypeError, IndexError):
        return False  # the model takes no mask of four dimensions
    alone = torch.cat([_pack(model, grow([ids], [1], 0))[1] for ids in sequences])
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((branched - alone).abs().max() <= tolerance * alone.abs().max())
