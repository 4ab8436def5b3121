"""The audit's part of the page, from ``8-audit/audit.json`` alone: waterfall, principles, over-optimisation, faults, failures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from charter.audit.figures import NUM_FLIPS
from charter.report.artifacts import Artifacts
from charter.report.audit_tables import audit_tables, why_no_tables
from charter.report.charts import Fall, Row, Series, dot_interval, line_with_band, waterfall
from charter.report.figures import Figure, figure, finite, number, policy_name
from charter.report.sections import Chart, Table, TableRow, part, rows_at
from charter.report.settings import short_source
from charter.store.jsonl import read_json

FILE = "8-audit/audit.json"
MISSING = "no audit yet: charter audit RUN makes it, and charter report RUN shows it here"
LINK_NAMES = {
    "goal_to_labels": "goal → labels",
    "goal_to_constitution": "goal → constitution",
    "constitution_to_labeler": "constitution → labeler",
    "labeler_to_reward_model": "labeler → reward model",
    "reward_model_to_policy": "reward model → policy",
    "record": "files of the run",
}
NUM_FINDINGS = 8
FEWEST = 1.0001 / (NUM_FLIPS + 1)
NUM_GREW = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault in words."""

    link: str
    says: str
    cost: str
    size: str
    amplified: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """One pair or reply on which a link failed."""

    link: str
    why: str
    prompt: str
    better: str
    worse: str
    pair_id: str
    verdicts: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What the page shows; empty parts where the audit doesn't know."""

    verdict: str
    charts: list[Chart]
    curves: list[Chart]
    grew: list[Chart]
    principles: Table | None
    tables: list[tuple[str, str, Table]]
    findings: list[Finding]
    more_findings: int
    failures: list[Failure]
    notes: list[str]


def audit_part(artifacts: Artifacts) -> Audit | None:
    """The audit of a run; None where there is none."""
    path = artifacts.folder / FILE
    if not path.is_file():
        return None
    told = read_json(path)
    told = told if isinstance(told, dict) else {}
    findings = rows_at(told, "findings")
    return Audit(
        _verdict(told),
        _waterfall(_own_chain(told)),
        _curves(told),
        _grew(told),
        _principles(told),
        audit_tables(told),
        [_finding(row) for row in findings[:NUM_FINDINGS]],
        max(0, len(findings) - NUM_FINDINGS),
        _failures(artifacts, told),
        [*_notes(told), *why_no_tables(told)],
    )


def _verdict(told: dict[str, Any]) -> str:
    verdict = part(told, "verdict")
    link, says = verdict.get("link"), str(verdict.get("says") or "not known").replace(" -> ", " → ")
    if link == "record":
        return f"The files of this run don’t fit together: {says}."
    if not link:
        return f"{says[:1].upper()}{says[1:]}."
    name = LINK_NAMES.get(str(link), str(link))
    most = part(verdict, "loses_most")
    if most.get("link") in (
        link,
        "goal_to_labels" if link in ("goal_to_constitution", "constitution_to_labeler") else link,
    ):
        return f"{name} loses most: {says}."
    lost = points(most.get("loss"))
    where = LINK_NAMES.get(str(most.get("link")), "")
    most_lost = f" Most agreement is lost at {where}, noise and all: {lost.text} points." if where else ""
    return f"The costliest fault is at {name}: {says}.{most_lost}"


def _own_chain(told: dict[str, Any]) -> dict[str, Any]:
    """The audit with the links that the run has, where it names them."""
    links = rows_at(told, "chain", "links")
    if part(told, "chain").get("reason"):  # a note says why there is no chain
        return {**told, "waterfall": {}}
    known = any(part(row, "agreement").get("value") is not None for row in links)
    return {**told, "waterfall": {**part(told, "waterfall"), "links": links}} if known else told


