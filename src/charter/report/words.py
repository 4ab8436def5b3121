"""The sentences of the page: what happened, what was simulated, what isn't known, how to do it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charter.report.artifacts import Artifacts
from charter.report.explorer import Explorer
from charter.report.figures import figure, finite, name_of, policy_class, policy_name, policy_order
from charter.report.reinforcement import warnings
from charter.report.sections import MAIN, TABLE, num_seen, part, policy_figure, rows_at
from charter.report.settings import labels_by, short_source

NUM_FAULTS = 3  # named on the page
OTHER_FIGURES = (
    ("labeler", "accuracy"),
    ("labeler", "position_bias"),
    ("labeler", "coverage"),
    ("reward_model", "label_agreement"),
    ("reward_model", "gold_agreement"),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a sentence; ``style`` colours it by policy."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that must be seen before the figures."""

    head: str
    text: str


@dataclass(frozen=True, slots=True)
class StageRow:
    name: str
    time: str
    tokens: str
    counts: str


@dataclass(frozen=True, slots=True)
class ServerRow:
    source: str
    calls: str
    read: str
    written: str
    money: str


def title(artifacts: Artifacts) -> str:
    """The run's name, and its folder where that is called otherwise."""
    name, folder = str(artifacts.summary.get("name") or ""), artifacts.folder.resolve().name
    return f"{name} ({folder})" if name and name != folder else name or folder


def standfirst(summary: dict[str, Any]) -> list[Piece]:
    """Two sentences of figures, claiming nothing beyond them."""
    pieces: list[Piece] = []
    for name, opening in (
        ("harmful_rate", "Harmful replies: "),
        ("correct_rate", "correct replies to harmless prompts: "),
    ):
        known = [(p, policy_figure(summary, p, name)) for p in MAIN]
        shown = [(p, f) for p, f in known if f.value is not None]
        if not shown:
            continue
        pieces.append(Piece(opening if not pieces else f"; {opening}"))
        for index, (policy, found) in enumerate(shown):
            pieces.append(Piece(" → " if index else ""))
            pieces.append(Piece(found.text, policy_class(policy)))
            if name == "harmful_rate":
                pieces.append(Piece(f" ({_unbroken(policy)})"))
    if pieces:
        return [*pieces, Piece(".")]
    if part(summary, "policies"):
        return [
            Piece(
                "Nobody read the replies of this run, so that harm and help are not known. What can be known is below."
            )
        ]
    return [Piece("This run has not been evaluated yet. What is there so far is below.")]


def _unbroken(policy: str) -> str:
    name = policy_name(policy).replace("-", "\u2011")
    return name.lower() if policy == "initial" else name


def facts(artifacts: Artifacts) -> list[tuple[str, str]]:
    """The small line under the headline."""
    summary = artifacts.summary
    second = "preference" if artifacts.section("policy", "algorithm") == "dpo" else "reinforcement"
    phases = {"sl": "supervised", "rl": second}
    told = summary.get("phases")
    seconds = [finite(row.get("wall_seconds")) for row in rows_at(summary, "stages")]
    known = [second for second in seconds if second is not None]
    found = [
        ("model", short_source(artifacts.section("model", "source"))),
        ("phases", " + ".join(phases.get(p, str(p)) for p in told) if isinstance(told, list) else ""),
        ("seed", str(summary.get("seed", ""))),
        ("time", duration(sum(known)) if known else ""),
        ("read by", _reader(summary)),
    ]
    return [(name, value) for name, value in found if value]


def _reader(summary: dict[str, Any]) -> str:
    gold = part(summary, "gold")
    if gold:
        return f"{gold.get('name')}{' (simulated)' if gold.get('simulated') else ''}"
    reader = str(summary.get("reader") or "")
    return "nobody" if reader == "none" else reader


def unsound(faults: Sequence[str]) -> list[Notice]:
    """That files were changed since the run wrote them, if any were."""
    if not faults:
        return []
    more = f" and {len(faults) - NUM_FAULTS} more" if len(faults) > NUM_FAULTS else ""
    text = f"Do not trust the figures: {'; '.join(faults[:NUM_FAULTS])}{more}. charter verify names all."
    return [Notice("This run folder does not verify.", text)]


def notices(artifacts: Artifacts) -> list[Notice]:
    """Unfinished, simulated, or read by nobody."""
    found = []
    if not artifacts.finished:
        text = (
            "The run was stopped, or is still going; the same command goes on with it. This page shows what is there."
        )
        found.append(Notice("Not finished.", text))
    gold = part(artifacts.summary, "gold")
    if gold.get("simulated"):
        text = (
            f"The goal is judged by “{gold.get('name')}”, an exact program in place of people. These figures say nothing "
            "about how a real model would behave."
        )
        found.append(Notice("Simulated.", text))
    told = artifacts.summary.get("warnings")
    found += [Notice("Warned.", str(line)) for line in told] if isinstance(told, list) else []
    warned, _ = warnings(artifacts)
    if warned:
        times = "once" if len(warned) == 1 else f"{len(warned)} times"
        found.append(Notice("Warned.", f"The monitors of training warned {times}; see the part on the policy."))
    return found


