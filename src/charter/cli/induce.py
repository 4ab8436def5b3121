"""``charter constitution induce``: principles that reconstruct given preferences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.say import MAX_SEED, figure, say


def induce(
    data: Annotated[Path, typer.Argument(help="Preference pairs, in any form of docs/formats.md.", metavar="DATA")],
    labeler: Annotated[str, typer.Option(help="Run file, model folder, hub id or endpoint that reads and proposes.")],
    out: Annotated[Path, typer.Option(help="YAML file to write: drafts to read and reword.")],
    candidates: Annotated[
        str | None, typer.Option(help="Constitution whose principles are tried; its wording serves the proposed ones.")
    ] = None,
    propose: Annotated[int, typer.Option(min=0, help="Requests for principles to the model; 0: none.")] = 10,
    limit: Annotated[int, typer.Option(min=1, help="Pairs to use, drawn by a hash.")] = 400,
    most: Annotated[int, typer.Option(min=1, help="Principles to choose at most.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED)] = 0,
    ledger: Annotated[Path, typer.Option(help="Folder of the ledger.", metavar="DIR")] = Path("runs/induce"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Choose principles that explain preferences, and say how well they reconstruct held-out ones."""
    from charter.constitution.importers import write_constitution
    from charter.constitution.load import Constitution, find_constitution, load_constitution
    from charter.data.preferences import load_preferences
    from charter.errors import ConstitutionError, DataError
    from charter.progress import open_progress
    from charter.stages.induce import Plan, first
    from charter.stages.induce import induce as find

    if out.exists():
        raise ConstitutionError(f"{out}: is there already: delete it or choose another name")
    faults: list[str] = []
    pairs = first(load_preferences(data, faults), limit, seed)
    given = load_constitution(find_constitution(candidates)) if candidates else Constitution("none", "", ())
    with open_progress(quiet=as_json) as progress:
        chosen, told = find(pairs, _labeler(labeler), given, Plan(propose, most, seed=seed), ledger, progress)
    told["num_unusable_rows"] = len(faults)
    if not chosen.principles:
        raise DataError(f"{data}: no candidate explains these preferences better than a coin: give others")
    description = f"Induced from {data.name}; drafts, to be read and reworded."
    write_constitution(Constitution(out.stem, description, chosen.principles, chosen.defaults), out)
    for line in [json.dumps({"out": str(out), **told})] if as_json else _lines(out, chosen, told):
        say(line)


def _labeler(source: str) -> Any:
    from charter.config import ConstitutionalConfig
    from charter.errors import ConfigError
    from charter.stages.check_labeler import from_model, from_run

    is_run = source.endswith((".yaml", ".yml"))
    found = (from_run(Path(source), []) if is_run else from_model(source, None)).labeler
    if not isinstance(found, ConstitutionalConfig):
        raise ConfigError(
            f"{source}: its labeler is {found.kind}: name a run with one that reads principles, or a model"
        )
    return found


def _lines(out: Path, chosen: Any, told: dict[str, Any]) -> list[str]:
    by_id = {principle.id: principle for principle in chosen.principles}
    num_proposed = sum(row["origin"] == "proposed" for row in told["candidates"])
    lines = [
        f"{len(told['candidates'])} candidates ({num_proposed} proposed by the model, "
        f"{len(told['candidates']) - num_proposed} given); {told['num_train']} training pairs, "
        f"{told['num_held_out']} held out, {told['num_unusable_rows']} rows left out that can't be used",
        "",
        "chosen, with the training agreement that each brings the set to",
    ]
    for row in told["chosen"]:
        lines.append(f"    {row['train_agreement']:.2f}  {row['origin']:9} {by_id[row['principle']].text}")
    lines += ["", f"{'agreement with held-out labels':36}{figure(told['held_out_agreement'])}"]
    lines += [f"    {name.replace('_', ' '):32}{figure(row)}" for name, row in told["baselines"].items()]
    return [*lines, "", f"{out}: {len(by_id)} drafts; next: charter constitution check {out}"]
