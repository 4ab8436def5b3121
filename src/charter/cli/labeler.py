"""``charter labeler``: is a labeler fit to label?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.say import figure, say

app = typer.Typer(help="Check a labeler before it is trained on.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Check a labeler before it is trained on."""


@app.command("check")
def check(
    labeler: Annotated[str, typer.Argument(help="Run file, model folder, hub id or endpoint.", metavar="LABELER")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Human preferences, in any form of docs/formats.md; may be given again. None: label.check.pairs of "
            "the run file, or else 24 easy pairs that come with Charter."
        ),
    ] = None,
    constitution: Annotated[
        str | None, typer.Option(help="For a model: ask by the principles of this constitution.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Known pairs to use.")] = 400,
    attacks: Annotated[int, typer.Option(min=0, help="Pairs to attack; 0: none.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder of the ledger.", metavar="DIR")] = Path("runs/labeler-check"),
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure a labeler on pairs with a known answer, and attack it. Exit code 1: it is unfit."""
    from charter.errors import ConfigError
    from charter.stages.check_labeler import check_labeler, from_model, from_run

    if labeler.endswith((".yaml", ".yml")):
        asked = from_run(Path(labeler), list(set_ or []))
    elif set_:
        raise ConfigError("--set changes a run file: name one instead of a model")
    else:
        asked = from_model(labeler, constitution)
    found = check_labeler(asked, [str(path.resolve()) for path in data or []], limit, attacks, out)
    for line in [json.dumps(found)] if as_json else table(found):
        say(line)
    if found["verdict"]["unfit"]:
        raise typer.Exit(1)


def table(found: dict[str, Any]) -> list[str]:
    """The check as lines for people."""
    lines = [f"{found['labeler']}: {found['num_cases']} known pairs", *_own(found["data"]), ""]
    rows = [("accuracy of its labels", found["accuracy"])]
    rows += [(f"    {name}", row) for name, row in found["baselines"].items()]
    rows += [("accuracy over principles", found["accuracy_of_principles"])]
    rows += [(f"    {name}", row) for name, row in found["by_principle"].items()]
    rows += [
        ("verdict stays with position", found["position"]["keeps_position"]),
        ("picks the first", found["position"]["picks_first"]),
        ("triples without a circle", found["transitivity"]),
        ("same label in other words", found["paraphrases"]),
        ("pairs that got a label", found["abstentions"]["coverage"]),
    ]
    lines += [_row(name, row) for name, row in rows]
    error = found["calibration"]["ece"]
    lines.append(f"{'calibration error':32}{'-' if error is None else f'{error:.3f}'}")
    lines += [f"    abstained, {reason}: {count}" for reason, count in found["abstentions"]["reasons"].items()]
    lines += ["", "what moves its labels (log-odds per standard deviation)"]
    if "reason" in found["drivers"]:
        lines.append(f"    {found['drivers']['reason']}")
    lines += [_row(f"    {name}", row) for name, row in found["drivers"]["terms"].items()]
    if "attacks" in found:
        lines += ["", *_attacks(found["attacks"])]
        lines += ["", "win rate of texts that answer nothing"]
        lines += [_row(f"    {name}", row) for name, row in found["controls"].items()]
    verdict = found["verdict"]
    lines += ["", f"verdict: {verdict['fitness']}"]
    return lines + [f"    {why}" for why in (*verdict["unfit"], *verdict["warnings"])]


def _own(sources: list[str]) -> list[str]:
    from charter.stages.check_labeler import GENERAL

    easy = "easy ones that come with Charter: failing them says much, passing them little; name your own with --data"
    return [easy] if GENERAL in sources else []


def _attacks(found: dict[str, Any]) -> list[str]:
    before = found.get("before")
    lines = [f"{'attack: labels that it turns':32}{'hardened':28}{'undefended' if before else ''}"]
    for name, row in found["after"].items():
        undefended = figure(before[name]["success"]) if before else ""
        lines.append(f"    {name:28}{figure(row['success']):28}{undefended}")
    return lines


def _row(name: str, row: dict[str, Any]) -> str:
    told = figure(row)
    reason = f"  ({row['reason']})" if row["value"] is None and row.get("reason") else f"  n {row['n']}"
    return f"{name:32}{told:24}{reason}"
