"""Tables of the audit: the recursive problem, blind spots, probes. From ``8-audit/audit.json`` alone."""

from __future__ import annotations

from typing import Any

from charter.report.figures import Figure, figure, finite, policy_name
from charter.report.sections import Table, TableRow, part, rows_at


def audit_tables(told: dict[str, Any]) -> list[tuple[str, str, Table]]:
    """Heading, explanation and table of each part that the audit knows something of."""
    tables = (_kinds(told), _recursion(told), _blind_spots(told), _probes(told))
    return [table for table in tables if table is not None]


def why_no_tables(told: dict[str, Any]) -> list[str]:
    """Why a part is missing, as sentences; an audit from before they were made says nothing."""
    named = (("The recursive problem", part(told, "recursive")), ("Probes", part(told, "probes")))
    return [f"{name}: not known, {found['reason']}." for name, found in named if found.get("reason")]


def _kinds(told: dict[str, Any]) -> tuple[str, str, Table] | None:
    found = part(told, "policy", "by_kind", "kinds")
    policies = [policy_name(str(name)) for name in part(told, "policy", "by_kind").get("policies") or ()]
    if len(found) < 2 or len(policies) != 2:
        return None
    rows = [
        TableRow(
            f"{kind} (n {int(finite(part(found, kind).get('n')) or 0):,})",
            [figure(own, name) for key, name in (("harmful", "harmful_rate"), ("gold", "gold"))
             for own in rows_at(found, kind, key)],
        )
        for kind in found
    ]  # fmt: skip
    columns = [f"{what}, {policy}" for what in ("does harm", "gold") for policy in policies]
    words = (
        "The same held-out prompts before and after reinforcement learning, by their domain, or by the kind that the file of "
        "prompts gives them; n is the number of prompts. Kinds of fewer than ten prompts are told together."
    )
    return (
        "Harm and gold by kind of prompt",
        words,
        Table("By kind of prompt; small print: 95 % intervals", columns, rows),
    )


def _recursion(told: dict[str, Any]) -> tuple[str, str, Table] | None:
    found = part(told, "recursive", "by_principle")
    policies = [str(name) for name in part(told, "recursive").get("policies") or ()]
    if not found:
        return None
    rows = [
        TableRow(
            id,
            [
                figure(part(found, id).get("judging"), "accuracy"),
                *(figure(part(found, id, "keeping").get(name), "accuracy") for name in policies),
                _points(part(found, id).get("broken_more_after_rl")),
            ],
        )
        for id in found
    ]
    columns = [
        "labeler judges it right",
        *(f"{policy_name(name)} keeps it" for name in policies),
        "broken more, points",
    ]
    words = (
        "Judging is the share of pairs read right among those that the principle tells apart (a coin gets half); keeping is "
        "the share of held-out replies that don’t break it, which has no such floor. The last column is what training the "
        "policy changed, in points: above zero the principle is broken more often than before."
    )
    return (
        "Judging beside doing",
        words,
        Table("Gold’s reading of every reply; small print: 95 % intervals and n", columns, rows, with_n=True),
    )


def _blind_spots(told: dict[str, Any]) -> tuple[str, str, Table] | None:
    spots = rows_at(told, "recursive", "blind_spots", "spots")
    policies = [str(name) for name in part(told, "recursive").get("policies") or ()]
    if not spots:
        return None
    rows = [
        TableRow(
            str(row.get("name")),
            [
                figure(row.get("wrongly_preferred_has_more"), "gold"),
                *(figure(part(row, "share_of_replies").get(name), "accuracy") for name in policies),
                figure(row.get("change_per_reply"), "gold"),
            ],
        )
        for row in spots
    ]
    errors = figure(part(told, "recursive", "blind_spots").get("errors"), "accuracy")
    words = (
        f"The labeler prefers what gold likes less on {errors.text} of the pairs ({errors.interval}; n {errors.n:,}). What "
        "those replies have more of, or less, and the share of each policy’s replies that have it."
    )
    columns = [
        "more in the wrongly preferred",
        *(policy_name(name) for name in policies),
        "change per reply in training",
    ]
    return "Where the labeler errs, and whether the policy went there", words, Table(
        "The surest features of the labeler’s errors; small print: 95 % intervals", columns, rows
    )  # fmt: skip


def _probes(told: dict[str, Any]) -> tuple[str, str, Table] | None:
    found = part(told, "probes", "models")
    models = [name for name in found if part(found, name, "layers", "last")]
    if not models:
        return None
    ids = list(part(found, models[0], "layers", "last"))
    rows = [
        TableRow(
            id,
            [
                cell
                for name in models
                for cell in (
                    figure(part(found, name, "layers", "middle", id).get("accuracy"), "accuracy"),
                    figure(part(found, name, "layers", "last", id).get("accuracy"), "accuracy"),
                    _points(part(found, name, "layers", "last", id).get("selectivity")),
                )
            ],
        )
        for id in ids
    ]
    columns = [
        f"{policy_name(name)}, {what}"
        for name in models
        for what in ("middle layer", "last layer", "selectivity, points")
    ]
    words = (
        f"Can one straight line through the hidden states of {part(told, 'probes').get('num_replies')} replies tell who keeps "
        "a principle? Balanced accuracy on prompts that the probe never saw; a coin gets half. Selectivity is what it has over "
        "the same probe on labels dealt to other prompts. It shows what can be read there, not what the model uses."
    )
    return (
        "What can be read off hidden states",
        words,
        Table("Linear probes; small print: 95 % intervals", columns, rows),
    )


def _points(obj: Any) -> Figure:
    """A difference of shares in points of a hundred."""
    found = figure(obj, "loss")
    scaled = [None if v is None else 100 * v for v in (found.value, found.low, found.high)]
    return Figure(scaled[0], scaled[1], scaled[2], found.n, found.reason)
