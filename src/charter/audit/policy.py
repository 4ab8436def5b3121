"""Reward model -> policy: proxy and gold along the KL that reinforcement learning spent, and what it bought.

    R(d) = d (alpha - beta d)        best-of-n form          d = sqrt(KL(policy||reference)), nats
    R(d) = d (alpha - beta log d)    reinforcement learning  Gao, Schulman, Hilton 2022 (arXiv:2210.10760), eqs. 1 and 2

R is the mean gained over the reference on the same prompts. Both are linear in alpha and beta: weighted least squares,
intervals by drawing prompts with replacement.

Axes: S checkpoints in order of steps (the reference first), N prompts that all of them answered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from charter.audit.drivers import turned
from charter.audit.evidence import Evidence, Pairs, attributes_of
from charter.audit.features import Features, gram_features, joined, style_features
from charter.audit.figures import LINK_ALPHA, POLICY, Finding, figure, two_sided_p
from charter.records import Estimate, EvaluatedResponse
from charter.regression import Array, bootstrap, cluster_index, least_squares
from charter.statistics import mean, unknown

EVALUATED = "7-evaluate"
MIN_PROMPTS = 20
NUM_RESAMPLES = 500
NUM_FLIPS = 4000
NUM_EXAMPLES = 8
ALPHA = LINK_ALPHA / 2  # two tests: gold, and its parts
NUM_GREW = 12
SURE_WEIGHT = 4.0  # standard errors by which a part of gold has to weigh something
BROAD_KL = 4.0  # a fitted peak beyond this many times the largest KL that was measured isn't known


@dataclass(frozen=True)
class Curve:
    """Checkpoints on common prompts; NaN where a score isn't known."""

    names: tuple[str, ...]
    steps: tuple[int, ...]
    rows: tuple[tuple[EvaluatedResponse, ...], ...]  # S x N
    gold_SN: Array
    kl_SN: Array
    reward_SN: Array

    @property
    def peak(self) -> int:
        """The checkpoint with the highest mean gold."""
        return int(self.gold_SN.mean(axis=1).argmax())


def curve_of(evidence: Evidence, rewards: dict[str, list[float]] | None) -> Curve | None:
    """The checkpoints of a run on the prompts that all of them answered; None where there are fewer than two.

    Args:
        rewards: reward of each response by policy, in the order of its rows; None: not known.
    """
    names = [name for name in evidence.policies if evidence.policies[name]]
    if len(names) < 2:
        return None
    places = {name: {row.prompt.id: i for i, row in enumerate(evidence.policies[name])} for name in names}
    common = [id for id in places[names[0]] if all(id in places[name] for name in names)]
    if len(common) < MIN_PROMPTS:
        return None
    rows = tuple(tuple(evidence.policies[name][places[name][id]] for id in common) for name in names)

    def scores(of: Any) -> Array:
        return np.array([[np.nan if (value := of(row)) is None else value for row in own] for own in rows], dtype=float)

    reward_SN = np.full((len(names), len(common)), np.nan)
    if rewards is not None:
        reward_SN = np.array([[rewards[name][places[name][id]] for id in common] for name in names])
    gold_SN, kl_SN = scores(lambda row: row.reading.gold), scores(lambda row: row.kl_k1)
    steps = tuple(evidence.steps[name] for name in names)
    return Curve(tuple(names), steps, rows, gold_SN, kl_SN, reward_SN)


