"""``charter constitution``: check, show, diff and import."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.say import counted, figure, say

if TYPE_CHECKING:
    from charter.constitution.check import Finding
    from charter.constitution.load import Constitution as Loaded

MOST_NAMED = 8  # principles in one line
SHORT = 30  # characters of a value that is told in line with the one before
app = typer.Typer(help="Check, show, compare and import constitutions.", no_args_is_help=True, rich_markup_mode=None)
Constitution = Annotated[str, typer.Argument(help="YAML file, or the name of a shipped constitution, as general.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("check")
def check(
    constitution: Annotated[
        str | None, typer.Argument(help="YAML file, or the name of a shipped constitution (default: the run's).")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run with labels: check its constitution as its labeler heard it.", metavar="RUN"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model that must know the words: a folder, or as in a run file (default: the run's)."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there is any finding.")] = False,
    as_json: AsJson = False,
) -> None:
    """Load a constitution strictly, and say what is doubtful about it; with --run, also what the labels say about it."""
    from charter.constitution.check import check as find
    from charter.constitution.load import find_constitution, load_constitution
    from charter.errors import ConstitutionError
    from charter.labelers.heard import heard as hear

    if (constitution is None) == (run is None):
        raise ConstitutionError("name a constitution, or a run with --run: one of the two")
    loaded = load_constitution(run / "constitution.yaml" if run else find_constitution(constitution or ""))
    heard = hear(run) if run else None
    findings = [
        *find(loaded),
        *_unknown(loaded, model or (_model_of(run) if run else None)),
        *(heard.pop("findings") if heard else []),
    ]
    if as_json:
        told = {"name": loaded.name, "hash": loaded.hash, "num_principles": len(loaded.principles)}
        rows = [dataclasses.asdict(finding) for finding in findings]
        say(json.dumps({**told, "findings": rows, "heard": heard}))
    else:
        for line in _heard(heard) if heard else []:
            say(line)
        lines = _folded(findings)
        for line in lines:
            say(line)
        counts = f"{counted(len(loaded.principles), 'principle')}, {counted(len(lines), 'finding')}"
        say(f"{loaded.name}: {counts}, hash {loaded.hash[:12]}")
    if strict and findings:
        raise typer.Exit(1)


def _unknown(constitution: Loaded, model: str | None) -> list[Finding]:
    """Principles with words that the model can't read."""
    from charter.constitution.check import Finding
    from charter.models.vocabulary import named, unknown_words

    found = []
    for principle in constitution.principles if model else ():
        texts = (principle.text, principle.critique_request, principle.revision_request, principle.comparison)
        words = unknown_words(model or "", texts)
        if words:
            says = f"{principle.id}: the model doesn't know: {named(words)}: say it in words that it knows"
            found.append(Finding("unknown-words", (principle.id,), says))
    return found


def _model_of(run: Path) -> str | None:
    """The model that a run starts from, as its run file names it."""
    from charter.errors import ConfigError
    from charter.yaml_io import load_yaml

    data = load_yaml(run / "run.yaml", ConfigError).data if (run / "run.yaml").is_file() else None
    model = data.get("model") if isinstance(data, dict) else None
    return str(model["source"]) if isinstance(model, dict) and "source" in model else None


def _folded(findings: list[Finding]) -> list[str]:
    """A line for each finding; principles without wording of their own, which are most, share one."""
    plain = [finding for finding in findings if finding.kind == "wording"]
    lines = [f"{finding.kind}: {finding.message}" for finding in findings if finding.kind != "wording"]
    if len(plain) == 1:
        lines.append(f"wording: {plain[0].message}")
    elif plain:
        ids = [id for finding in plain for id in finding.principle_ids]
        named = ", ".join(ids[:MOST_NAMED]) + (f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else "")
        lines.append(f"wording: {len(plain)} principles have no requests of their own, the defaults are used: {named}")
    return lines


def _heard(found: dict[str, Any]) -> list[str]:
    lines = [f"{'principle':24}{'pairs read':>12}  decides"]
    lines += [
        f"{row['principle'][:23]:24}{row['num_read']:>12,}  {figure(row['decides'])}" for row in found["principles"]
    ]
    return [*lines, f"{found['num_pairs']:,} pairs; no principle decides {figure(found['undecided'])} of them", ""]


@app.command("show")
def show(constitution: Constitution, as_json: AsJson = False) -> None:
    """Print the principles, with their wording."""
    from charter.constitution.check import WORDINGS
    from charter.constitution.load import find_constitution, load_constitution

    loaded = load_constitution(find_constitution(constitution))
    if as_json:
        told = {"name": loaded.name, "description": loaded.description, "hash": loaded.hash}
        say(json.dumps({**told, "principles": [principle.to_json() for principle in loaded.principles]}))
        return
    say(f"{loaded.name}: {loaded.description}".rstrip(": "))
    for principle in loaded.principles:
        say(f"\n{principle.id} (weight {principle.weight:g}): {principle.text}")
        for name in WORDINGS:
            say(f"    {name.replace('_', ' ')}: {getattr(principle, name)}")


