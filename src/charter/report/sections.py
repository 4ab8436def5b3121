"""The charts and tables of each section, as the template wants them: title, picture, caption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from charter.report.charts import Row, Series, bars, dot_interval, line_with_band, plane, reliability, unknown_picture
from charter.report.figures import (
    Figure,
    figure,
    finite,
    kind_of,
    name_of,
    number,
    policy_class,
    policy_name,
    policy_order,
    sample_size,
)

HEADLINE = ("harmful_rate", "correct_rate", "gold")
MAIN = ("initial", "sl-cai", "rl-cai")
BY_STAGE = ("over_refusal_rate", "gold_harmful", "gold_benign")
MORE = ("evasive_rate", "rude_rate", "false_rate", "num_words", "kl_to_sl_cai")
UNSEEN = ("harmful_rate", "correct_rate")
REVISION = ("harmful_rate", "correct_rate", "gold", "num_words")
TABLE = ("harmful_rate", "over_refusal_rate", "correct_rate", "evasive_rate", "rude_rate", "false_rate", "gold", "gold_harmful",
         "gold_benign", "num_words", "distinct_2", "kl_to_sl_cai")  # fmt: skip
ABOUT = {
    "harmful_rate": "share of replies to prompts not known to be harmless that help with harm, or do it; lower is better",
    "correct_rate": "share of replies to harmless prompts that do what was asked, and rightly; higher is better",
    "gold": "the true goal, mean per reply; higher is better",
    "over_refusal_rate": "share of harmless prompts that are declined; lower is better",
    "gold_harmful": "the true goal on prompts marked harmful, mean per reply",
    "gold_benign": "the true goal on prompts marked harmless, mean per reply",
    "evasive_rate": "share of replies that neither help nor say why not; lower is better",
    "rude_rate": "share of replies that are rude or insulting; lower is better",
    "false_rate": "share of replies that claim something untrue; lower is better",
    "num_words": "length of a reply",
    "kl_to_sl_cai": "KL(policy‖SL-CAI) per response, estimator k1, on held-out prompts",
}
REWARD_NAMES = {
    "label_agreement": "reward model with labels",
    "gold_agreement": "reward model with gold",
    "longer_wins": "baseline: longer wins",
    "shorter_wins": "baseline: shorter wins",
    "bag_of_words": "baseline: bag of words",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with what stands above and below it."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True, slots=True)
class TableRow:
    name: str
    figures: list[Figure]


@dataclass(frozen=True, slots=True)
class Table:
    """Figures by row and column; ``with_n``: each names what it rests on."""

    caption: str
    columns: list[str]
    rows: list[TableRow]
    with_n: bool = False


def part(summary: dict[str, Any], *path: str) -> dict[str, Any]:
    """A nested object of the summary; empty where it isn't there or is something else."""
    value: Any = summary
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def rows_at(summary: dict[str, Any], *path: str) -> list[dict[str, Any]]:
    """A nested list of objects; empty where it isn't there or is something else."""
    value = part(summary, *path[:-1]).get(path[-1])
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def policy_figure(summary: dict[str, Any], policy: str, name: str) -> Figure:
    """A figure of a policy."""
    return figure(part(summary, "policies", policy).get(name), name)


def headline(summary: dict[str, Any]) -> list[Chart]:
    """The three figures that matter, initial -> SL-CAI -> RL-CAI."""
    return [_policy_chart(summary, name, MAIN, "h") for name in HEADLINE]


def num_seen(summary: dict[str, Any]) -> tuple[int, int] | None:
    """(held-out prompts that are training prompts too, all of them); None where the summary doesn't tell."""
    told = part(summary, "held_out")
    seen, every = finite(told.get("num_seen")), finite(told.get("num_prompts"))
    return None if seen is None or every is None else (int(seen), int(every))


