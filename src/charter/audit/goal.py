"""Goal -> constitution: does a perfect reading of the constitution prefer what gold prefers, and where not, why?

    missing      gold difference - its explanation by the principles, regressed on what is read in the texts: a feature
                 that gold follows and no principle names. It counts where naming it would win agreement.
    weights      other weights of the same principles agree with gold more often, on prompts that they weren't fitted to.
    over-reach   a principle without which the perfect reading agrees with gold more often.

Without gold, people's preferences may stand in for it: how much of them any weighting of the per-principle verdicts can
explain, by cross-validation over prompts, beside baselines.

Axes: P pairs, K principles, C controls.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.drivers import Driver, Question, find_drivers
from charter.audit.evidence import NO_GOLD, Pairs
from charter.audit.features import LENGTH
from charter.audit.figures import GOAL, LINK_ALPHA, Finding, figure, holm, two_sided_p
from charter.audit.labels import candidates, principle_controls
from charter.audit.links import agreement, credit
from charter.records import Estimate
from charter.regression import Array, Index, bootstrap, cluster_index, logistic
from charter.statistics import Z_95, proportion, unknown

SOURCE = "3-sample/pairs.jsonl, read by gold"
NUM_FAMILIES = 3
"""Families of tests of this link: missing, weights, over-reach."""
ALPHA = LINK_ALPHA / NUM_FAMILIES
MIN_GAIN = 0.01  # agreement; a feature that wins less isn't worth a principle
MIN_PAIRS = 20
NUM_FOLDS = 5


def audit_goal(pairs: Pairs, people_P: Array | None = None) -> tuple[dict[str, Any], list[Finding]]:
    """Figures of the constitution against the goal, and its gaps.

    Args:
        people_P: float64[P] in [0, 1], people's preference for A; NaN: none. None: nobody was asked.
    """
    people = _people(pairs, people_P)
    decided_P = ~np.isnan(pairs.gold_P) & (pairs.gold_P != 0)
    if decided_P.sum() < MIN_PAIRS or not pairs.principle_ids:
        reason = NO_GOLD if np.isnan(pairs.gold_P).all() else f"gold tells {int(decided_P.sum())} pairs apart"
        nothing = figure(unknown(reason), SOURCE)
        return {
            "agreement": nothing,
            "agreement_any_weights": nothing,
            "coverage": _coverage(pairs),
            "people": people,
        }, []
    told = pairs.rows(decided_P)
    drivers, faults = _missing(told)
    without, over_reach = _leave_one_out(told)
    explained_P = out_of_fold(principle_controls(told), told.gold_P, told.index_P)
    figures = {
        "agreement": figure(agreement(told.constitution_P, told.gold_P, told), SOURCE),
        "agreement_any_weights": figure(agreement(explained_P, told.gold_P, told), SOURCE),
        "coverage": _coverage(pairs),
        "drivers": drivers,
        "without_principle": without,
        "people": people,
    }
    return figures, faults + _weights(told, explained_P) + over_reach


def _coverage(pairs: Pairs) -> dict[str, Any]:
    """Which principles decide, how many pairs none decides, and which principles oppose each other."""
    known = not np.isnan(pairs.gold_P).all()
    sign_PK = np.sign(np.nan_to_num(pairs.level_PK if known else pairs.judged_PK))
    source = SOURCE if known else "4-label/judgments.jsonl"
    clusters = pairs.index_P.tolist()
    decides = {
        id: figure(proportion((sign_PK[:, k] != 0).tolist(), clusters), source)
        for k, id in enumerate(pairs.principle_ids)
    }
    undecided = (
        proportion((sign_PK == 0).all(axis=1).tolist(), clusters) if pairs.principle_ids else unknown("no principle")
    )
    return {
        "decides": decides,
        "never_decides": [id for k, id in enumerate(pairs.principle_ids) if not sign_PK[:, k].any()],
        "undecided_pairs": figure(undecided, source),
        "opposed": _opposed(pairs, sign_PK, source),
        "read_by": "gold" if known else "the labeler: what it doesn't tell apart counts as undecided",
    }


def _opposed(pairs: Pairs, sign_PK: Array, source: str) -> list[dict[str, Any]]:
    """Pairs of principles that contradict each other on more than half of what both decide."""
    rows = []
    for j, first in enumerate(pairs.principle_ids):
        for k in range(j + 1, len(pairs.principle_ids)):
            both_P = (sign_PK[:, j] != 0) & (sign_PK[:, k] != 0)
            against_P = sign_PK[both_P, j] != sign_PK[both_P, k]
            share = proportion(against_P.tolist(), pairs.index_P[both_P].tolist())
            if share.low is not None and share.low > 0.5:
                rows.append({"principles": [first, pairs.principle_ids[k]], "share": figure(share, source)})
    return rows


def out_of_fold(columns_PC: Array, outcome_P: Array, index_P: Index) -> Array:
    """float64[P]: least-squares predictions of each prompt's pairs from the other prompts."""
    fold_P = np.random.default_rng(0).permutation(int(index_P.max()) + 1)[index_P] % NUM_FOLDS
    predicted_P = np.zeros(len(outcome_P))
    for fold in range(NUM_FOLDS):
        inside_P = fold_P == fold
        if inside_P.any() and not inside_P.all():
            beta_C = np.linalg.pinv(columns_PC[~inside_P]) @ outcome_P[~inside_P]
            predicted_P[inside_P] = np.round(columns_PC[inside_P] @ beta_C, 9)
    return predicted_P