@app.command("diff")
def diff(
    before: Constitution,
    after: Constitution,
    run: Annotated[
        Path | None, typer.Option(help="Finished run: label its pairs anew by AFTER, and say which labels flip.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what changed from one constitution to another, and with --run what that does to the labels of a run."""
    from charter.constitution.diff import diff as find
    from charter.constitution.load import find_constitution, load_constitution

    changes = find(load_constitution(find_constitution(before)), load_constitution(find_constitution(after)))
    if as_json:
        relabelled = _relabelled(run, after) if run else None
        say(json.dumps({"changes": [dataclasses.asdict(change) for change in changes], "labels": relabelled}))
        return
    for change in changes:
        if change.field is not None:
            says = [value if isinstance(value, str) else json.dumps(value) for value in (change.before, change.after)]
            between = " -> " if max(map(len, says)) < SHORT else "\n      -> "
            say(f"{change.kind:8} {change.principle_id} {change.field}: {between.join(says)}")
        else:
            say(f"{change.kind:8} {change.principle_id}: {change.before or change.after}")
    say(counted(len(changes), "change"))
    if run is not None:
        _relabel(run, after)


def _relabelled(run: Path, after: str) -> dict[str, Any]:
    from charter.constitution.load import find_constitution, load_constitution
    from charter.progress import open_progress
    from charter.stages.relabel import relabel

    with open_progress(quiet=False) as progress:
        return relabel(run, load_constitution(find_constitution(after)), progress)


def _relabel(run: Path, after: str) -> None:
    found = _relabelled(run, after)
    say(f"{found['num_pairs']} pairs, {found['num_asked']} questions asked that the ledger did not hold")
    say(f"labels that flip: {figure(found['flipped'])}; gained {found['gained']}, lost {found['lost']}")
    say(f"agreement with gold: before {figure(found['gold_before'])}, after {figure(found['gold_after'])}")
    for example in found["examples"]:
        pair = example["pair"]
        say(f"\n{pair['id']}: P(A is better) {example['before']:.2f} -> {example['after']:.2f}")
        say(f"    {pair['prompt']['messages'][-1]['content']}")
        say(f"    A: {pair['response_a']}")
        say(f"    B: {pair['response_b']}")


@app.command("worth")
def worth(
    run: Annotated[Path, typer.Argument(help="Run folder with finished labels.", metavar="RUN")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what each principle buys: the labels without it, from the answers that are there."""
    from charter.stages.relabel import worth as find

    found = find(run)
    if as_json:
        say(json.dumps(found))
        return
    say(
        f"{found['num_labels']} of {found['num_pairs']} pairs labelled; agreement with gold {figure(found['gold_agreement'])}"
    )
    say(f"{'without':16}{'weight':>8}  {'labels that flip':24}{'labels that go':24}gold agreement that it buys")
    for row in found["principles"]:
        flipped, lost, gain = (figure(row[key]) for key in ("flipped", "lost", "gold_gain"))
        say(f"{row['principle'][:15]:16}{row['weight']:>8g}  {flipped:24}{lost:24}{gain}")


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The 2022 paper's or llm-swarm's JSON, OpenCharacterTraining's text, an HTML or Markdown document, or a "
            "CSV of statements with votes."
        ),
    ],
    out: Annotated[Path, typer.Option(help="YAML file to write.")],
    name: Annotated[str | None, typer.Option(help="Name of the constitution (default: the file's).")] = None,
    votes: Annotated[Path | None, typer.Option(help="Participants' votes on the statements: counted anew.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Statements: the least agreement of any group (default 0.8).")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Write the questions that come with traits there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Turn what others wrote into a constitution. A file that is there already is left alone."""
    from charter.constitution.drafts import Drafts
    from charter.constitution.importers import import_constitution, write_constitution
    from charter.errors import ConstitutionError
    from charter.store.jsonl import write_jsonl

    for path in (out, prompts):
        if path is not None and path.exists():
            raise ConstitutionError(f"{path}: is there already: delete it or choose another name")
    found = Drafts()
    imported = import_constitution(files, name or out.stem, found, votes, min_agreement)
    write_constitution(imported, out)
    if prompts is not None:
        write_jsonl(prompts, found.prompts)
    num_drafts = sum("draft" in principle.tags for principle in imported.principles)
    if as_json:
        told = {"num_principles": len(imported.principles), "num_drafts": num_drafts, "hash": imported.hash}
        say(json.dumps({"out": str(out), **told, "num_prompts": len(found.prompts), "notes": found.notes}))
        return
    for note in found.notes:
        say(note)
    some = "all" if num_drafts == len(imported.principles) else f"{num_drafts} of them"
    drafts = f", {some} drafts to read and reword" if num_drafts else ""
    say(
        f"{out}: {counted(len(imported.principles), 'principle')}{drafts}, hash {imported.hash[:12]}; "
        f"next: charter constitution check {out}"
    )
