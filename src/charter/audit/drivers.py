"""Which features drive a link's verdicts beyond what they should follow: forward selection with a permutation null.

Outcome and candidate are freed of the controls, and a candidate's score is summed by prompt; without a fault the sign of a
prompt's sum is a coin flip, so the largest |t| over all candidates under random flips gives p-values that are corrected
for how many candidates were tried (Westfall and Young 1993, max-t). The best one joins the controls, and so on. One
whose interval holds zero once all are in is dropped again.

Axes: P pairs, C controls, F candidates, G clusters (prompts), R random flips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charter.audit.features import Features
from charter.audit.figures import LINK_ALPHA, NUM_FLIPS
from charter.records import Estimate
from charter.regression import Array, Fit, Index, least_squares, sum_by_cluster

MAX_DRIVERS = 6
MIN_TURNED = 0.005
"""Share of the verdicts below which a pull isn't worth naming, if it doesn't turn many of those that it touches:"""
FEWEST_TURNED, MIN_TURNED_OF_OWN = 3, 0.05
MIN_OWN_SHARE = 0.02
"""A candidate of whose variance the controls leave less than this is what they already say."""


@dataclass(frozen=True)
class Driver:
    """A feature, its coefficient in units of the outcome per unit of the feature, and its corrected p-value."""

    name: str
    coefficient: Estimate
    p: float
    column_P: Array


@dataclass(frozen=True)
class Question:
    """An outcome, what it should follow, and what it might follow instead.

    Attributes:
        outcomes_PS: readings of the outcome of which all must show the driver with the same sign (usually one); the
            first gives the coefficient.
        controls_PC: with a column of ones where a constant is wanted.
        index_P: int64, number of each pair's prompt.
    """

    outcomes_PS: Array
    controls_PC: Array
    candidates: Features
    index_P: Index


def find_drivers(question: Question, *, alpha: float = LINK_ALPHA, seed: int = 0) -> list[Driver]:
    """The candidates that drive the outcome, strongest first; none in 1 - alpha of the cases where nothing does."""
    if len(question.outcomes_PS) == 0 or not question.candidates.names:
        return []
    chosen: list[int] = []
    p_values: list[float] = []
    while len(chosen) < MAX_DRIVERS:
        best, p = _strongest(question, chosen, seed)
        if best is None or p > alpha:
            break
        chosen.append(best)
        p_values.append(p)
    found = _measured(question, chosen, p_values)
    while found and (unsure := [i for i, driver in enumerate(found) if _spans_zero(driver.coefficient)]):
        # those chosen later took its part over: what is left of it isn't sure, so it isn't named
        weakest = min(unsure, key=lambda i: _strength(found[i].coefficient))
        del chosen[weakest], p_values[weakest]
        found = _measured(question, chosen, p_values)
    return found


def _spans_zero(size: Estimate) -> bool:
    return size.low is not None and size.high is not None and size.low <= 0 <= size.high


def _strength(size: Estimate) -> float:
    return abs(size.value or 0.0) / max(1e-12, (size.high or 0.0) - (size.low or 0.0))


def _strongest(question: Question, chosen: list[int], seed: int) -> tuple[int | None, float]:
    """The candidate with the largest |t|, and its corrected p-value."""
    controls_PC = np.column_stack([question.controls_PC, question.candidates.values_PF[:, chosen]])
    basis_PC = _basis(controls_PC)
    candidates_PF = _freed(question.candidates.values_PF, basis_PC)
    before_F = np.sqrt((question.candidates.values_PF**2).sum(axis=0))
    own_F = np.sqrt((candidates_PF**2).sum(axis=0)) > np.sqrt(MIN_OWN_SHARE) * before_F
    own_F[chosen] = False
    if not own_F.any():
        return None, 1.0
    outcomes_PS = _freed(question.outcomes_PS, basis_PC)
    explained_S = (outcomes_PS**2).sum(axis=0) < 1e-18 * (question.outcomes_PS**2).sum(axis=0)
    outcomes_PS[:, explained_S] = 0.0
    t_SF, null_R = _statistics(outcomes_PS, candidates_PF[:, own_F], question.index_P, seed)
    agreeing_F = np.abs(np.sign(t_SF).sum(axis=0)) == len(t_SF)
    strength_F = np.where(agreeing_F, np.abs(t_SF).min(axis=0), 0.0)
    best = int(strength_F.argmax())
    p = float((1 + (null_R >= strength_F[best]).sum()) / (1 + len(null_R)))
    return int(np.flatnonzero(own_F)[best]), p


def _statistics(outcomes_PS: Array, candidates_PF: Array, index_P: Index, seed: int) -> tuple[Array, Array]:
    """float64[S, F] t-statistics of each outcome, and float64[R] of the largest |t| when signs are flipped."""
    rng = np.random.default_rng(seed)
    num_clusters = int(index_P.max()) + 1
    flips_RG = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=(NUM_FLIPS, num_clusters))
    t_SF = np.zeros((outcomes_PS.shape[1], candidates_PF.shape[1]))
    null_R = np.zeros(NUM_FLIPS)
    for s in range(outcomes_PS.shape[1]):
        outcome_P = outcomes_PS[:, s]
        if not np.any(outcome_P):  # the controls explain all of it
            continue
        scores_GF = sum_by_cluster(candidates_PF * outcome_P[:, None], index_P)
        scale_F = np.sqrt((scores_GF**2).sum(axis=0))
        unit_GF = scores_GF / np.where(scale_F > 0, scale_F, 1.0)
        t_SF[s] = unit_GF.sum(axis=0)
        flipped_RF = np.abs(flips_RG @ unit_GF.astype(np.float32))
        null_R = np.maximum(null_R, flipped_RF.max(axis=1))
    return t_SF, null_R


def _basis(columns_PC: Array) -> Array:
    """Orthonormal columns that span the given ones."""
    if columns_PC.shape[1] == 0:
        return columns_PC
    left, sizes, _ = np.linalg.svd(columns_PC, full_matrices=False)
    return left[:, sizes > 1e-9 * max(1e-12, float(sizes.max(initial=0.0)))]


def _freed(values_PF: Array, basis_PC: Array) -> Array:
    """What is left of the columns when those of the basis are taken out."""
    return values_PF - basis_PC @ (basis_PC.T @ values_PF)


def _measured(question: Question, chosen: Sequence[int], p_values: Sequence[float]) -> list[Driver]:
    values_PF = question.candidates.values_PF[:, list(chosen)]
    fit: Fit = least_squares(
        np.column_stack([question.controls_PC, values_PF]), question.outcomes_PS[:, 0], question.index_P
    )
    first = question.controls_PC.shape[1]
    return [
        Driver(question.candidates.names[column], fit.estimate(first + i), p, values_PF[:, i])
        for i, (column, p) in enumerate(zip(chosen, p_values, strict=True))
    ]


def turned(verdict_P: Array, part_P: Array) -> float:
    """Share of verdicts whose sign changes when a part is taken out of them."""
    return float((np.sign(verdict_P) != np.sign(verdict_P - part_P)).mean()) if len(verdict_P) else 0.0


def worth_naming(verdict_P: Array, part_P: Array) -> bool:
    """Does a part turn enough verdicts: of all, or, where few pairs have it, of those that do?"""
    turned_P = np.sign(verdict_P) != np.sign(verdict_P - part_P)
    has_P = part_P != 0
    of_own = turned_P[has_P].mean() if has_P.any() else 0.0
    return bool(turned_P.mean() >= MIN_TURNED or (turned_P.sum() >= FEWEST_TURNED and of_own >= MIN_TURNED_OF_OWN))