def _waterfall(told: dict[str, Any]) -> list[Chart]:
    rows = rows_at(told, "waterfall", "links")
    if not any(part(row, "agreement").get("value") is not None for row in rows):
        known = [
            Row(LINK_NAMES.get(str(row.get("link")), ""), figure(row.get("agreement_with_previous"), "accuracy"), "rl")
            for row in rows
        ]
        if not any(row.figure.value is not None for row in known):
            return []
        title = "Each link beside the one before"
        caption = "Without gold only the agreement between neighbours is known: no loss is claimed."
        return [Chart(title, dot_interval("a-neighbours", title, known, (0.5, "chance")), caption)]
    falls = [
        Fall(
            LINK_NAMES.get(str(row.get("link")), ""), figure(row.get("agreement"), "accuracy"), points(row.get("loss"))
        )
        for row in rows
    ]
    title = "Agreement with the goal, link by link"
    caption = (
        f"The same {int(finite(part(told, 'waterfall').get('num_pairs')) or 0):,} held-out pairs all the way; the gap is what a "
        f"link lost, in points, with its 95 % interval. A link that doesn’t decide gets half a point.{_unlabelled(told)}"
    )
    return [Chart(title, waterfall("a-fall", title, falls), caption)]


def _unlabelled(told: dict[str, Any]) -> str:
    """What the pairs of the waterfall leave out: those that never got a label."""
    found = part(told, "waterfall", "unlabelled")
    labelled, every = (figure(found.get(key), "accuracy") for key in ("agreement_labelled", "agreement_all"))
    if labelled.value is None or every.value is None:
        return ""
    num = int(finite(found.get("num")) or 0)
    return (
        f" Only pairs that got a label are among them. Of all {every.n:,} pairs that the goal tells apart {num:,} got none: labels "
        f"agree with it on {labelled.text} of the labelled ones, on {every.text} ({every.interval}) of all, with half a point for "
        "each pair without a label."
    )


def points(obj: Any, *otherwise: str) -> Figure:
    """A loss in points of a hundred."""
    found = figure(obj, "loss", *otherwise)
    if found.value is None:
        return found
    scaled = [None if v is None else 100 * v for v in (found.value, found.low, found.high)]
    return Figure(scaled[0], scaled[1], scaled[2], found.n)


def _curves(told: dict[str, Any]) -> list[Chart]:
    """Gold and proxy against the root of KL, with the fitted form."""
    curve = rows_at(told, "policy", "curve")
    charts = []
    for name, title, style in (("gold", "Gold as KL is spent", "sl"), ("proxy", "Reward as KL is spent", "rl")):
        points = [
            (math.sqrt(max(0.0, kl)), figure(row.get(name), "gold"))
            for row in curve
            if (kl := finite(part(row, "kl").get("value"))) is not None
        ]
        if sum(f.value is not None for _, f in points) < 2:
            continue
        series = [Series("checkpoints", points, style, marks=True), *_fit(told, name, points)]
        svg = line_with_band(f"a-{name}", title, series, "√KL to SL-CAI, √nats", "number")
        fitted = "; line: R = d(α − β log d), fitted" if len(series) > 1 else ""
        charts.append(Chart(title, svg, f"Rings: checkpoints on held-out prompts, with 95 % intervals{fitted}."))
    return charts


def _fit(told: dict[str, Any], name: str, points: list[tuple[float, Figure]]) -> list[Series]:
    """Gao et al. 2022, eq. 2, drawn from the first checkpoint's score up to the largest KL."""
    form = part(told, "policy", "fits", name, "rl")
    alpha, beta = finite(part(form, "alpha").get("value")), finite(part(form, "beta").get("value"))
    start = next((f.value for _, f in points if f.value is not None), None)
    most = max(d for d, _ in points)
    if alpha is None or beta is None or start is None or most <= 0:
        return []
    ds = [most * (i + 1) / 40 for i in range(40)]
    return [Series("fit", [(d, Figure(start + d * (alpha - beta * math.log(d)))) for d in ds], "other", measured=False)]


