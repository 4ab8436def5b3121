"""The audit of a run folder: reads artifacts, scores with the saved models where it may, writes 8-audit/audit.json.

writes  8-audit/audit.json   keys:
    run, seed, charter, source (hash of Charter's code), inputs (hash of what was read), gold {name, simulated} or null, seconds
    verdict                  {link, known, kind, what, says, cost_by_link, num_pairs, loses_most {link, loss}}; link null: no
                             fault that turns verdicts stands out from chance, or (known false) too few pairs to tell
    findings[]               {link, of_link, kind, what, size, unit, p, cost, says, examples, amplified_by_policy}; of_link:
                             the link whose files a record is about, else the link
    waterfall                {num_pairs, ties, links[]: {link, from, to, agreement, loss, loss_on_all_pairs,
                             agreement_with_previous, agreement_on_all_pairs},
                             unlabelled {num, agreement_labelled, agreement_all},
                             failures[]: {link, pair_id, and the verdicts of all links}}
    chain                    links[]: {link, agreement, loss}, as the run has them: three without a constitution
    goal                     agreement, agreement_any_weights, coverage, drivers[], without_principle, people
    labels                   position, by_principle, regression {outcome, terms[], drivers[]}, abstentions, rebuilt,
                             counting {sharpness, min_log_odds, min_margin, weights, all, by_principle}
    reward_model             label_agreement, gold_agreement, calibration, scale, drivers[], by_principle, rescored,
                             ensemble {num_members, disagreement, spread}, seen {pairs, prompts, agreement_seen, agreement_new}
    policy                   reread, kl_again, same_reply {before, after}, by_kind {policies, kinds {n, harmful, gold}}, curve[],
                             fits, gold_peak, gold_lost_after_peak, stop_at_kl, grew[], examples[], best_of_n[],
                             wins {judge, policy, against: {policy: {rate, agrees_with_gold, num_abstained}}}
    recursive                policies, by_principle {judging, keeping, judging_minus_keeping, broken_more_after_rl}, amplified,
                             misread_and_broken, blind_spots
    probes                   num_replies, models: {name: {layers: {layer: {principle: accuracy, control, selectivity}}}}

Every figure is {value, low, high, n, reason, source}; value null: it can't be known, and reason says why.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import charter
from charter.audit.blame import charge_upstream, losses, verdict
from charter.audit.chain import chain_of
from charter.audit.changes import changes, same
from charter.audit.counting import audit_counting
from charter.audit.ensemble import audit_ensemble
from charter.audit.evidence import Evidence, Pairs, read_evidence
from charter.audit.figures import REWARD_MODEL, Finding, figure
from charter.audit.goal import audit_goal
from charter.audit.kinds import audit_kinds
from charter.audit.kl import check_kl
from charter.audit.labels import audit_labels
from charter.audit.leak import audit_leak
from charter.audit.links import waterfall
from charter.audit.policy import audit_policy, best_of_n, curve_of
from charter.audit.probes import audit_probes
from charter.audit.recorded import check_labels, check_readings
from charter.audit.recursive import audit_recursion
from charter.audit.reward_model import HELD_OUT, audit_reward_model
from charter.audit.rows import check_rows
from charter.audit.sameness import audit_sameness
from charter.audit.scoring import RewardScorer, TooMuchWork, policy_log_ratios
from charter.audit.wins import audit_wins
from charter.errors import CharterError, ModelError
from charter.records import PreferencePair
from charter.regression import Array
from charter.source import source_hash
from charter.statistics import counted, unknown
from charter.store.disk import store_errors
from charter.store.hashing import hash_file, hash_json
from charter.store.jsonl import read_json, read_jsonl, write_json
from charter.store.whole import note, renamed

AUDIT_FILE = Path("8-audit") / "audit.json"
BEFORE_FILE = AUDIT_FILE.with_name("audit.before.json")
SAME = 0.05  # nats; recorded margins further from the model's own are another model's


def audit_run(folder: Path, people: Path | None = None) -> dict[str, Any]:
    """Audit a run folder and return what ``write_audit`` writes.

    Args:
        people: a file of PreferencePair rows with the ids of the run's pairs: people's preferences.

    Raises:
        DataError: it is no run folder, or a file in it is broken; ConfigError: its gold can't be imported.
    """
    began = time.monotonic()
    evidence, checked, changed = _checked(read_evidence(folder))
    pairs = evidence.pairs
    scorer, why_no_scorer = _scorer(folder)
    rescored, other_margins = _rescore(pairs, scorer)
    rewards, why_no_reward = _rewards(evidence, scorer, why_no_scorer)
    policy_P, why_no_policy = _policy_verdicts(evidence)
    curve = curve_of(evidence, rewards)

    falls = waterfall(pairs, policy_P, why_no_policy)
    goal, goal_faults = audit_goal(pairs, _people(people, pairs))
    labels, label_faults = audit_labels(evidence)
    reward_model, reward_faults = audit_reward_model(pairs)
    seen, leaks = audit_leak(pairs)
    policy, policy_faults = audit_policy(evidence, curve, why_no_reward)
    sameness, one_answer = audit_sameness(curve)
    beside = {"by_kind": audit_kinds(curve), "best_of_n": best_of_n(pairs), "wins": audit_wins(evidence)}
    recursive, probes = audit_recursion(evidence, labels["by_principle"]), audit_probes(evidence, scorer, why_no_scorer)
    findings = [
        *goal_faults,
        *label_faults,
        *reward_faults,
        *other_margins,
        *changed,
        *leaks,
        *policy_faults,
        *one_answer,
    ]
    findings = sorted(charge_upstream([*findings, *losses(falls)], evidence, curve), key=lambda f: -f.cost)
    chain = chain_of(evidence, falls)
    return {
        **_named(evidence),
        "seconds": round(time.monotonic() - began, 2),
        "verdict": verdict(findings, evidence.gold is not None, _num_pairs(pairs, falls), chain["links"]),
        "findings": [finding.to_json() for finding in findings],
        "waterfall": falls,
        "chain": chain,
        "goal": goal,
        "labels": {**labels, "rebuilt": checked["labels"], "counting": audit_counting(evidence)},
        "reward_model": {**reward_model, "rescored": rescored, "ensemble": audit_ensemble(folder, pairs), "seen": seen},
        "policy": {
            **policy,
            "reread": checked["readings"],
            "kl_again": checked["kl"],
            "same_reply": sameness,
            **beside,
        },
        "recursive": recursive,
        "probes": probes,
    }


def _named(evidence: Evidence) -> dict[str, Any]:
    """Which run this is, what read it, and by which gold."""
    gold = evidence.gold
    return {
        "run": evidence.config.get("name"),
        "seed": evidence.config.get("seed"),
        "charter": charter.__version__,
        "source": source_hash(),
        "inputs": _inputs(evidence.folder),
        "gold": {"name": gold.name, "simulated": gold.simulated} if gold else None,
    }


def _checked(evidence: Evidence) -> tuple[Evidence, dict[str, Any], list[Finding]]:
    """The evidence as far as it can be computed again, a figure of what differed by file, and findings about the files."""
    evidence, labels, changed = check_labels(evidence)
    evidence, readings, other_readings = check_readings(evidence)
    evidence, kl, other_kl = check_kl(evidence)
    findings = [*changed, *other_readings, *other_kl, *check_rows(evidence)]
    return evidence, {"labels": labels, "readings": readings, "kl": kl}, findings


def _num_pairs(pairs: Pairs, falls: dict[str, Any]) -> int | None:
    """Pairs that went through all links, or without gold those with a label; None: the run has none at all."""
    if not pairs.pairs:
        return None
    return int((~np.isnan(pairs.label_P)).sum()) if np.isnan(pairs.gold_P).all() else int(falls["num_pairs"])


def write_audit(folder: Path, people: Path | None = None) -> dict[str, Any]:
    """Audit a run folder, write 8-audit/audit.json, and return its content. Raises as ``audit_run``."""
    found = audit_run(folder, people)
    _write(folder, found)
    return found


def audit_again(folder: Path, people: Path | None = None) -> tuple[dict[str, Any], list[str] | None]:
    """As ``write_audit``, but an audit that is there and says otherwise stays beside it: the first one that was replaced so.

    Returns:
        The audit, and what it says otherwise, a line each; None where there was none before, or the same one.

    Raises as ``audit_run``.
    """
    found = audit_run(folder, people)
    path = folder / AUDIT_FILE
    changed = None
    if path.is_file():
        try:
            before = read_json(path)
        except CharterError:
            before = None
        if not same(before, found):
            changed = changes(before, found)
            if not (folder / BEFORE_FILE).exists():
                with store_errors(path):
                    path.rename(folder / BEFORE_FILE)
                renamed(folder, AUDIT_FILE.as_posix(), BEFORE_FILE.as_posix())
    _write(folder, found)
    return found, changed


def _write(folder: Path, found: dict[str, Any]) -> None:
    path = folder / AUDIT_FILE
    path.parent.mkdir(exist_ok=True)
    write_json(path, found)
    note(folder, [AUDIT_FILE.as_posix()])


def audited(folder: Path) -> dict[str, Any]:
    """The audit that lies in a run folder where it is of this code and of these files, else a new one.

    One of the same files by other code stays beside the new one, as with ``audit_again``.
    """
    path = folder / AUDIT_FILE
    try:
        found = read_json(path) if path.is_file() else None
    except CharterError:
        found = None
    if not isinstance(found, dict) or found.get("inputs") != _inputs(folder):
        return write_audit(folder)
    if (found.get("charter"), found.get("source")) == (charter.__version__, source_hash()):
        return found
    return audit_again(folder)[0]


def _inputs(folder: Path) -> str:
    """Hash of the run file, the constitution and the manifests of the stages, which hold the hashes of all their files."""
    paths = [folder / "run.yaml", folder / "constitution.yaml", *sorted(folder.glob("[1-7]-*/done.json"))]
    return hash_json({str(path.relative_to(folder)): hash_file(path) for path in paths if path.is_file()})


def _scorer(folder: Path) -> tuple[RewardScorer | None, str]:
    model = folder / "5-reward" / "model"
    if not model.is_dir():
        return None, "5-reward/model isn't there"
    try:
        return RewardScorer(model), ""
    except ModelError as error:
        return None, str(error)


def _rescore(pairs: Pairs, scorer: RewardScorer | None) -> tuple[dict[str, Any], list[Finding]]:
    """Are the recorded margins those of the saved model?"""
    recorded = np.flatnonzero(~np.isnan(pairs.margin_P)).tolist()
    if scorer is None or not recorded:
        why = "5-reward/model can't be read" if recorded else f"{HELD_OUT} isn't there"
        return figure(unknown(why), HELD_OUT), []
    texts = [
        (pairs.pairs[i].prompt, text)
        for i in recorded
        for text in (pairs.pairs[i].response_a, pairs.pairs[i].response_b)
    ]
    try:
        rewards_P2 = np.array(scorer(texts)).reshape(-1, 2)
    except TooMuchWork as reason:
        return figure(unknown(str(reason)), HELD_OUT), []
    off_P = np.abs(rewards_P2[:, 0] - rewards_P2[:, 1] - pairs.margin_P[recorded])
    tolerance_P = SAME + 0.02 * np.abs(pairs.margin_P[recorded])
    off = int((off_P > tolerance_P).sum())
    size = counted(off, len(recorded))
    faults = []
    if off:
        says = f"{off / len(recorded):.0%} of the margins in {HELD_OUT} aren't those of 5-reward/model: one of the two was changed"
        turned = float((np.sign(rewards_P2[:, 0] - rewards_P2[:, 1]) != np.sign(pairs.margin_P[recorded])).mean())
        faults.append(Finding(REWARD_MODEL, "record", HELD_OUT, size, "share of margins", 0.0, turned, says))
    return figure(size, f"{HELD_OUT} against 5-reward/model"), faults


def _rewards(
    evidence: Evidence, scorer: RewardScorer | None, why_not: str
) -> tuple[dict[str, list[float]] | None, str]:
    """The reward of every response of the policies on the way."""
    if scorer is None:
        return None, why_not
    try:
        return {
            name: scorer([(row.prompt, row.response) for row in rows]) for name, rows in evidence.policies.items()
        }, ""
    except TooMuchWork as reason:
        return None, str(reason)


def _policy_verdicts(evidence: Evidence) -> tuple[Array, str]:
    """The policy's own verdict on the held-out pairs, NaN elsewhere, or the reason why there is none."""
    pairs = evidence.pairs
    policy_P = np.full(len(pairs.pairs), np.nan)
    starts_helpful = evidence.section("policy", "initialise_from") == "helpful"
    reference = evidence.folder / "2-sft" / "model"
    if starts_helpful or not reference.is_dir():
        reference = Path(str(evidence.section("model", "source") or ""))
    policy = evidence.folder / "6-policy" / "model"
    recorded = np.flatnonzero(~np.isnan(pairs.margin_P)).tolist()
    if not policy.is_dir() or not reference.is_dir() or not recorded:
        return policy_P, "6-policy/model, its reference, or held-out pairs aren't there"
    texts = [
        (pairs.pairs[i].prompt, text)
        for i in recorded
        for text in (pairs.pairs[i].response_a, pairs.pairs[i].response_b)
    ]
    try:
        ratios = np.array(policy_log_ratios(policy, reference, texts)).reshape(-1, 2)
    except (ModelError, TooMuchWork) as reason:
        return policy_P, str(reason)
    policy_P[recorded] = ratios[:, 0] - ratios[:, 1]
    return policy_P, ""


def _people(path: Path | None, pairs: Pairs) -> Array | None:
    if path is None:
        return None
    preferred = {row.id: row.p_a for row in read_jsonl(path, PreferencePair)}
    return np.array([preferred.get(pair.id, np.nan) for pair in pairs.pairs])