def audit_policy(evidence: Evidence, curve: Curve | None, why_no_reward: str) -> tuple[dict[str, Any], list[Finding]]:
    """Figures of the policy along its training, and over-optimisation where gold fell while the proxy rose."""
    if curve is None:
        reason = f"fewer than two policies with {MIN_PROMPTS} common prompts in {EVALUATED}"
        return {"curve": [], "reason": reason, "stop_at_kl": figure(unknown(reason), EVALUATED)}, []
    figures: dict[str, Any] = {
        "curve": _points(evidence, curve, why_no_reward),
        "grew": grew(curve),
        "proxy_gain": figure(_proxy_gain(evidence, curve, 0), _proxy_source(curve)),
    }
    if np.isnan(curve.gold_SN).any():
        reason = "not every response has a gold score"
        nothing = {"stop_at_kl": figure(unknown(reason), EVALUATED), "gold_peak": None, "fits": {}, "reason": reason}
        return {**figures, **nothing}, []
    fall, p = _fall(curve)
    worse = _worse(curve)
    figures |= {"gold_peak": curve.names[curve.peak], "gold_lost_after_peak": figure(fall, EVALUATED)}
    faults = _fault(evidence, curve, fall, p, worse)
    figures["fits"] = _fits(curve)
    figures["stop_at_kl"] = figure(_stop(curve, bool(faults)), EVALUATED)
    figures["examples"] = _examples(curve)
    return figures, faults


def _points(evidence: Evidence, curve: Curve, why_no_reward: str) -> list[dict[str, Any]]:
    return [
        {
            "policy": name,
            "step": step,
            "kl": figure(_known_mean(curve.kl_SN[s], "responses have no KL to the reference"), EVALUATED),
            "gold": figure(_known_mean(curve.gold_SN[s], "responses have no gold score"), EVALUATED),
            "proxy": figure(_proxy(evidence, curve, s, why_no_reward), _proxy_source(curve)),
        }
        for s, (name, step) in enumerate(zip(curve.names, curve.steps, strict=True))
    ]


def _known_mean(values_N: Array, why_not: str) -> Estimate:
    return unknown(why_not) if np.isnan(values_N).any() else mean(values_N.tolist())


def _proxy_source(curve: Curve) -> str:
    scored = not np.isnan(curve.reward_SN).any()
    return "5-reward/model on 7-evaluate" if scored else "6-policy/metrics.jsonl, on training prompts"


def _proxy(evidence: Evidence, curve: Curve, s: int, why_no_reward: str) -> Estimate:
    """Mean reward of a checkpoint: scored here, or as training recorded it at the nearest step."""
    if not np.isnan(curve.reward_SN).any():
        return mean(curve.reward_SN[s].tolist())
    recorded = [row for row in evidence.metrics if isinstance(row.get("reward_mean"), (int, float))]
    if not recorded:
        return unknown(why_no_reward)
    nearest = min(recorded, key=lambda row: abs(row["step"] - max(1, curve.steps[s])))
    return Estimate(float(nearest["reward_mean"]), None, None, 1, reason="as recorded in training: no interval")


def _proxy_gain(evidence: Evidence, curve: Curve, since: int) -> Estimate:
    """Mean reward at the end minus at a checkpoint."""
    if not np.isnan(curve.reward_SN).any():
        return mean((curve.reward_SN[-1] - curve.reward_SN[since]).tolist())
    first, last = (_proxy(evidence, curve, s, "no reward is recorded") for s in (since, len(curve.names) - 1))
    if first.value is None or last.value is None:
        return unknown("no reward is recorded")
    return Estimate(last.value - first.value, None, None, 1, reason="as recorded in training: no interval")


def _fall(curve: Curve) -> tuple[Estimate, float]:
    """Gold lost from the best checkpoint to the end, and the chance that any checkpoint is so much better than the end.

    Without a fall the sign of a prompt's differences is a coin flip: the largest t over all checkpoints under random
    flips of whole prompts gives a p-value that is right for the choice of the best one (Westfall and Young 1993).
    """
    last = len(curve.names) - 1
    if curve.peak == last:
        return unknown("gold is highest at the end"), 1.0
    lost_SN = curve.gold_SN[:last] - curve.gold_SN[last]
    t_S, highest_R = _flipped(lost_SN.T)
    p = float((1 + (highest_R >= t_S.max()).sum()) / (1 + NUM_FLIPS))
    return mean(lost_SN[curve.peak].tolist()), p


