"""How labels come about: which verdicts on principles reach the threshold and count, and how those compare with the rest.

    p_a = sigmoid(sharpness * sum over principles of weight * mean over orders of log-odds), of those at least min_log_odds

Axes: P pairs, K principles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.evidence import Evidence, Pairs
from charter.audit.figures import figure
from charter.audit.recorded import run_config
from charter.config import CommitteeConfig
from charter.labelers.make import min_log_odds
from charter.statistics import proportion, unknown

JUDGMENTS = "4-label/judgments.jsonl"


def audit_counting(evidence: Evidence) -> dict[str, Any]:
    """The rule, and shares of verdicts that count, flip with the order, are right and are followed by the label.

    A verdict is what a labeler says of a pair by one principle, over the orders that it was asked in; ``reason`` says why
    nothing is known.
    """
    config, why_not = run_config(evidence.folder)
    pairs = evidence.pairs
    if config is None or np.isnan(pairs.judged_PKO).all():
        return {"reason": why_not or "no judgments on principles"}
    labeler = config.label.labeler
    if isinstance(labeler, CommitteeConfig):
        return {"reason": "a committee: each member makes a label by a rule of its own"}
    threshold = min_log_odds(labeler, labeler.kind)
    known_PK = ~np.isnan(pairs.judged_PK)
    counts_PK = known_PK & (np.abs(np.nan_to_num(pairs.judged_PK)) >= threshold)
    drawn = getattr(labeler, "principles", "all") != "all"
    weights = {id: 1.0 if drawn else float(w) for id, w in zip(pairs.principle_ids, pairs.weights_K, strict=True)}
    own = [np.arange(len(weights)) == k for k in range(len(weights))]
    return {
        "reason": None,
        "sharpness": labeler.sharpness,
        "min_log_odds": threshold,
        "min_margin": config.label.min_margin,
        "weights": weights,
        "all": _shares(pairs, known_PK, counts_PK),
        "by_principle": {
            id: _shares(pairs, known_PK & own[k], counts_PK & own[k]) for k, id in enumerate(pairs.principle_ids)
        },
    }


def _shares(pairs: Pairs, known_PK: np.ndarray, counts_PK: np.ndarray) -> dict[str, Any]:
    """Of the verdicts marked in ``known_PK``, those that count and those that were dropped."""
    dropped_PK = known_PK & ~counts_PK
    sign_PKO = np.sign(pairs.judged_PKO)
    decided_PK = ~np.isnan(sign_PKO).any(axis=2) & (sign_PKO != 0).all(axis=2)
    flips_PK = sign_PKO[..., 0] * sign_PKO[..., 1] < 0
    told_PK = ~np.isnan(pairs.level_PK) & (pairs.level_PK != 0) & (np.nan_to_num(pairs.judged_PK) != 0)
    right_PK = np.sign(pairs.judged_PK) == np.sign(pairs.level_PK)
    labelled_PK = (~np.isnan(pairs.label_P) & (pairs.label_P != 0))[:, None]
    followed_PK = np.sign(pairs.judged_PK) == np.sign(pairs.label_P)[:, None]
    return {
        "counted": _share(pairs, counts_PK, known_PK, "no verdict"),
        "flips_counted": _share(pairs, flips_PK, counts_PK & decided_PK, "none that counts was asked in both orders"),
        "flips_dropped": _share(pairs, flips_PK, dropped_PK & decided_PK, "none that was dropped has both orders"),
        "right_counted": _share(pairs, right_PK, counts_PK & told_PK, "none that counts is known to be right or wrong"),
        "right_dropped": _share(pairs, right_PK, dropped_PK & told_PK, "none dropped is known to be right or wrong"),
        "label_follows": _share(pairs, followed_PK, counts_PK & labelled_PK, "none that counts has a label"),
    }


def _share(pairs: Pairs, hits_PK: np.ndarray, among_PK: np.ndarray, why_not: str) -> dict[str, Any]:
    rows = np.broadcast_to(pairs.index_P[:, None], among_PK.shape)[among_PK]
    found = proportion(hits_PK[among_PK].tolist(), rows.tolist())
    return figure(unknown(why_not) if found.value is None else found, JUDGMENTS)
