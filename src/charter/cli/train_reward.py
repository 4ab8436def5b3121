"""``charter train-reward``: a reward model from preference data alone, beside three trivial baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.say import MAX_SEED, figure, say

BASELINES = {"longer_wins": "longer wins", "shorter_wins": "shorter wins", "bag_of_words": "bag of words"}


def train_reward(
    data: Annotated[Path, typer.Option(help="Preference pairs, in any form of docs/formats.md.")],
    model: Annotated[str, typer.Option(help="Model to start from: folder or hub id.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="Where the reward model goes.", metavar="DIR")],
    limit: Annotated[int | None, typer.Option(min=2, help="Use so many pairs, drawn by the seed.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per update.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=1e-9, max=1, help="Peak learning rate.")] = 1e-5,
    holdout: Annotated[float, typer.Option(min=0.001, max=0.9, help="Fraction of prompts held out.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of order and split.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the result.")] = False,
) -> None:
    """Train a reward model on preference data and compare it with trivial baselines. The same command resumes.

    \f
    JSON: model (folder of the reward model), summary (the content of summary.json).
    """
    from charter.config import RewardConfig
    from charter.progress import open_progress
    from charter.run_file import model_named
    from charter.stages.train_reward import train_reward_from_file

    config = RewardConfig(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, holdout_fraction=holdout)
    start = model_named(model)
    with open_progress(quiet) as progress:
        summary = train_reward_from_file(data, start, out, config=config, limit=limit, seed=seed, progress=progress)
    trained = out / "5-reward" / "model"
    if as_json:
        say(json.dumps({"model": str(trained), "summary": summary}))
        return
    for line in table(summary):
        say(line)
    say(f"reward model: {trained}")


def table(summary: dict[str, Any]) -> list[str]:
    """Held-out agreement with the labels, with 95 % intervals clustered by prompt."""
    rows = [("reward model", summary["label_agreement"])]
    rows += [(BASELINES[name], entry) for name, entry in summary["baselines"].items()]
    held_out = f"{summary['num_held_out']} held-out pairs, {summary['num_train']} trained on"
    left_out = f", {summary['num_left_out']} rows left out" if summary["num_left_out"] else ""
    too_long = f", {summary['num_too_long']} too long for the model" if summary["num_too_long"] else ""
    error = f"calibration error {summary['calibration']['ece']:.3f}"
    return [held_out + left_out + too_long, *(f"{name:<14}{figure(entry)}" for name, entry in rows), error]