def _grew(told: dict[str, Any]) -> list[Chart]:
    rows = [
        Row(str(row.get("name")), figure(row.get("change_per_response"), "gold"), "rl")
        for row in rows_at(told, "policy", "grew")[:NUM_GREW]
    ]
    if not rows:
        return []
    title = "What the policy now says more often, or less"
    caption = (
        "Change per response from SL-CAI to the trained policy on the same prompts; the surest changes first. Words in "
        "quotes are counted as they stand."
    )
    return [Chart(title, dot_interval("a-grew", title, rows, (0.0, "")), caption)]


def _principles(told: dict[str, Any]) -> Table | None:
    labels, learned = part(told, "labels", "by_principle"), part(told, "reward_model", "by_principle")
    if not labels:
        return None
    without = part(told, "goal", "without_principle")
    decides = part(told, "goal", "coverage", "decides")
    not_learned = str(part(told, "reward_model").get("reason") or "no held-out pair is known to differ under it")
    not_won = str(part(told, "goal", "agreement").get("reason") or "no pair that gold decides is decided by it")
    rows = [
        TableRow(
            id,
            [
                figure(decides.get(id), "accuracy"),
                figure(part(labels, id).get("accuracy"), "accuracy"),
                figure(part(learned, id).get("follows_principle"), "accuracy", not_learned),
                points(without.get(id), not_won),
            ],
        )
        for id in labels
    ]
    columns = [
        "tells pairs apart",
        "labeler reads it right",
        "reward model follows it",
        "agreement won without it, points",
    ]
    caption = "Every principle on its way down the chain; small print: 95 % intervals, and how many pairs each figure rests on"
    return Table(caption, columns, rows, with_n=True)


def _finding(row: dict[str, Any]) -> Finding:
    size = figure(row.get("size"), "gold")
    cost = finite(row.get("cost")) or 0.0
    told = f"{size.text} ({size.interval})" if size.interval else size.text
    link, of_link = (LINK_NAMES.get(str(row.get(key)), "") for key in ("link", "of_link"))
    return Finding(
        f"{link}, at {of_link}" if row.get("link") == "record" and of_link != link else link,
        str(row.get("says")).replace(" -> ", " → "),
        number(cost, "rate"),
        f"{told} {row.get('unit') or ''}".strip() + _chance(row),
        bool(row.get("amplified_by_policy")),
    )


def _chance(row: dict[str, Any]) -> str:
    """The p-value in words; one from random flips can't be below one over their number. A count has none."""
    p = finite(row.get("p"))
    if not p:
        return ""
    if row.get("kind") in ("follows", "missing") and p <= FEWEST:
        return f", p ≤ 1/{NUM_FLIPS + 1}"
    return ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"


def _failures(artifacts: Artifacts, told: dict[str, Any]) -> list[Failure]:
    """The worst failure of each link as text; pairs are looked up, replies are in the audit."""
    wanted = {str(row.get("pair_id")): row for row in rows_at(told, "waterfall", "failures")}
    found = []
    for pair in artifacts.rows("3-sample/pairs.jsonl") if wanted else ():
        row = wanted.pop(str(pair.get("id")), None)
        if row is not None:
            found.append(_failed_pair(pair, row))
    order = list(LINK_NAMES.values())
    found.sort(key=lambda failure: order.index(failure.link) if failure.link in order else len(order))
    for row in rows_at(told, "policy", "examples")[:2]:
        change, reward = finite(row.get("gold_change")) or 0.0, finite(row.get("reward_change"))
        rose = "" if reward is None else f", reward by {number(reward)}"
        why = f"gold fell by {number(-change)} after its peak{rose}"
        where = f"prompt {row.get('prompt_id')}"
        found.append(
            Failure(
                "reward model → policy",
                why,
                "",
                str(row.get("before")),
                str(row.get("after")),
                where,
                "at gold’s peak, then at the end",
            )
        )
    return found


