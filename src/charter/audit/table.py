"""The audit as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from charter.audit.figures import LINK_NAMES

WIDTH = 26
NUM_FINDINGS = 12


def table(audit: dict[str, Any]) -> str:
    """What ``charter audit`` prints: the waterfall, what stands out in each link, and the verdict."""
    parts = (_head, _waterfall, _people, _labels, _policy, _findings)
    return "\n".join(line for part in parts for line in part(audit))


def show(figure: dict[str, Any] | None, digits: int = 3) -> str:
    """A figure in a few characters: ``0.812 (0.780 to 0.841)``, or a dash and why."""
    if not figure:
        return "-"
    if figure["value"] is None:
        return f"- ({figure['reason']})"
    text = f"{figure['value']:.{digits}f}"
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def _head(audit: dict[str, Any]) -> Iterator[str]:
    gold = audit["gold"]
    named = "none: only what can be known without it is claimed"
    if gold:
        named = f"{gold['name']} (simulated)" if gold["simulated"] else gold["name"]
    yield f"audit of {audit['run']}, seed {audit['seed']}; gold: {named}"
    yield ""


def _waterfall(audit: dict[str, Any]) -> Iterator[str]:
    falls = audit["waterfall"]
    if audit["gold"]:
        yield f"agreement with gold on the same {falls['num_pairs']} held-out pairs, 95 % intervals ({falls['ties']})"
    else:
        yield "agreement with gold: not known without one; beside it how often neighbours agree"
    yield f"  {'link':{WIDTH}}{'agreement':{WIDTH}}{'lost':{WIDTH}}with the link before"
    for row in falls["links"]:
        cells = [show(row[key]) for key in ("agreement", "loss")]
        cells = [cell if len(cell) < WIDTH else "-" for cell in cells]
        yield f"  {LINK_NAMES[row['link']]:{WIDTH}}{cells[0]:{WIDTH}}{cells[1]:{WIDTH}}{show(row['agreement_with_previous'])}"
    yield ""


PEOPLE = {
    "any_weights": "verdicts on the principles, best weights",
    "given_weights": "verdicts on the principles, the constitution's weights",
    "weights_and_length": "best weights, and length",
    "length_any_weight": "length alone, best weight",
    "longer": "the longer response",
}


def _people(audit: dict[str, Any]) -> Iterator[str]:
    people = audit["goal"]["people"]
    if len(people) < 2:
        return
    yield "share of people's preferences foretold, by cross-validation over prompts"
    for key, words in PEOPLE.items():
        yield f"  {words:56}{show(people[key])}"
    yield ""


def _labels(audit: dict[str, Any]) -> Iterator[str]:
    labels = audit["labels"]
    yield f"labeler: P(A | shown first) - P(A | shown second)   {show(labels['position']['order_gap'])}"
    rows = [(id, row) for id, row in labels["by_principle"].items() if row["accuracy"]["value"] is not None]
    learned = audit["reward_model"].get("by_principle", {})
    if rows:
        yield f"  {'principle':{WIDTH}}{'labeler reads it right':{WIDTH}}reward model follows it"
    for id, row in rows:
        accuracy = show(row["accuracy"])
        accuracy = accuracy if len(accuracy) < WIDTH else "-"
        yield f"  {id[: WIDTH - 2]:{WIDTH}}{accuracy:{WIDTH}}{show(learned.get(id, {}).get('follows_principle'))}"
    pulls = [] if audit["gold"] else labels["regression"]["terms"]
    if pulls:
        yield "  what labels go with, in nats per unit (without gold this may be the principles' own)"
    for row in pulls:
        yield f"  {row['name']:{WIDTH}}{show(row['coefficient'])}"
    yield ""


def _policy(audit: dict[str, Any]) -> Iterator[str]:
    policy = audit["policy"]
    if policy["curve"]:
        yield f"  {'policy':{WIDTH}}{'KL, nats':{WIDTH}}{'gold':{WIDTH}}proxy"
    for row in policy["curve"]:
        yield f"  {row['policy']:{WIDTH}}{show(row['kl']):{WIDTH}}{show(row['gold']):{WIDTH}}{show(row['proxy'])}"
    wins = policy["wins"]
    for name, row in wins["against"].items():
        yield (
            f"  wins against {name}, by {wins['judge']}: {show(row['rate'])}; the judge agrees with gold on "
            f"{show(row['agrees_with_gold'])}"
        )
    yield f"KL to stop at: {show(policy['stop_at_kl'])}"
    yield ""


def _findings(audit: dict[str, Any]) -> Iterator[str]:
    found = audit["findings"]
    if found:
        yield "what stands out from chance, costliest first (share of verdicts turned)"
    for row in found[:NUM_FINDINGS]:
        amplified = "; amplified by reinforcement learning" if row["amplified_by_policy"] else ""
        yield f"  {row['cost']:6.1%}  {LINK_NAMES[row['link']]}: {row['says']}; size {show(row['size'])}{amplified}"
    if len(found) > NUM_FINDINGS:
        yield f"  and {len(found) - NUM_FINDINGS} more in audit.json"
    verdict = audit["verdict"]
    link = verdict["link"]
    nobody = "nobody" if verdict["known"] else "not known"
    yield f"at fault: {LINK_NAMES[link]}: {verdict['says']}" if link else f"at fault: {nobody}: {verdict['says']}"
    most = verdict["loses_most"]
    if most:
        yield f"most agreement is lost, noise and all, at {LINK_NAMES[most['link']]}: {show(most['loss'])}"
