"""Regressions with errors clustered by prompt, and the cluster bootstrap.

Axes: N observations, M columns, G clusters (prompts), R resamples.
Sources: sandwich covariance of Liang and Zeger (1986) with the small-sample factor G/(G-1) (N-1)/(N-M).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.records import Estimate
from charter.statistics import student_t_95

Array = NDArray[np.float64]
Index = NDArray[np.int64]
MAX_NEWTON_STEPS = 50
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Fit:
    """Coefficients float64[M], their covariance float64[M, M], and the clusters they rest on."""

    coefficients_M: Array
    covariance_MM: Array
    num_rows: int
    num_clusters: int

    def estimate(self, column: int) -> Estimate:
        """A coefficient with its Student's t interval on G - 1 degrees of freedom."""
        value = float(self.coefficients_M[column])
        if self.num_clusters < 2:
            return Estimate(value, None, None, self.num_rows, reason="one prompt: no interval")
        half = student_t_95(self.num_clusters - 1) * self.standard_error(column)
        return Estimate(value, value - half, value + half, self.num_rows)

    def standard_error(self, column: int) -> float:
        return math.sqrt(max(0.0, float(self.covariance_MM[column, column])))


def cluster_index(clusters: Sequence[Hashable]) -> Index:
    """int64[N]: the number of each observation's cluster, in order of first appearance."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in clusters], dtype=np.int64)


def sum_by_cluster(values_NM: Array, index_N: Index) -> Array:
    """float64[G, M]: sums of rows within each cluster."""
    num_clusters = int(index_N.max()) + 1 if len(index_N) else 0
    sums_GM = np.zeros((num_clusters, values_NM.shape[1]))
    np.add.at(sums_GM, index_N, values_NM)
    return sums_GM


def _sandwich(bread_MM: NDArray[Any], scores_NM: NDArray[Any], index_N: Index) -> tuple[Array, int]:
    sums_GM = sum_by_cluster(scores_NM, index_N)
    num_rows, num_columns = scores_NM.shape
    num_clusters = len(sums_GM)
    factor = 1.0
    if num_clusters > 1 and num_rows > num_columns:
        factor = num_clusters / (num_clusters - 1) * (num_rows - 1) / (num_rows - num_columns)
    return factor * bread_MM @ (sums_GM.T @ sums_GM) @ bread_MM, num_clusters


def least_squares(columns_NM: Array, outcome_N: Array, index_N: Index) -> Fit:
    """Ordinary least squares; a column that others span shares its coefficient with them."""
    bread_MM = np.linalg.pinv(columns_NM.T @ columns_NM)
    coefficients_M = bread_MM @ (columns_NM.T @ outcome_N)
    residual_N = outcome_N - columns_NM @ coefficients_M
    covariance_MM, num_clusters = _sandwich(bread_MM, columns_NM * residual_N[:, None], index_N)
    return Fit(coefficients_M, covariance_MM, len(outcome_N), num_clusters)


def logistic(columns_NM: Array, p_N: Array, index_N: Index) -> Fit:
    """Logistic regression of hard or soft labels in [0, 1] by Newton steps, damped where classes separate."""
    beta_M = np.zeros(columns_NM.shape[1])
    ridge_MM = 1e-6 * len(p_N) * np.diag(np.maximum(columns_NM.var(axis=0), 1e-12))
    for _ in range(MAX_NEWTON_STEPS):
        mean_N = sigmoid(columns_NM @ beta_M)
        hessian_MM = (columns_NM * (mean_N * (1 - mean_N))[:, None]).T @ columns_NM + ridge_MM
        step_M = np.linalg.pinv(hessian_MM) @ (columns_NM.T @ (p_N - mean_N) - ridge_MM @ beta_M)
        step_M *= min(1.0, 5.0 / max(1e-12, float(np.abs(columns_NM @ step_M).max(initial=0.0))))
        beta_M = beta_M + step_M
        if float(np.abs(step_M).max(initial=0.0)) < 1e-8:
            break
    mean_N = sigmoid(columns_NM @ beta_M)
    bread_MM = np.linalg.pinv((columns_NM * (mean_N * (1 - mean_N))[:, None]).T @ columns_NM + ridge_MM)
    covariance_MM, num_clusters = _sandwich(bread_MM, columns_NM * (p_N - mean_N)[:, None], index_N)
    return Fit(beta_M, covariance_MM, len(p_N), num_clusters)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def resampled_means(values_NM: Array, index_N: Index, seed: int, num_resamples: int = NUM_RESAMPLES) -> Array:
    """float64[R, M]: means of the columns when whole clusters are drawn with replacement."""
    with_count_NM = np.column_stack([values_NM, np.ones(len(values_NM))])
    sums_GM = sum_by_cluster(with_count_NM, index_N)
    totals_RM = _drawn(len(sums_GM), seed, num_resamples) @ sums_GM
    means_RM: Array = totals_RM[:, :-1] / totals_RM[:, -1:]
    return means_RM


@lru_cache(maxsize=16)
def _drawn(num_clusters: int, seed: int, num_resamples: int) -> Array:
    """float64[R, G]: how often each cluster is drawn; many figures rest on the same clusters."""
    rng = np.random.default_rng(seed)
    drawn_RG = rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_resamples)
    return drawn_RG.astype(np.float64)


def bootstrap(values_N: Array, index_N: Index, seed: int = 0) -> Estimate:
    """Mean with its 95 % percentile interval, prompts drawn with replacement.

    Where all values are the same the bootstrap has no width: the rule of three, 3 / clusters, bounds what it can't see.
    """
    if len(values_N) == 0:
        return Estimate(None, reason="no observations")
    value = float(values_N.mean())
    num_clusters = int(index_N.max()) + 1
    if num_clusters < 2:
        return Estimate(value, None, None, len(values_N), reason="one prompt: no interval")
    means_R = resampled_means(values_N[:, None], index_N, seed)[:, 0]
    low, high = (float(q) for q in np.quantile(means_R, [0.025, 0.975]))
    if np.ptp(values_N) == 0:
        low, high = value - 3 / num_clusters, value + 3 / num_clusters
    return Estimate(value, low, high, len(values_N))
