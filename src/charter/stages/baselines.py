"""What a reward model must beat: the longer response wins, the shorter wins, and logistic regression on bags of words.

Accuracies of learned reward models mean little alone: on some preference data length decides two thirds of the pairs
(Singhal et al. 2023, arXiv:2310.03716).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, embedding_bag

from charter.records import Estimate, PreferencePair
from charter.statistics import share, unknown

WORD = re.compile(r"\w+|[^\w\s]")
VOCABULARY_SIZE = 20_000
EPOCHS = 20
LEARNING_RATE = 0.02
WEIGHT_DECAY = 1e-4
BATCH_SIZE = 256


def agreement(margins: Sequence[float], pairs: Sequence[PreferencePair]) -> Estimate:
    """How often a margin (score of A minus score of B) has the sign of the label; a tie counts half.

    Pairs labelled exactly 0.5 have no side and are left out. Intervals are clustered by prompt.
    """
    sided = [(m, pair) for m, pair in zip(margins, pairs, strict=True) if pair.p_a != 0.5]
    if not sided:
        return unknown("no pair has a label on one side")
    clusters = [pair.prompt.id for _, pair in sided]
    hits = [0.5 if m == 0 else float((m > 0) == (pair.p_a > 0.5)) for m, pair in sided]
    return share(hits, clusters)


def baselines(train: Sequence[PreferencePair], held_out: Sequence[PreferencePair], seed: int) -> dict[str, Estimate]:
    """Held-out agreement of the three baselines; the words are fitted on the training split alone."""
    longer = [float(len(p.response_a.split()) - len(p.response_b.split())) for p in held_out]
    return {
        "longer_wins": agreement(longer, held_out),
        "shorter_wins": agreement([-margin for margin in longer], held_out),
        "bag_of_words": agreement(BagOfWords(train, seed).margins(held_out), held_out),
    }


class BagOfWords:
    """Logistic regression on the difference of word counts; log(1 + count) per word, fitted by Adam with weight decay."""

    def __init__(self, train: Sequence[PreferencePair], seed: int) -> None:
        common = Counter(w for p in train for text in (p.response_a, p.response_b) for w in set(_words(text)))
        kept = [word for word, count in common.most_common(VOCABULARY_SIZE) if count > 1]
        self._ids = {word: index for index, word in enumerate(kept, start=1)}  # 0 is the empty bag
        self._weight_V1 = torch.zeros(len(kept) + 1, 1, requires_grad=True)
        self._fit(train, seed)

    def _fit(self, train: Sequence[PreferencePair], seed: int) -> None:
        optimizer = torch.optim.AdamW([self._weight_V1], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        bags = [self._bag(pair) for pair in train]
        p_a = torch.tensor([pair.p_a for pair in train])
        generator = torch.Generator().manual_seed(seed % 2**63)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(bags), generator=generator).split(BATCH_SIZE):
                margin_B = self._score([bags[i] for i in rows.tolist()])
                loss = binary_cross_entropy_with_logits(margin_B, p_a[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def margins(self, pairs: Sequence[PreferencePair]) -> list[float]:
        """Log-odds (nats) that A is better, for each pair."""
        with torch.no_grad():
            return self._score([self._bag(pair) for pair in pairs]).tolist() if pairs else []

    def _bag(self, pair: PreferencePair) -> dict[int, float]:
        difference: dict[int, float] = {}
        for text, sign in ((pair.response_a, 1.0), (pair.response_b, -1.0)):
            for word, count in Counter(_words(text)).items():
                if word in self._ids:
                    index = self._ids[word]
                    difference[index] = difference.get(index, 0.0) + sign * math.log(1 + count)
        return {index: value for index, value in difference.items() if value} or {0: 0.0}

    def _score(self, bags: Sequence[dict[int, float]]) -> Tensor:
        offsets = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
        ids = torch.tensor([index for bag in bags for index in bag])
        values = torch.tensor([value for bag in bags for value in bag.values()])
        return embedding_bag(ids, self._weight_V1, offsets, mode="sum", per_sample_weights=values).squeeze(1)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