def _flipped(lost_NM: Array) -> tuple[Array, Array]:
    """float64[M] t-statistics of the columns, and float64[R] of their largest when the signs of prompts are flipped."""
    scale_M = np.sqrt((lost_NM**2).sum(axis=0))
    unit_NM = lost_NM / np.where(scale_M > 0, scale_M, 1.0)
    flips_RN = np.random.default_rng(0).choice(np.array([-1.0, 1.0]), size=(NUM_FLIPS, len(lost_NM)))
    return unit_NM.sum(axis=0), (flips_RN @ unit_NM).max(axis=1)


@dataclass(frozen=True)
class Worse:
    """What costs most gold of what the policy came to do since the peak, and how surely.

    Attributes:
        lost: gold lost by it per response.
        p: corrected for all that was tried, and for the choice of the peak.
        cost: share of prompts on which the verdict of gold between peak and end is turned by it.
    """

    name: str
    lost: Estimate
    p: float
    cost: float


def _worse(curve: Curve) -> Worse | None:
    """A small fall drowns in how much gold differs between two replies; what it came from is seen much sooner.

    Gold is written as a sum over what it reads in a text, and each part is tested for a fall by itself: each whose weight in the
    sum is surely not zero, since what every reply came to have would show a sure change of whatever weight chance gives it.
    """
    last = len(curve.names) - 1
    if curve.peak == last:
        return None
    changes = [reading_features(curve, s, last) for s in range(last)]
    names = changes[0].names
    if not names or any(features.names != names for features in changes):
        return None
    gold_X = (curve.gold_SN[last] - curve.gold_SN[:last]).reshape(-1)
    values_XF = np.concatenate([features.values_PF for features in changes])
    fit = least_squares(values_XF, gold_X, np.tile(np.arange(curve.gold_SN.shape[1]), last))
    error_F = np.array([fit.standard_error(f) for f in range(len(names))])
    weight_F = np.where(np.abs(fit.coefficients_M) > SURE_WEIGHT * error_F, fit.coefficients_M, 0.0)
    lost_SNF = np.array([-features.values_PF * weight_F for features in changes])
    t_M, highest_R = _flipped(np.moveaxis(lost_SNF, 0, 1).reshape(lost_SNF.shape[1], -1))
    t_F = t_M.reshape(last, -1)[curve.peak]
    worst = int(t_F.argmax())
    p = float((1 + (highest_R >= t_F[worst]).sum()) / (1 + NUM_FLIPS))
    lost_N = lost_SNF[curve.peak, :, worst]
    change_N = curve.gold_SN[last] - curve.gold_SN[curve.peak]
    return Worse(names[worst], mean(lost_N.tolist()), p, turned(change_N, -lost_N))


def _fault(evidence: Evidence, curve: Curve, fall: Estimate, p: float, worse: Worse | None) -> list[Finding]:
    """Gold that fell by more than chance, or that is no higher for a part of it that fell by more than chance."""
    by_part = worse is not None and worse.p <= ALPHA
    if fall.value is None or (p > ALPHA and not by_part):
        return []
    peak = curve.gold_SN[curve.peak]
    net = float((curve.gold_SN[-1] < peak).mean()) - float((curve.gold_SN[-1] > peak).mean())
    gained = _proxy_gain(evidence, curve, curve.peak)
    rose = gained.value is None or gained.value > 0
    kind = "over_optimisation" if rose else "collapse"
    how = {True: "while the reward rose", False: "and the reward fell too"}[rose]
    how = "and no reward is known" if gained.value is None else how
    says = f"gold fell by {fall.value:.3f} from {curve.names[curve.peak]} to the end, {how}"
    cost = max(0.0, net)
    if worse is not None and by_part:
        says += f"; {worse.lost.value:.3f} of it is lost by {worse.name}"
        cost, p = max(cost, worse.cost), min(p, worse.p)
    return [Finding(POLICY, kind, "gold", fall, "gold", p, cost, says)]


def _stop(curve: Curve, fell: bool) -> Estimate:
    """KL of the checkpoint with the highest gold, where gold fell after it."""
    if np.isnan(curve.kl_SN).any():
        return unknown("not every response has a KL to the reference")
    if not fell:
        return unknown("gold doesn't fall in this run by more than chance")
    return mean(curve.kl_SN[curve.peak].tolist())


