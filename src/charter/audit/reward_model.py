"""Labeler -> reward model: held-out agreement, calibration, and what rewards follow that labels don't.

    residual = reward difference - s x label log-odds

``s`` is the scale of the reward in nats of the label. Labels are noisy, so plain least squares of one on the other gives too
small a scale, and a residual that still holds what labels rightly follow. With gold, the true levels are instruments for it
(two-stage least squares); without gold the two regressions, of reward on label and of label on reward, bound it from below
and above. A feature counts only where the residuals of both ends of the scale's range show it with the same sign.

Axes: P held-out pairs, K principles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from charter.audit.clear import errs_where_clear
from charter.audit.drivers import Driver, Question, find_drivers, turned, worth_naming
from charter.audit.evidence import Pairs
from charter.audit.features import LENGTH
from charter.audit.figures import LINK_ALPHA, REWARD_MODEL, Finding, figure, holm, two_sided_p
from charter.audit.labels import bent_controls, candidates, is_hard, principle_controls
from charter.audit.links import agreement, credit
from charter.audit.topics import errs_on
from charter.records import Estimate
from charter.regression import Array, bootstrap, cluster_index, least_squares, sigmoid
from charter.statistics import Z_95, calibration, unknown

HELD_OUT = "5-reward/held_out.jsonl"
NUM_FAMILIES = 4
"""Families of tests of this link: principles, residual, topics, clear pairs."""
ALPHA = LINK_ALPHA / NUM_FAMILIES
MIN_PAIRS = 20
LEARNED = 0.5
"""Share of the weight that labels give a principle, beside the others, below which it isn't learned."""
LIMITS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
MIN_DECIDED = 10  # pairs that the principle tells apart
MIN_Z = 3.0  # labels that don't surely follow a principle can't teach it
NUM_EXAMPLES = 5
BROAD = 8.0  # a scale beyond this many times the smallest says nothing


