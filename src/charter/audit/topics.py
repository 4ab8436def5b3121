"""On which prompts does a link err? A labeler or a reward model that is right everywhere but on one topic.

Whether a verdict is wrong is regressed on the words of the prompt, beyond how clear the pair is: how much the verdict before
says for one response, and which principles tell the two apart. What is searched is whether a word, or two neighbouring ones,
stands in the last message at all. Only an effect that is large in itself counts: prompts differ a little in how hard they are.

Axes: P pairs, C controls, F words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from charter.audit.drivers import Driver, Question, find_drivers
from charter.audit.evidence import Pairs
from charter.audit.features import Features, grams
from charter.audit.figures import LINK_NAMES, Finding
from charter.audit.links import credit
from charter.regression import Array, cluster_index

MIN_EFFECT = 0.15  # more errors than elsewhere, as a share of the pairs with the word
SURELY = 0.05  # and at least so many more by the lower end of the interval
MIN_PAIRS = 100
MIN_WITH = 15
MAX_SHARE = 0.7  # a word in nearly every prompt is no topic
MAX_WORDS = 200
BENDS = (0.1, 0.25, 0.5, 0.75)


def prompt_words(prompts: Sequence[str]) -> Features:
    """Columns float64[P, F] of 0 and 1: which words and pairs of words stand in each prompt, the commonest first."""
    held = [set(grams(prompt)) for prompt in prompts]
    present = Counter(word for own in held for word in own)
    most = MAX_SHARE * len(held)
    common = sorted((w for w, n in present.items() if MIN_WITH <= n <= most), key=lambda w: (-present[w], len(w), w))
    names, columns, seen = [], [], set()
    for word in common[:MAX_WORDS]:
        column_P = np.array([float(word in own) for own in held])
        if column_P.tobytes() not in seen:
            seen.add(column_P.tobytes())
            names.append(f"“{word}”")
            columns.append(column_P)
    values_PF = np.column_stack(columns) if columns else np.zeros((len(held), 0))
    return Features(tuple(names), values_PF)


def errs_on(link: str, verdict_P: Array, truth_P: Array, pairs: Pairs, alpha: float) -> list[Finding]:
    """Words of prompts on which verdicts differ from what the link before says much more often than elsewhere.

    Args:
        truth_P: the verdict of the link before, signed, in its own units; NaN or 0: it doesn't decide.
    """
    wrong_P = 1 - credit(verdict_P, truth_P)
    known_P = ~np.isnan(wrong_P)
    if known_P.sum() < MIN_PAIRS:
        return []
    own, wrong_P, size_P = pairs.rows(known_P), wrong_P[known_P], np.abs(truth_P[known_P])
    clear_PC = [np.minimum(size_P, limit) for limit in np.quantile(size_P, BENDS)]
    apart_PK = np.abs(np.sign(np.nan_to_num(own.level_PK)))
    controls_PC = np.column_stack([np.ones(len(size_P)), size_P, *clear_PC, apart_PK])
    words = prompt_words([pair.prompt.messages[-1].content for pair in own.pairs])
    index_P = cluster_index([pair.prompt.id for pair in own.pairs])
    found = find_drivers(Question(wrong_P[:, None], controls_PC, words, index_P), alpha=alpha)
    return [_fault(link, driver) for driver in found if _large(driver)]


def _large(driver: Driver) -> bool:
    size = driver.coefficient
    return size.value is not None and size.low is not None and size.value >= MIN_EFFECT and size.low >= SURELY


def _fault(link: str, driver: Driver) -> Finding:
    more = driver.coefficient.value or 0.0
    says = f"{LINK_NAMES[link]} errs {more:.0%} more often where the prompt says {driver.name} than on other pairs as clear"
    cost = more * float(driver.column_P.mean())
    return Finding(link, "errs_on", driver.name, driver.coefficient, "share of pairs", driver.p, cost, says)