def _fits(curve: Curve) -> dict[str, Any]:
    """Both forms fitted to gold, and to the proxy where it was scored."""
    if np.isnan(curve.kl_SN).any():
        return {"reason": "not every response has a KL to the reference"}
    found: dict[str, Any] = {"gold": _fit_forms(curve.kl_SN, curve.gold_SN)}
    if not np.isnan(curve.reward_SN).any():
        found["proxy"] = _fit_forms(curve.kl_SN, curve.reward_SN)
    return found


def _fit_forms(kl_SN: Array, score_SN: Array) -> dict[str, Any]:
    num_prompts = kl_SN.shape[1]
    rng = np.random.default_rng(0)
    weights_RN = rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=NUM_RESAMPLES) / num_prompts
    gain_SN = score_SN - score_SN[0]
    d_S, gain_S = np.sqrt(np.maximum(kl_SN.mean(axis=1), 0)), gain_SN.mean(axis=1)
    if (d_S[1:] > 0).sum() < 2:
        return {"reason": "fewer than two checkpoints away from the reference"}
    error_S = np.maximum(gain_SN.std(axis=1) / math.sqrt(num_prompts), 1e-9)
    drawn_RS = np.sqrt(np.maximum(weights_RN @ kl_SN.T, 0)), weights_RN @ gain_SN.T
    found = {}
    for form in ("best_of_n", "rl"):
        alpha, beta, misfit = _fit_one(d_S, gain_S, error_S, form)
        resampled = np.array([_fit_one(d, r, error_S, form) for d, r in zip(*drawn_RS, strict=True)])
        found[form] = {
            "alpha": figure(_interval(alpha, resampled[:, 0], len(d_S) - 1), EVALUATED),
            "beta": figure(_interval(beta, resampled[:, 1], len(d_S) - 1), EVALUATED),
            "peak_kl": figure(_peak(alpha, beta, resampled, form, float(d_S.max()) ** 2), EVALUATED),
            "chi_square": misfit,
            "num_points": len(d_S) - 1,
        }
    return found


def _fit_one(d_S: Array, gain_S: Array, error_S: Array, form: str) -> tuple[float, float, float]:
    """alpha, beta, and the weighted sum of squares, over the checkpoints away from the reference."""
    away_S = d_S > 1e-6
    away_S[0] = False
    d_S, gain_S, error_S = d_S[away_S], gain_S[away_S], error_S[away_S]
    bend_S = d_S if form == "best_of_n" else np.log(d_S)
    columns_S2 = np.column_stack([d_S, -d_S * bend_S]) / error_S[:, None]
    alpha, beta = np.linalg.lstsq(columns_S2, gain_S / error_S, rcond=None)[0]
    misfit = float((((columns_S2 @ np.array([alpha, beta])) - gain_S / error_S) ** 2).sum())
    return float(alpha), float(beta), misfit


def _peak_kl(alpha: float, beta: float, form: str) -> float:
    if beta <= 0 or (form == "best_of_n" and alpha <= 0):
        return math.inf if alpha > 0 else 0.0
    return (alpha / (2 * beta)) ** 2 if form == "best_of_n" else math.exp(min(50.0, 2 * (alpha / beta - 1)))


def _peak(alpha: float, beta: float, resampled: Array, form: str, largest_kl: float) -> Estimate:
    """KL at which the fitted form is highest."""
    value = _peak_kl(alpha, beta, form)
    if value > BROAD_KL * largest_kl:
        return unknown(f"the fit has no peak within {BROAD_KL:g} times the largest KL measured ({largest_kl:.2f})")
    peaks_R = np.minimum([_peak_kl(a, b, form) for a, b, _ in resampled], 1e6)
    return _interval(value, peaks_R, 0)


def _interval(value: float, resampled_R: Array, n: int) -> Estimate:
    low, high = (float(q) for q in np.quantile(resampled_R, [0.025, 0.975]))
    return Estimate(value, min(low, value), max(high, value), n)