def _failed_pair(pair: dict[str, Any], row: dict[str, Any]) -> Failure:
    gold = finite(row.get("gold")) or 0.0
    texts = (str(pair.get("response_a")), str(pair.get("response_b")))
    better, worse = texts if gold > 0 else texts[::-1]
    sign = 1 if gold > 0 else -1
    verdicts = ", ".join(
        f"{name.replace('_', ' ')} {number(sign * value)}"
        for name in ("constitution", "labeler", "reward_model", "policy")
        if (value := finite(row.get(name))) is not None
    )
    messages = part(pair, "prompt").get("messages") or [{}]
    link = LINK_NAMES.get(str(row.get("link")), "")
    return Failure(
        link, "the link before was right, this one isn’t", str(messages[-1].get("content")), better, worse, str(pair.get("id")),
        f"for the better response: {verdicts}",
    )  # fmt: skip


def _apart(told: dict[str, Any]) -> str:
    """Agreement on held-out pairs whose prompt was trained on, and on the others."""
    seen = part(told, "reward_model", "seen")
    shared, new = (figure(seen.get(key), "accuracy") for key in ("agreement_seen", "agreement_new"))
    if shared.value is None:
        return ""
    beside = (
        "none has a new prompt" if new.value is None else f"{new.text} ({new.interval}; n {new.n:,}) on new prompts"
    )
    return f" It agrees with the label on {shared.text} ({shared.interval}; n {shared.n:,}) of those pairs, {beside}."


def _notes(told: dict[str, Any]) -> list[str]:
    policy, no_chain = part(told, "policy"), part(told, "chain").get("reason")
    stop = figure(policy.get("stop_at_kl"), "gold")
    lines = [f"No chain of agreement: {no_chain}."] if no_chain else []
    if stop.value is not None:
        lost = figure(policy.get("gold_lost_after_peak"), "gold")
        at = policy_name(str(policy.get("gold_peak")))
        lines.append(
            f"Gold is highest at {at}: stopping at a KL of {stop.text} nats ({stop.interval}) would have saved "
            f"{lost.text} of gold ({lost.interval})."
        )
    elif policy.get("curve"):
        lines.append(f"KL at which to stop: {stop.text}.")
    wins = part(policy, "wins")
    for name in part(wins, "against"):
        row = part(wins, "against", name)
        rate, right = figure(row.get("rate"), "accuracy"), figure(row.get("agrees_with_gold"), "accuracy")
        if rate.value is not None:
            known = (
                ""
                if right.value is None
                else f"; that judge agrees with gold on {right.text} ({right.interval}) of them"
            )
            lines.append(
                f"{policy_name(str(wins.get('policy')))} wins {rate.text} ({rate.interval}, n {rate.n:,}) of the prompts against "
                f"{policy_name(name)}, as the judge {short_source(wins.get('judge'))} sees it, which is not the labeler{known}."
            )
    abstained = figure(part(told, "labels", "abstentions").get("share"), "accuracy")
    if abstained.value is not None:
        lines.append(f"The labeler abstained on {abstained.text} of its judgments (n {abstained.n:,}).")
    seen = figure(part(told, "reward_model", "seen").get("prompts"), "accuracy")
    if seen.value:
        lines.append(
            f"{seen.text} of the held-out pairs (n {seen.n:,}) have a prompt that, word for word, was also trained on with other "
            f"responses: what is said of the reward model there may be too kind.{_apart(told)}"
        )
    gold = part(told, "gold")
    if gold:
        kind = "simulated: an oracle that knows the truth" if gold.get("simulated") else "as named in the run file"
        lines.append(f"Gold: {gold.get('name')} ({kind}).")
    else:
        lines.append(
            "No gold: what is lost between goal, constitution and labeler can’t be known here, and nothing is claimed of it."
        )
    return lines
