"""Constitution -> labeler: what the labels follow beyond the principles, and which principles are misread.

    label log-odds = sum over principles of b_k sign(level difference) + sum over features of c_f difference + noise

For soft labels this is a linear regression of the log-odds, for hard ones (all 0 or 1) a logistic regression of the label:
both give coefficients in nats. Without gold there are no true levels: then only position, abstentions and the raw pull of
length are known, and the last is no fault by itself.

Axes: P pairs, K principles, O orders, C controls.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.clear import errs_where_clear
from charter.audit.drivers import MIN_TURNED, Driver, Question, find_drivers, turned, worth_naming
from charter.audit.evidence import NO_GOLD, Evidence, Pairs
from charter.audit.features import LENGTH, Features, gram_features, joined, style_features
from charter.audit.figures import LABELER, LINK_ALPHA, Finding, figure, holm, two_sided_p
from charter.audit.looks import look_features
from charter.audit.silence import audit_silence
from charter.audit.topics import errs_on
from charter.audit.weighing import audit_weighing
from charter.records import Estimate
from charter.regression import Array, Fit, cluster_index, least_squares, logistic, sigmoid
from charter.statistics import Z_95, mean, proportion, share, unknown

JUDGMENTS = "4-label/judgments.jsonl"
PREFERENCES = "4-label/preferences.jsonl"
HARD = 15.9  # nats; beyond it a label is 0 or 1
MIN_POSITION = 0.02  # a lean below two points turns no verdict worth naming
MIN_MISREAD = 0.1  # a principle that is read this much worse than the others, or worse than a coin
MIN_PAIRS = 20
ALL_ON_ONE_SIDE = 0.9  # more labels than this for one side, net: the file is sorted so
BENDS = (0.4, 0.7, 0.9)
NUM_FAMILIES = 9
"""Families of tests of this link: position, side, principles, labels, judgments, topics, weights, clear pairs, silence."""
ALPHA = LINK_ALPHA / NUM_FAMILIES


def principle_controls(pairs: Pairs) -> Array:
    """float64[P, C]: one, and per principle the sign and (where levels are finer than two) size of its true difference."""
    level_PK = np.nan_to_num(pairs.level_PK)
    sign_PK = np.sign(level_PK)
    finer = [k for k in range(level_PK.shape[1]) if not np.allclose(np.abs(level_PK[:, k]), np.abs(sign_PK[:, k]))]
    return np.column_stack([np.ones(len(level_PK)), sign_PK, level_PK[:, finer]])


def bent_controls(pairs: Pairs, outcome_P: Array) -> Array:
    """float64[P, C]: the principle controls, and bent functions of what they say together.

    Certainty saturates: an outcome that is a bent function of the principles' sum leaves a residual along the sign of that
    sum, and whatever style goes with the better response would be blamed for it.
    """
    controls_PC = principle_controls(pairs)
    index_P = controls_PC @ (np.linalg.pinv(controls_PC) @ outcome_P)
    bent = [np.clip(index_P, -limit, limit) for limit in np.quantile(np.abs(index_P), BENDS)]
    signs = [np.sign(np.nan_to_num(pairs.constitution_P)), np.sign(np.nan_to_num(pairs.gold_P))]
    return np.column_stack([controls_PC, *bent, *signs])


def candidates(pairs: Pairs) -> Features:
    """Everything that a text shows, by which a link might be led astray."""
    looks = look_features([pair.prompt.messages[-1].content for pair in pairs.pairs], pairs.a, pairs.b)
    return joined(style_features(pairs.a, pairs.b), pairs.attributes, looks, gram_features(pairs.a, pairs.b))


def audit_labels(evidence: Evidence) -> tuple[dict[str, Any], list[Finding]]:
    """Figures of the labeler and its faults."""
    pairs = evidence.pairs
    position, position_faults = _position(pairs)
    principles, principle_faults = _principles(pairs)
    regression, driver_faults = _regression(pairs)
    weights, weight_faults = audit_weighing(pairs, ALPHA)
    silent, silent_faults = audit_silence(evidence, ALPHA)
    misread = {
        fault.what for fault in principle_faults
    }  # what is read wrongly can't weigh rightly: one fault, told once
    weight_faults = [fault for fault in weight_faults if fault.what not in misread]
    figures = {
        "position": position,
        "by_principle": {
            id: {**row, "weight_given": weights[id], "without_label": silent[id]} for id, row in principles.items()
        },
        "regression": regression,
        "abstentions": {
            "by_reason": evidence.abstentions,
            "share": figure(_abstained(evidence), JUDGMENTS),
        },
    }
    topic_faults = errs_on(LABELER, pairs.label_P, pairs.constitution_P, pairs, ALPHA)
    clear_faults = errs_where_clear(LABELER, pairs.label_P, pairs.constitution_P, pairs, ALPHA)
    pulls = [*position_faults, *driver_faults, *topic_faults, *clear_faults]
    return figures, pulls + principle_faults + weight_faults + silent_faults


def _abstained(evidence: Evidence) -> Estimate:
    num = sum(evidence.abstentions.values())
    if not evidence.num_judgments:
        return unknown(f"no {JUDGMENTS}")
    return proportion([i < num for i in range(evidence.num_judgments)])


def _position(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """The pull of the place in which a response is shown, in points of probability."""
    p_PKO = sigmoid(pairs.judged_PKO)  # NaN stays NaN
    gap_PK = p_PKO[..., 0] - p_PKO[..., 1]
    known_P = ~np.isnan(gap_PK).all(axis=1)
    if not known_P.any():
        return _position_in_one_order(pairs)
    if known_P.sum() < MIN_PAIRS:
        few = unknown(f"fewer than {MIN_PAIRS} pairs ({int(known_P.sum())}) have judgments in both orders")
        return {"order_gap": figure(few, JUDGMENTS), "first_share_excess": figure(few, JUDGMENTS)}, []
    gap_P = np.nanmean(gap_PK[known_P], axis=1)
    clusters = pairs.index_P[known_P].tolist()
    gap = mean(gap_P.tolist(), clusters)
    verdict_PKO = np.sign(pairs.judged_PKO)
    stays_PK = verdict_PKO[..., 0] * verdict_PKO[..., 1] < 0
    decided_PK = ~np.isnan(verdict_PKO).any(axis=2) & (verdict_PKO != 0).all(axis=2)
    row_of = np.broadcast_to(pairs.index_P[:, None], decided_PK.shape)
    hard = proportion(stays_PK[decided_PK].tolist(), row_of[decided_PK].tolist())
    figures = {
        "order_gap": figure(gap, JUDGMENTS),
        "first_share_excess": figure(_scaled(gap, 0.5), JUDGMENTS),
        "verdicts_that_stay_with_the_position": figure(hard, JUDGMENTS),
        "order_gap_by_principle": {
            id: figure(_mean_known(gap_PK[:, k], pairs), JUDGMENTS) for k, id in enumerate(pairs.principle_ids)
        },
    }
    return figures, _position_fault(gap, 0.0)


def _mean_known(values_P: Array, pairs: Pairs) -> Estimate:
    known_P = ~np.isnan(values_P)
    return mean(values_P[known_P].tolist(), pairs.index_P[known_P].tolist())


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(estimate.value * factor, estimate.low * factor, estimate.high * factor, estimate.n)


def _position_in_one_order(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """Each pair was shown in one order: the constant that is left when the true differences are taken out."""
    p_PKO = sigmoid(pairs.judged_PKO)
    first_PK = np.where(np.isnan(p_PKO[..., 0]), 1 - p_PKO[..., 1], p_PKO[..., 0])
    turned_PK = np.where(np.isnan(p_PKO[..., 0]), -1.0, 1.0)
    row_of, column_of = np.nonzero(~np.isnan(first_PK))
    if len(row_of) < MIN_PAIRS:
        nothing = figure(unknown(f"fewer than {MIN_PAIRS} pairs have judgments"), JUDGMENTS)
        return {"order_gap": nothing, "first_share_excess": nothing}, []
    sign = np.sign(np.nan_to_num(pairs.level_PK))[row_of, column_of] * turned_PK[row_of, column_of]
    own_NK = np.zeros((len(row_of), len(pairs.principle_ids)))
    own_NK[np.arange(len(row_of)), column_of] = sign
    columns_NC = np.column_stack([np.ones(len(row_of)), own_NK])
    index_N = cluster_index(pairs.index_P[row_of].tolist())
    excess = least_squares(columns_NC, first_PK[row_of, column_of] - 0.5, index_N).estimate(0)
    gap = _scaled(excess, 2.0)
    note = "each pair was shown in one order" + (
        "" if _has_gold(pairs) else ", and without gold content can't be told apart"
    )
    figures = {
        "order_gap": {**figure(gap, JUDGMENTS), "note": note},
        "first_share_excess": figure(excess, JUDGMENTS),
    }
    return figures, _position_fault(gap, 0.5)


def _has_gold(pairs: Pairs) -> bool:
    return not bool(np.isnan(pairs.gold_P).all())


def _position_fault(gap: Estimate, left: float) -> list[Finding]:
    """``left``: the share of the gap that is left in a label. One order: it lies half a gap from that of both."""
    z = _z(gap)
    if gap.value is None or z is None:
        return []
    p = two_sided_p(z)
    if p > ALPHA or abs(gap.value) < MIN_POSITION:
        return []
    effect = "the labels have all of it" if left else "both orders were asked, which keeps it out of the labels"
    place = "first" if gap.value > 0 else "second"
    points = abs(gap.value) * 100
    says = f"the labeler favours the response shown {place}, by {points:.0f} points between the two orders; {effect}"
    cost = left * abs(gap.value)
    return [Finding(LABELER, "position_bias", "position", gap, "difference in probability", p, cost, says)]


def _z(estimate: Estimate, null: float = 0.0) -> float | None:
    if estimate.value is None or estimate.low is None or estimate.high is None or estimate.high <= estimate.low:
        return None
    return (estimate.value - null) / ((estimate.high - estimate.low) / (2 * Z_95))


def _principles(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """Accuracy of the verdicts on each principle against a perfect reader, and the principles that are misread."""
    judged_PK, level_PK = pairs.judged_PK, pairs.level_PK
    found: dict[str, Any] = {}
    hits_PK = np.where(judged_PK == 0, 0.5, (np.sign(judged_PK) == np.sign(level_PK)).astype(float))
    hits_PK[np.isnan(judged_PK) | np.isnan(level_PK) | (level_PK == 0)] = np.nan
    deficits = {}
    for k, id in enumerate(pairs.principle_ids):
        known_P = ~np.isnan(hits_PK[:, k])
        accuracy = share(hits_PK[known_P, k].tolist(), pairs.index_P[known_P].tolist())
        if accuracy.value is None:
            why = "the two responses of no judged pair differ under it" if _has_gold(pairs) else NO_GOLD
            accuracy = unknown(why)
        found[id] = {"accuracy": figure(accuracy, JUDGMENTS)}
        others_P = np.delete(hits_PK, k, axis=1)
        deficits[id] = _deficit(hits_PK[:, k], others_P, pairs)
    return found, _misread(found, deficits, hits_PK, pairs)


def _deficit(own_P: Array, others_PK: Array, pairs: Pairs) -> Estimate:
    """Accuracy on the other principles minus that on this one, each counting alike."""
    known_P = ~np.isnan(own_P)
    own = mean(own_P[known_P].tolist(), pairs.index_P[known_P].tolist())
    enough = [k for k in range(others_PK.shape[1]) if (~np.isnan(others_PK[:, k])).sum() >= MIN_PAIRS]
    if not enough or own.n < MIN_PAIRS or own.value is None or own.high is None:
        return unknown("too few pairs tell")
    typical = float(np.median([np.nanmean(others_PK[:, k]) for k in enough]))
    # a principle on which all verdicts are the same has no spread: it can't be better known than by the rule of three
    half = max(own.high - own.value, 1.5 / own.n)
    return Estimate(typical - own.value, typical - own.value - half, typical - own.value + half, own.n)


def _misread(found: dict[str, Any], deficits: dict[str, Estimate], hits_PK: Array, pairs: Pairs) -> list[Finding]:
    ids = [id for id, deficit in deficits.items() if _z(deficit) is not None]
    p_values = holm([two_sided_p(_z(deficits[id]) or 0.0) for id in ids])
    faults = []
    for id, p in zip(ids, p_values, strict=True):
        row = found[id]["accuracy"]
        accuracy = Estimate(row["value"], row["low"], row["high"], row["n"])
        deficit = deficits[id]
        if p > ALPHA or (deficit.value or 0.0) < MIN_MISREAD or accuracy.value is None:
            continue
        k = pairs.principle_ids.index(id)
        decided = float((~np.isnan(hits_PK[:, k])).mean())
        says = (
            f"principle {id} is read right on {accuracy.value:.0%} of the pairs that it tells apart, "
            f"{100 * (deficit.value or 0.0):.0f} points below the others"
        )
        cost = (deficit.value or 0.0) * decided
        faults.append(Finding(LABELER, "misread", id, accuracy, "share read right", p, cost, says))
    return faults


def _regression(pairs: Pairs) -> tuple[dict[str, Any], list[Finding]]:
    """What labels follow: the coefficients, and the features that the search found beyond the principles."""
    known_P = ~np.isnan(pairs.label_P)
    if known_P.sum() < MIN_PAIRS:
        return {"terms": [], "reason": f"fewer than {MIN_PAIRS} labelled pairs"}, []
    labelled = pairs.rows(known_P)
    if not _has_gold(labelled):
        return _raw_pull(labelled), []
    controls_PC = principle_controls(labelled)
    features = candidates(labelled)
    searched = _outcome(labelled.label_P)
    bent_PC = bent_controls(labelled, searched)
    found = find_drivers(Question(searched[:, None], bent_PC, features, labelled.index_P), alpha=ALPHA)
    found += _drivers_of_judgments(pairs, {driver.name for driver in found})
    figures = {"outcome": _outcome_name(labelled.label_P), "terms": _terms(labelled, controls_PC)}
    figures["drivers"] = [{"name": d.name, "coefficient": figure(d.coefficient, PREFERENCES), "p": d.p} for d in found]
    faults = [fault for driver in found if (fault := _driver_fault(driver, labelled)) is not None]
    return figures, faults + _side_fault(labelled, controls_PC, found)


def _side_fault(pairs: Pairs, controls_PC: Array, drivers: list[Driver]) -> list[Finding]:
    """Labels that lean to one side of the pair. Which response is A is chance: nothing that it says can explain a lean."""
    if abs(float(np.sign(pairs.label_P).mean())) > ALL_ON_ONE_SIDE:  # a file whose A is the chosen one
        return []
    columns_PC = np.column_stack([controls_PC, *(d.column_P for d in drivers if len(d.column_P) == len(controls_PC))])
    fit = _fit(columns_PC, pairs)
    size, z = fit.estimate(0), _z(fit.estimate(0))
    if size.value is None or z is None or two_sided_p(z) > ALPHA:
        return []
    verdict_P = columns_PC @ fit.coefficients_M if is_hard(pairs.label_P) else pairs.label_P
    cost = turned(verdict_P, np.full(len(verdict_P), size.value))
    if cost < MIN_TURNED:
        return []
    says = f"labels speak for response {'A' if size.value > 0 else 'B'}, whatever it says: {abs(size.value):.3f} nats"
    return [Finding(LABELER, "follows", "side A", size, "nats of the label", two_sided_p(z), cost, says)]


def is_hard(label_P: Array) -> bool:
    """Are nearly all labels 0 or 1?"""
    return bool((np.abs(label_P) >= HARD).mean() > 0.9)


def _outcome_name(label_P: Array) -> str:
    return "label, logistic regression" if is_hard(label_P) else "log-odds of the soft label, linear regression"


def _outcome(label_P: Array) -> Array:
    return np.sign(label_P) if is_hard(label_P) else label_P


def _terms(pairs: Pairs, controls_PC: Array) -> list[dict[str, Any]]:
    """Coefficients of the one regression: side A, principles, length, style; and of length measured in other units."""
    style = joined(style_features(pairs.a, pairs.b))
    fit = _fit(np.column_stack([controls_PC, style.values_PF]), pairs)
    names = ["side A", *(f"principle {id}" for id in pairs.principle_ids)]
    rows = [{"name": name, "coefficient": figure(fit.estimate(i), PREFERENCES)} for i, name in enumerate(names)]
    first = controls_PC.shape[1]
    rows += [
        {"name": name, "coefficient": figure(fit.estimate(first + i), PREFERENCES)}
        for i, name in enumerate(style.names)
    ]
    for name, column_P in _lengths(pairs).items():
        alone = _fit(np.column_stack([controls_PC, column_P]), pairs)
        rows.append({"name": name, "coefficient": figure(alone.estimate(first), PREFERENCES)})
    return rows


def _lengths(pairs: Pairs) -> dict[str, Array]:
    words = [(len(a.split()), len(b.split())) for a, b in zip(pairs.a, pairs.b, strict=True)]
    characters = [len(a) - len(b) for a, b in zip(pairs.a, pairs.b, strict=True)]
    return {
        "length alone, per word": np.array([float(a - b) for a, b in words]),
        "length alone, per character": np.array(characters, dtype=float),
        "length alone, per e-fold of words": np.array([np.log((a + 1) / (b + 1)) for a, b in words]),
    }


def _fit(columns_PC: Array, pairs: Pairs) -> Fit:
    if is_hard(pairs.label_P):
        return logistic(columns_PC, (pairs.label_P > 0).astype(float), pairs.index_P)
    return least_squares(columns_PC, pairs.label_P, pairs.index_P)


def _drivers_of_judgments(pairs: Pairs, known: set[str]) -> list[Driver]:
    """The same search on the mean answer to a principle: labels drop what judgments still show."""
    answered_P = np.asarray((~np.isnan(pairs.judged_PK)).any(axis=1))
    if answered_P.sum() < MIN_PAIRS:
        return []
    judged = pairs.rows(answered_P)
    outcome_P = np.nanmean(judged.judged_PK, axis=1)
    controls_PC = bent_controls(judged, outcome_P)
    question = Question(outcome_P[:, None], controls_PC, candidates(judged), judged.index_P)
    return [driver for driver in find_drivers(question, alpha=ALPHA) if driver.name not in known]


def _raw_pull(pairs: Pairs) -> dict[str, Any]:
    style = joined(style_features(pairs.a, pairs.b))
    fit = _fit(np.column_stack([np.ones(len(pairs.pairs)), style.values_PF]), pairs)
    terms = [
        {"name": name, "coefficient": figure(fit.estimate(i), PREFERENCES)}
        for i, name in enumerate(("side A", *style.names))
    ]
    reason = f"{NO_GOLD}: these pulls may be the principles' own, so none of them is a fault by itself"
    return {"outcome": _outcome_name(pairs.label_P), "terms": terms, "drivers": [], "reason": reason}


def _driver_fault(driver: Driver, pairs: Pairs) -> Finding | None:
    """A feature that labels follow, and how many labels it turns; None for hardly any."""
    size, cost = driver.coefficient, 0.0
    if len(driver.column_P) == len(pairs.pairs):
        verdict_P = pairs.label_P
        if is_hard(pairs.label_P):
            columns_PC = np.column_stack([principle_controls(pairs), driver.column_P])
            fit = _fit(columns_PC, pairs)
            size, verdict_P = fit.estimate(len(fit.coefficients_M) - 1), columns_PC @ fit.coefficients_M
        part_P = (size.value or 0.0) * driver.column_P
        if not worth_naming(verdict_P, part_P):
            return None
        cost = turned(verdict_P, part_P)
    what = "length" if driver.name == LENGTH else driver.name
    direction = "for" if (size.value or 0.0) > 0 else "against"
    says = f"labels speak {direction} {what} beyond what the principles say: {size.value:+.3f} nats per unit"
    return Finding(LABELER, "follows", what, size, f"nats of the label per unit of {driver.name}", driver.p, cost, says)