def simulated(artifacts: Artifacts) -> list[str]:
    """What stood in for what, and what follows for the figures."""
    summary = artifacts.summary
    gold, reader = part(summary, "gold"), str(summary.get("reader") or "none")
    lines = []
    if gold.get("simulated"):
        lines.append(
            f"“{gold.get('name')}” computes the true goal from the text of a reply. No person judged anything; every figure "
            "of harm, help and gold is by this program."
        )
    elif gold:
        lines.append(f"Gold is “{gold.get('name')}”.")
    elif not artifacts.finished:
        named = artifacts.section("evaluate", "gold") or "nothing"
        lines.append(f"The policies are not evaluated yet; as gold the run file names {named}.")
    elif reader != "none":
        lines.append(
            f"No true goal is known. A model, “{reader}”, read the replies; its mistakes are in every figure of harm and help."
        )
    else:
        lines.append(
            "No true goal is known and nobody read the replies: harm, help and gold are not known for any policy."
        )
    if "rl" in (summary.get("phases") or []):
        lines.append(labels_by(artifacts))
    lines.append(
        "One run, one seed: intervals are over held-out prompts, and say nothing of how another seed would end."
    )
    lines.append("The figures hold for the held-out prompts that the run file names; other prompts were not tried.")
    counted = num_seen(summary)
    if counted is None:
        lines.append("Whether held-out prompts are training prompts too is not known: the summary doesn’t tell.")
    elif counted[0]:
        lines.append(f"{counted[0]:,} of the {counted[1]:,} held-out prompts are training prompts too, word for word.")
    else:
        lines.append("No held-out prompt is, word for word, a training prompt.")
    return lines


def unknowns(summary: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(reason, figures) for every figure that has none, in the order of the page."""
    found: dict[str, dict[str, list[str]]] = {}
    for policy in policy_order(part(summary, "policies")) or list(MAIN):
        for name in TABLE:
            told = policy_figure(summary, policy, name)
            if told.value is None:
                found.setdefault(told.reason, {}).setdefault(policy_name(policy), []).append(name_of(name))
    for section, name in OTHER_FIGURES:
        told = figure(part(summary, section).get(name), name)
        if told.value is None:
            found.setdefault(told.reason, {}).setdefault(section.replace("_", " "), []).append(name.replace("_", " "))
    return [(reason, [_listing(who, names) for who, names in by.items()]) for reason, by in found.items()]


def _listing(who: str, names: list[str]) -> str:
    return f"{who}, all figures" if len(names) == len(TABLE) else f"{who}, {', '.join(names)}"


def stages(summary: dict[str, Any]) -> list[StageRow]:
    """One row per stage, and the sum."""
    rows, counts = rows_at(summary, "stages"), part(summary, "counts")
    table = []
    for row in rows:
        name = str(row.get("name"))
        seconds, tokens = finite(row.get("wall_seconds")), finite(row.get("num_tokens"))
        time = "not known" if seconds is None else duration(seconds)
        table.append(
            StageRow(name, time, "not known" if tokens is None else f"{tokens:,.0f}", _counts(part(counts, name)))
        )
    if len(rows) > 1:
        known = [finite(row.get("wall_seconds")) or 0.0 for row in rows]
        spent = [finite(row.get("num_tokens")) or 0.0 for row in rows]
        table.append(StageRow("together", duration(sum(known)), f"{sum(spent):,.0f}", ""))
    return table


def servers(summary: dict[str, Any]) -> list[ServerRow]:
    """One row per server that was asked; none where no server was, or where the run is of a version that didn't tell."""
    return [_server(row) for row in rows_at(summary, "servers")]


def _server(row: dict[str, Any]) -> ServerRow:
    counts = [finite(row.get(key)) for key in ("calls", "prompt_tokens", "completion_tokens")]
    calls, read, written = ("not known" if count is None else f"{count:,.0f}" for count in counts)
    money = finite(row.get("money"))
    told = f"not known: {row.get('reason') or 'no reason given'}" if money is None else f"{money:,.2f}"
    return ServerRow(str(row.get("source")), calls, read, written, told)


def _counts(counts: dict[str, Any]) -> str:
    whole = {key: value for key, value in counts.items() if isinstance(value, int) and key != "num_tokens"}
    shown = [f"{value:,} {key.removeprefix('num_').replace('_', ' ')}" for key, value in whole.items()]
    dropped = [f"{key.replace('_', ' ')} {value}" for key, value in part(counts, "filters").items()]
    return ", ".join([*shown, *([f"filters: {', '.join(dropped)}"] if dropped else [])])


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def hashes(artifacts: Artifacts) -> list[tuple[str, str, str]]:
    """(what, where from, hash) of everything that went in."""
    places: dict[str, tuple[str, ...]] = {
        "constitution": ("constitution",),
        "model": ("model", "source"),
        "labeler": ("label", "labeler", "model", "source"),
        "judge": ("evaluate", "judge", "source"),
        "prompts": ("prompts", "source"),
        "held_out_prompts": ("evaluate", "prompts", "source"),
    }
    told = part(artifacts.summary, "hashes")
    rows = [
        (name, artifacts.section(*places.get(name, (name,))), value)
        for name, value in told.items()
        if value is not None
    ]
    return [(name.replace("_", " "), str(source or ""), str(value)) for name, source, value in rows]


def command(artifacts: Artifacts) -> str:
    """What repeats the run, on any machine that has the run folder."""
    seed = artifacts.summary.get("seed")
    seed = f" --seed {seed}" if isinstance(seed, int) and not isinstance(seed, bool) else ""
    return f"cd RUN  # this folder\ncharter run run.yaml{seed} --out ../again"


def explorer_words(labels: Explorer) -> str:
    """How many pairs the page holds."""
    raw = "" if labels.with_raw else " What the labeler wrote is left out here."
    if labels.num_packed == labels.num_pairs:
        many = f"All {labels.num_pairs:,} pairs are in this page."
    else:
        many = f"{labels.num_packed:,} of {labels.num_pairs:,} pairs are in this page, taken evenly; the others are in 4-label/."
    return f"{many} P(A better) is the labeler’s, whichever response it saw first.{raw}"
