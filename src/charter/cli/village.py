"""``charter village``: build the embedded starter model, measure it, look at the world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The embedded village: build and measure its starter model, look at its prompts.", no_args_is_help=True
)


@app.command("build-starter")
def build_starter(
    out: Annotated[Path, typer.Argument(help="Folder for the model; its earlier checkpoint goes to OUT-early.")],
    seed: Annotated[int, typer.Option(help="Seed of weights and corpus.")] = 0,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Training tokens (default: those of the shipped starter).")
    ] = None,
) -> None:
    """Train the starter model from nothing (about half an hour on 2 cores) and write its card."""
    from dataclasses import replace

    from charter.village.build import BuildConfig
    from charter.village.build import build_starter as build

    config = replace(BuildConfig(), seed=seed)
    if tokens is not None:
        config = replace(config, num_tokens=tokens, early_tokens=min(config.early_tokens, tokens // 2))
    build(out, config, log=typer.echo)
    _write_card(out)


@app.command("card")
def card(
    folder: Annotated[Path | None, typer.Argument(help="A starter folder; none: the shipped one.")] = None,
) -> None:
    """Measure every skill on held-out combinations and words; write skills.json and README.md into the folder."""
    from charter.village.tokenizer import starter_folder

    _write_card(folder or starter_folder())


def _write_card(folder: Path) -> None:
    from charter.config import ModelConfig
    from charter.models.load import load_model
    from charter.village.card import write_card

    early = folder.with_name(folder.name + "-early")
    write_card(
        folder,
        load_model(ModelConfig(source=str(folder))),
        load_model(ModelConfig(source=str(early))) if early.is_dir() else None,
    )
    typer.echo((folder / "README.md").read_text())


@app.command("prompts")
def prompts(
    held_out: Annotated[
        bool, typer.Option("--held-out", help="The evaluation prompts instead of the training ones.")
    ] = False,
    count: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """Print some of the village's prompts as JSON lines."""
    import json

    from charter.village.prompts import held_out_prompts, training_prompts

    for prompt in (held_out_prompts() if held_out else training_prompts())[:count]:
        typer.echo(json.dumps(prompt.to_json()))


@app.command("words")
def words() -> None:
    """Print the words that the starter model knows, one a line: whatever else it is told, it can't read."""
    from charter.village.tokenizer import SPECIAL_TOKENS, vocabulary

    for word in vocabulary():
        if word not in SPECIAL_TOKENS:
            typer.echo(word)