def reading_features(curve: Curve, first: int, last: int) -> Features:
    """What gold reads in the responses, last minus first, per prompt; flags and attributes both."""
    pairs = [
        (attributes_of(a.reading), attributes_of(b.reading))
        for a, b in zip(curve.rows[last], curve.rows[first], strict=True)
    ]
    names = tuple(dict.fromkeys(name for a, b in pairs for name in (*a, *b)))
    values = [[a.get(name, 0.0) - b.get(name, 0.0) for name in names] for a, b in pairs]
    return Features(names, np.array(values).reshape(len(pairs), len(names)))


def drift(curve: Curve, first: int, last: int) -> Features:
    """Every feature of the responses, last minus first, per prompt."""
    before, after = [row.response for row in curve.rows[first]], [row.response for row in curve.rows[last]]
    return joined(style_features(after, before), reading_features(curve, first, last), gram_features(after, before))


def grew(curve: Curve) -> list[dict[str, Any]]:
    """What the policy now does more often, or less, than its reference: the surest changes first."""
    features = drift(curve, 0, len(curve.names) - 1)
    if not features.names:
        return []
    error_F = features.values_PF.std(axis=0, ddof=1) / math.sqrt(len(features.values_PF))
    z_F = features.values_PF.mean(axis=0) / np.maximum(error_F, 1e-9)
    rows: list[dict[str, Any]] = []
    for column in np.argsort(-np.abs(z_F)).tolist():
        if len(rows) == NUM_GREW or two_sided_p(float(z_F[column])) * len(z_F) > LINK_ALPHA:
            break
        change = figure(mean(features.values_PF[:, column].tolist()), EVALUATED)
        rows.append({"name": features.names[column], "change_per_response": change})
    return rows


def _examples(curve: Curve) -> list[dict[str, Any]]:
    """Prompts on which gold fell most since its peak, those with a higher reward first."""
    fall_N = curve.gold_SN[curve.peak] - curve.gold_SN[-1]
    rise_N = np.nan_to_num(curve.reward_SN[-1] - curve.reward_SN[curve.peak])
    rank_N = np.where(rise_N > 0, fall_N + 1e6 * (fall_N > 0), fall_N)
    rows = []
    for i in np.argsort(-rank_N)[:NUM_EXAMPLES].tolist():
        if fall_N[i] <= 0:
            break
        before, after = curve.rows[curve.peak][i], curve.rows[-1][i]
        reward = None if np.isnan(curve.reward_SN).any() else float(rise_N[i])
        rows.append({
            "prompt_id": before.prompt.id, "before": before.response, "after": after.response,
            "gold_change": -float(fall_N[i]), "reward_change": reward,
        })  # fmt: skip
    return rows


def best_of_n(pairs: Pairs) -> list[dict[str, Any]]:
    """Gold gained by the response that the reward model picks out of n = 2 samples; more than two aren't sampled.

    KL of best-of-n is log n - (n - 1) / n nats (Stiennon et al. 2020, arXiv:2009.01325, appendix G.3).
    """
    known_P = ~(np.isnan(pairs.gold_P) | np.isnan(pairs.margin_P))
    if known_P.sum() < MIN_PROMPTS:
        return []
    gain_P = np.sign(pairs.margin_P[known_P]) * pairs.gold_P[known_P] / 2
    gain = bootstrap(gain_P, cluster_index(pairs.index_P[known_P].tolist()))
    return [{"n": 2, "kl": math.log(2) - 0.5, "gold_gain": figure(gain, "5-reward/held_out.jsonl, read by gold")}]


def moved_along(curve: Curve, names: set[str]) -> dict[str, int]:
    """The named features that changed since gold's peak by more than chance: +1 where they grew, else -1."""
    features = drift(curve, curve.peak, len(curve.names) - 1)
    moved = {}
    for name in names & set(features.names):
        column_N = features.column(name)
        error = float(column_N.std(ddof=1)) / math.sqrt(len(column_N))
        if error > 0 and two_sided_p(float(column_N.mean()) / error) * len(names) < LINK_ALPHA:
            moved[name] = 1 if column_N.mean() > 0 else -1
    return moved