def unseen_table(summary: dict[str, Any]) -> Table | None:
    """The main policies on all held-out prompts and on those that are no training prompts; None where these are the same."""
    counted, told = num_seen(summary), part(summary, "held_out", "unseen")
    policies = [policy for policy in MAIN if policy in told]
    if counted is None or not counted[0] or not policies:
        return None
    columns, rows = [], [TableRow(policy_name(policy), []) for policy in policies]
    for name in UNSEEN:
        for which, of in (("all", part(summary, "policies")), ("unseen", told)):
            figures = [figure(part(of, policy).get(name), name) for policy in policies]
            size = sample_size(figures)
            columns.append(f"{name_of(name)}, {which}{f' ({size})' if size else ''}")
            for row, own in zip(rows, figures, strict=True):
                row.figures.append(own)
    if all(own.value is None for row in rows for own in row.figures):
        return None
    return Table("All held-out prompts, and those that are no training prompts", columns, rows)


def by_stage(summary: dict[str, Any]) -> list[Chart]:
    """Harm and help of every evaluated policy; a figure that no policy has is left to the list of unknowns."""
    policies = policy_order(part(summary, "policies"))
    names = (*HEADLINE, *BY_STAGE) if len(policies) > len(MAIN) else BY_STAGE
    return _known_charts(summary, names, policies)


def by_stage_more(summary: dict[str, Any]) -> list[Chart]:
    """The other figures of every evaluated policy."""
    return _known_charts(summary, MORE, policy_order(part(summary, "policies")))


def _known_charts(summary: dict[str, Any], names: Sequence[str], policies: Sequence[str]) -> list[Chart]:
    known = [n for n in names if any(policy_figure(summary, p, n).value is not None for p in policies)]
    return [_policy_chart(summary, name, policies, "p") for name in known]


def way(summary: dict[str, Any]) -> list[Chart]:
    """All policies in one plane of harm and help."""
    policies = policy_order(part(summary, "policies"))
    rows = [
        (
            policy_name(p),
            policy_figure(summary, p, "correct_rate"),
            policy_figure(summary, p, "harmful_rate"),
            policy_class(p),
            p in MAIN,
        )
        for p in policies
    ]
    if sum(h.value is not None and v.value is not None for _, h, v, _, _ in rows) < 2:
        return []
    title = "The way from harmful to harmless and helpful"
    caption = (
        "The better, the further up and to the right. Crosses are 95 % intervals; small dots are policies on the way."
    )
    return [Chart(title, plane("p-plane", title, rows), caption)]


def _policy_chart(summary: dict[str, Any], name: str, policies: Sequence[str], key: str) -> Chart:
    rows = [Row(policy_name(p), policy_figure(summary, p, name), policy_class(p)) for p in policies]
    caption = _sentence(ABOUT.get(name, ""), sample_size(row.figure for row in rows))
    return Chart(_title(name), dot_interval(f"{key}-{name}", _title(name), rows), caption)


def _title(name: str) -> str:
    words = name_of(name)
    return words[:1].upper() + words[1:]


def _sentence(*pieces: str) -> str:
    told = "; ".join(piece for piece in pieces if piece)
    told = told if told.startswith("n =") else told[:1].upper() + told[1:]
    return f"{told}." if told else ""


def policy_table(summary: dict[str, Any]) -> Table:
    """Every figure of every policy."""
    policies = policy_order(part(summary, "policies")) or list(MAIN)
    rows = [TableRow(policy_name(p), [policy_figure(summary, p, name) for name in TABLE]) for p in policies]
    sizes = sample_size(f for row in rows for f in row.figures)
    caption = f"Held-out prompts; small print: 95 % intervals{'; ' + sizes if sizes else ''}"
    return Table(caption, [name_of(name) for name in TABLE], rows)


def revision_curve(summary: dict[str, Any]) -> list[Chart]:
    """Figures of the revised data after each round; rings are the policies trained on so many rounds."""
    curve = rows_at(summary, "curves", "revision")
    charts = []
    for name in REVISION if curve else ():
        points = [(finite(row.get("round")) or 0.0, figure(row.get(name), name)) for row in curve]
        trained = _by_rounds(summary, name, len(curve) - 1)
        series = [Series("revised data", points, "sl"), Series("SL-CAI", trained, "other", marks=True)]
        svg = line_with_band(
            f"v-{name}", f"{_title(name)} by round", series[: 2 if trained else 1], "round", kind_of(name)
        )
        charts.append(
            Chart(_title(name), svg, _sentence(f"revised data, {sample_size(f for _, f in points)}".strip(", ")))
        )
    return charts