def _missing(pairs: Pairs) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Features that gold follows beyond any weighting of the principles, and what naming them would win."""
    controls_PC = principle_controls(pairs)
    found = find_drivers(Question(pairs.gold_P[:, None], controls_PC, candidates(pairs), pairs.index_P), alpha=ALPHA)
    columns_PC = controls_PC
    before_P = out_of_fold(columns_PC, pairs.gold_P, pairs.index_P)
    rows, faults = [], []
    for driver in found:
        columns_PC = np.column_stack([columns_PC, driver.column_P])
        after_P = out_of_fold(columns_PC, pairs.gold_P, pairs.index_P)
        gained_P = credit(after_P, pairs.gold_P) - credit(before_P, pairs.gold_P)
        gain = bootstrap(gained_P, pairs.index_P)
        before_P = after_P
        rows.append({
            "name": driver.name,
            "coefficient": figure(driver.coefficient, SOURCE),
            "p": driver.p,
            "agreement_won_by_naming_it": figure(gain, SOURCE),
        })  # fmt: skip
        if (gain.value or 0.0) >= MIN_GAIN and gain.low is not None and gain.low > 0:
            faults.append(_missing_fault(driver, gain))
    return rows, faults


def _missing_fault(driver: Driver, gain: Estimate) -> Finding:
    what = "length" if driver.name == LENGTH else driver.name
    value = driver.coefficient.value or 0.0
    verb = "likes" if value > 0 else "dislikes"
    says = (
        f"the goal {verb} {what}, which no principle names: {value:+.3f} of gold per unit; "
        f"naming it wins {100 * (gain.value or 0.0):.1f} points of agreement"
    )
    return Finding(
        GOAL, "missing", what, driver.coefficient, f"gold per unit of {driver.name}", driver.p, gain.value or 0.0, says
    )


def _weights(pairs: Pairs, explained_P: Array) -> list[Finding]:
    """Agreement that the best weights win over the constitution's own."""
    gain = bootstrap(credit(explained_P, pairs.gold_P) - credit(pairs.constitution_P, pairs.gold_P), pairs.index_P)
    p = two_sided_p(_z(gain))
    if p > ALPHA or (gain.value or 0.0) < MIN_GAIN:
        return []
    says = f"other weights of the same principles agree with the goal on {gain.value:.1%} more pairs"
    return [Finding(GOAL, "weights", "weights", gain, "share of pairs", p, gain.value or 0.0, says)]