def audit_reward_model(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """Figures of the reward model on pairs that it never saw, and its faults."""
    known_P = ~np.isnan(pairs.margin_P) & ~np.isnan(pairs.label_P)
    if known_P.sum() < MIN_PAIRS:
        reason = f"{HELD_OUT} has {int(known_P.sum())} labelled pairs, fewer than {MIN_PAIRS}"
        nothing = figure(unknown(reason), HELD_OUT)
        return {"label_agreement": nothing, "gold_agreement": nothing, "drivers": [], "reason": reason}, []
    held_out = pairs.rows(known_P)
    principles, not_learned = _principles(held_out)
    drivers, scale = _drivers(held_out)
    p_a = sigmoid(held_out.margin_P).tolist()
    figures = {
        "label_agreement": figure(agreement(held_out.margin_P, held_out.label_P, held_out), HELD_OUT),
        "gold_agreement": figure(_gold_agreement(held_out), HELD_OUT),
        "calibration": {**calibration(p_a, sigmoid(held_out.label_P).tolist()), "source": HELD_OUT},
        "scale": {"low": scale[0], "high": scale[1], "source": HELD_OUT},
        "drivers": [{"name": d.name, "coefficient": figure(d.coefficient, HELD_OUT), "p": d.p} for d in drivers],
        "by_principle": principles,
    }
    pulls = [fault for driver in drivers if (fault := _driver_fault(driver, held_out)) is not None]
    topics = errs_on(REWARD_MODEL, held_out.margin_P, held_out.label_P, held_out, ALPHA)
    clear = errs_where_clear(REWARD_MODEL, held_out.margin_P, held_out.label_P, held_out, ALPHA)
    return figures, not_learned + pulls + topics + clear


def _gold_agreement(pairs: Pairs) -> Estimate:
    if np.isnan(pairs.gold_P).all():
        return unknown("no gold is named in the run file (evaluate.gold)")
    return agreement(pairs.margin_P, pairs.gold_P, pairs)


def _drivers(pairs: Pairs) -> tuple[list[Driver], tuple[float, float]]:
    """What the residual follows, and the range of the scale."""
    label_P = _limited(pairs.label_P, pairs.margin_P)
    low, best, high = _scales(pairs, label_P)
    residuals_PS = np.column_stack([pairs.margin_P - s * label_P for s in (best, low, high)])
    controls_PC = bent_controls(pairs, pairs.margin_P) if _has_gold(pairs) else np.ones((len(label_P), 1))
    question = Question(residuals_PS, controls_PC, candidates(pairs), pairs.index_P)
    return find_drivers(question, alpha=ALPHA), (low, high)


def _has_gold(pairs: Pairs) -> bool:
    return not bool(np.isnan(pairs.gold_P).all())


def _limited(label_P: Array, margin_P: Array) -> Array:
    """Labels cut off where that makes them most like the rewards: cross-entropy asks for no certainty of 16 nats."""
    limits = np.maximum(1e-9, np.quantile(np.abs(label_P), LIMITS))
    cut = [np.clip(label_P, -limit, limit) for limit in limits]
    alike = [float(margin_P @ own_P) / float(np.sqrt(own_P @ own_P) or 1.0) for own_P in cut]
    return cut[int(np.argmax(alike))]


def _scales(pairs: Pairs, label_P: Array) -> tuple[float, float, float]:
    """Lowest, likeliest and highest plausible scale of reward against label, all positive where the two agree at all."""
    margin_P, index_P = pairs.margin_P, pairs.index_P
    product = float(margin_P @ label_P)
    if product <= 0:  # they don't agree: no scale makes one the other
        return 0.0, 0.0, 0.0
    smallest, largest = product / float(label_P @ label_P), float(margin_P @ margin_P) / product
    if not _has_gold(pairs):
        highest = min(largest, BROAD * smallest)
        return smallest, float(np.sqrt(smallest * highest)), highest
    controls_PC = principle_controls(pairs)
    predicted_P = controls_PC @ least_squares(controls_PC, label_P, index_P).coefficients_M
    slope = float(predicted_P @ margin_P) / max(1e-12, float(predicted_P @ label_P))
    scores_P = predicted_P * (margin_P - slope * label_P)
    sums_G = np.bincount(index_P, weights=scores_P)
    half = Z_95 * float(np.sqrt((sums_G**2).sum())) / max(1e-12, float(predicted_P @ label_P))
    return slope - half, slope, slope + half


def _driver_fault(driver: Driver, pairs: Pairs) -> Finding | None:
    """A feature that rewards follow, and how many verdicts it turns; None for hardly any."""
    size = driver.coefficient
    part_P = (size.value or 0.0) * driver.column_P
    what = "length" if driver.name == LENGTH else driver.name
    direction = "for" if (size.value or 0.0) > 0 else "against"
    says = f"rewards speak {direction} {what} beyond what the labels say: {size.value:+.3f} nats per unit"
    cost, worth = turned(pairs.margin_P, part_P), worth_naming(pairs.margin_P, part_P)
    if is_hard(pairs.label_P) and _has_gold(pairs):
        # labels of 0 and 1 make every pair a clear one: what the principles say tells which pairs are close
        controls_PC = principle_controls(pairs)
        fair_P = controls_PC @ least_squares(controls_PC, pairs.margin_P - part_P, pairs.index_P).coefficients_M
        cost, worth = max(cost, turned(fair_P + part_P, part_P)), worth or worth_naming(fair_P + part_P, part_P)
    if not worth:
        return None
    return Finding(
        REWARD_MODEL, "follows", what, size, f"nats of reward per unit of {driver.name}", driver.p, cost, says,
        _examples(driver, pairs),
    )  # fmt: skip


def _examples(driver: Driver, pairs: Pairs) -> tuple[dict[str, Any], ...]:
    """The pairs that the feature pulls hardest away from their label."""
    pull_P = np.sign(driver.coefficient.value or 0.0) * driver.column_P * (pairs.margin_P - pairs.label_P)
    worst = np.argsort(-pull_P)[:NUM_EXAMPLES]
    return tuple(
        {"pair_id": pairs.pairs[i].id, "reward_margin": float(pairs.margin_P[i]), "label": float(pairs.label_P[i])}
        for i in worst.tolist()
        if pull_P[i] > 0
    )


def _principles(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """Per principle, on the pairs that it tells apart: how often the reward follows it, and the label."""
    found: dict[str, Any] = {}
    for k, id in enumerate(pairs.principle_ids):
        truth_P = pairs.level_PK[:, k]
        lost_P = credit(pairs.label_P, truth_P) - credit(pairs.margin_P, truth_P)
        known_P = ~np.isnan(lost_P)
        loss = bootstrap(lost_P[known_P], cluster_index(pairs.index_P[known_P].tolist()))
        if loss.value is None:
            loss = unknown("no held-out pair is known to differ under it")
        found[id] = {
            "follows_principle": figure(agreement(pairs.margin_P, truth_P, pairs), HELD_OUT),
            "labels_follow_principle": figure(agreement(pairs.label_P, truth_P, pairs), HELD_OUT),
            "not_learned": figure(loss, HELD_OUT),
        }
    return found, _not_learned(pairs)


@dataclass(frozen=True)
class Learned:
    """A principle's weight in the rewards beside its weight in the labels, both in units of the other principles.

    Attributes:
        share: 1 where rewards follow it as much as labels do, 0 where not at all.
        p: chance of so small a share where at least half is learned.
        cost: share of verdicts that change when the missing weight is put back.
    """

    share: Estimate
    p: float
    cost: float


def _not_learned(pairs: Pairs) -> list[Finding]:
    tested = {id: found for k, id in enumerate(pairs.principle_ids) if (found := _learned(pairs, k)) is not None}
    faults = []
    for (id, row), p in zip(tested.items(), holm([row.p for row in tested.values()]), strict=True):
        if p <= ALPHA:
            says = (
                f"rewards give principle {id} {max(0.0, row.share.value or 0.0):.0%} of the weight that labels give it"
            )
            unit = "share of the labels' weight"
            faults.append(Finding(REWARD_MODEL, "not_learned", id, row.share, unit, p, row.cost, says))
    return faults


def _learned(pairs: Pairs, k: int) -> Learned | None:
    """None where labels don't surely follow the principle, or rewards don't follow the others."""
    sign_PK = np.sign(np.nan_to_num(pairs.level_PK))
    if (sign_PK[:, k] != 0).sum() < MIN_DECIDED:
        return None
    columns_PC = np.column_stack([np.ones(len(sign_PK)), sign_PK])
    label_P = _limited(pairs.label_P, pairs.margin_P)
    labels = least_squares(columns_PC, label_P, pairs.index_P)
    weight = float(labels.coefficients_M[k + 1])
    if weight < MIN_Z * labels.standard_error(k + 1):
        return None
    others_P = np.delete(sign_PK, k, axis=1) @ np.delete(labels.coefficients_M[1:], k)
    apart_PC = np.column_stack([np.ones(len(sign_PK)), others_P, sign_PK[:, k]])
    scale = float(least_squares(apart_PC, pairs.margin_P, pairs.index_P).coefficients_M[1])
    if scale <= 0:
        return None
    missing = least_squares(columns_PC, scale * label_P - pairs.margin_P, pairs.index_P).estimate(k + 1)
    half = least_squares(columns_PC, LEARNED * scale * label_P - pairs.margin_P, pairs.index_P)
    z = float(half.coefficients_M[k + 1]) / max(1e-9, half.standard_error(k + 1))
    if missing.value is None or missing.low is None or missing.high is None:
        return None
    part_P = missing.value * sign_PK[:, k]
    low, value, high = (1 - size / (scale * weight) for size in (missing.high, missing.value, missing.low))
    share = Estimate(value, low, high, int((sign_PK[:, k] != 0).sum()))
    return Learned(share, two_sided_p(max(0.0, z)), turned(pairs.margin_P + part_P, part_P))