def _by_rounds(summary: dict[str, Any], name: str, num_rounds: int) -> list[tuple[float, Figure]]:
    prefix = "sl-cai-round-"
    early = [(float(p.removeprefix(prefix)), p) for p in part(summary, "policies") if p.removeprefix(prefix).isdigit()]
    return [(x, policy_figure(summary, p, name)) for x, p in [*early, (float(num_rounds), "sl-cai")]] if early else []


def labeler(summary: dict[str, Any]) -> list[Chart]:
    """Accuracy by principle, position bias and coverage, and why it abstained."""
    told = part(summary, "labeler")
    if not told:
        return []
    right = [Row(id, figure(value, "accuracy"), "rl") for id, value in part(told, "accuracy_by_principle").items()]
    right.append(Row("all principles", figure(told.get("accuracy"), "accuracy"), "other"))
    right.append(Row("label agrees with gold", figure(told.get("gold_agreement"), "gold_agreement"), "other"))
    conduct = {
        "coverage": "pairs with a label",
        "position_bias": "verdict follows the position",
        "confidence": "confidence",
        "p_a": "A preferred",
    }
    rows = [Row(words, figure(told[name], "accuracy"), "other") for name, words in conduct.items() if name in told]
    if not any(row.figure.value is not None for row in (*right, *rows)):
        return []
    title = "Accuracy by principle"
    caption = "Verdicts like a perfect reader’s, of those pairs whose responses differ by the principle."
    charts = [Chart(title, dot_interval("l-right", title, right, (0.5, "chance")), caption)]
    caption = (
        "“Follows the position”: it names the other response when the two are swapped. Confidence is the mean probability "
        "of the favoured response, “A preferred” the mean label; without bias that is 50 %."
    )
    charts.append(Chart("Conduct", dot_interval("l-conduct", "Conduct of the labeler", rows), caption))
    return [*charts, *_abstentions(told)]


def _abstentions(told: dict[str, Any]) -> Iterable[Chart]:
    for key, title, what in (
        ("abstentions", "Pairs without a label", "pairs"),
        ("abstained_judgments", "Answers not given", "judgments"),
    ):
        reasons = {k: int(v) for k, v in part(told, key).items() if finite(v)}
        if reasons:
            counted = sorted(((k.replace("_", " "), v) for k, v in reasons.items()), key=lambda item: -item[1])
            yield Chart(
                title, bars(f"l-{key}", title, counted), f"Counted by reason, in {what}; never turned into a label."
            )


def reward_model(summary: dict[str, Any]) -> list[Chart]:
    """Held-out agreement beside trivial baselines, and calibration."""
    told = part(summary, "reward_model")
    own = {key: told[key] for key in ("label_agreement", "gold_agreement") if key in told}
    rows = [Row(REWARD_NAMES[key], figure(value, "accuracy"), "rl") for key, value in own.items()]
    rows += [
        Row(REWARD_NAMES.get(key, key), figure(value, "accuracy"), "other")
        for key, value in part(told, "baselines").items()
    ]
    if not any(row.figure.value is not None for row in rows):
        return []
    svg = dot_interval("r-agree", "Held-out agreement of the reward model", rows, (0.5, "chance"))
    caption = "Share of held-out pairs in which the favoured response is the same; the baselines against the labels."
    charts = [Chart("Agreement on held-out pairs", svg, caption)]
    calibration = part(told, "calibration")
    ece = finite(calibration.get("ece"))
    bins = [row for row in rows_at(calibration, "bins") if _is_bin(row)]
    if bins:
        size = sum(row["num"] for row in bins)
        told_ece = (
            f"expected calibration error {number(ece, 'rate')}" if ece is not None else "calibration error not known"
        )
        words = f"a dot per bin, its area the number of pairs; {told_ece}; n = {size:,} held-out pairs"
        return [*charts, Chart("Calibration", reliability("r-cal", bins), _sentence(words))]
    return [*charts, Chart("Calibration", unknown_picture("r-cal", "Calibration", "no held-out pairs"), "")]


def _is_bin(row: dict[str, Any]) -> bool:
    return all(finite(row.get(key)) is not None for key in ("predicted", "observed", "num"))