def _leave_one_out(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """Agreement won by leaving out each principle: what it buys is the negative of it."""
    sign_PK = np.sign(np.nan_to_num(pairs.level_PK))
    full_P = credit(pairs.constitution_P, pairs.gold_P)
    gains = {}
    for k, id in enumerate(pairs.principle_ids):
        weights_K = np.where(np.arange(len(pairs.weights_K)) == k, 0.0, pairs.weights_K)
        without_P = credit(np.round(sign_PK @ weights_K, 9), pairs.gold_P)
        gains[id] = bootstrap(without_P - full_P, cluster_index(pairs.index_P.tolist()))
    ids = [id for id, gain in gains.items() if gain.value and gain.low is not None and gain.high is not None]
    p_values = holm([two_sided_p(_z(gains[id])) for id in ids])
    faults = []
    for id, p in zip(ids, p_values, strict=True):
        gain = gains[id]
        if p <= ALPHA and (gain.value or 0.0) >= MIN_GAIN:
            says = f"principle {id} over-reaches: without it the constitution agrees with the goal on {gain.value:.1%} more pairs"
            faults.append(Finding(GOAL, "over_reach", id, gain, "share of pairs", p, gain.value or 0.0, says))
    return {id: figure(gain, SOURCE) for id, gain in gains.items()}, faults


def _z(estimate: Estimate) -> float:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return 0.0
    return estimate.value / max(1e-9, (estimate.high - estimate.low) / (2 * Z_95))


def _people(pairs: Pairs, people_P: Array | None) -> dict[str, Any]:
    """How much of people's preference the principles can explain; every figure is a share of pairs foretold right."""
    if people_P is None:
        return {
            "any_weights": figure(unknown("no people's preferences on these pairs were given (--people)"), "people")
        }
    known_P = ~np.isnan(people_P) & (people_P != 0.5) & ~np.isnan(pairs.judged_PK).all(axis=1)
    if known_P.sum() < MIN_PAIRS:
        return {"any_weights": figure(unknown(f"people and labeler share {int(known_P.sum())} pairs"), "people")}
    told, wanted_P = pairs.rows(known_P), people_P[known_P]
    judged_PK = np.nan_to_num(told.judged_PK)
    longer_P = np.array([float(len(a.split()) - len(b.split())) for a, b in zip(told.a, told.b, strict=True)])
    truth_P = wanted_P - 0.5
    readings = {
        "any_weights": _foretold(judged_PK, wanted_P, told.index_P),
        "weights_and_length": _foretold(np.column_stack([judged_PK, longer_P]), wanted_P, told.index_P),
        "given_weights": judged_PK @ told.weights_K,
        "length_any_weight": _foretold(longer_P[:, None], wanted_P, told.index_P),
        "longer": longer_P,
    }
    return {name: figure(agreement(verdict_P, truth_P, told), "people") for name, verdict_P in readings.items()}


def _foretold(columns_PC: Array, wanted_P: Array, index_P: Index) -> Array:
    """float64[P]: log-odds for A of each prompt's pairs, by a logistic regression on the other prompts."""
    fold_P = np.random.default_rng(0).permutation(int(index_P.max()) + 1)[index_P] % NUM_FOLDS
    found_P = np.zeros(len(wanted_P))
    scale_C = np.maximum(columns_PC.std(axis=0), 1e-12)
    for fold in range(NUM_FOLDS):
        inside_P = fold_P == fold
        if inside_P.any() and not inside_P.all():
            fit = logistic(
                columns_PC[~inside_P] / scale_C, wanted_P[~inside_P], cluster_index(index_P[~inside_P].tolist())
            )
            found_P[inside_P] = columns_PC[inside_P] / scale_C @ fit.coefficients_M
    return found_P
