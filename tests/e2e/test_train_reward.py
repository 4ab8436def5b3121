"""``charter train-reward`` on a file of hh-rlhf's form."""

from __future__ import annotations

import json
import random

import pytest
import typer
from typer.testing import CliRunner

from charter.cli.train_reward import train_reward


@pytest.fixture
def data(tmp_path):
    rng, path = random.Random(3), tmp_path / "pairs.jsonl"
    rows = []
    for i in range(60):
        said = f"\n\nHuman: help me {rng.choice(['open', 'lock'])} it {i} ?\n\nAssistant:"
        rows.append({"chosen": f"{said} yes please .", "rejected": f"{said} no rude ."})
    rows.append({"chosen": "\n\nHuman: x\n\nAssistant: y", "rejected": "\n\nHuman: x\n\nAssistant:"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_command(tiny_world, data, tmp_path):
    app = typer.Typer()
    app.command()(train_reward)
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--model", str(tiny_world / "helpful"), "--out", str(out), "--quiet"]
    arguments += ["--epochs", "6", "--batch-size", "8", "--learning-rate", "0.003", "--holdout", "0.2"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "12 held-out pairs, 48 trained on, 1 rows left out" in result.output
    for name in ("reward model", "longer wins", "shorter wins", "bag of words"):
        assert name in result.output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["label_agreement"]["value"] == 1.0 == summary["baselines"]["bag_of_words"]["value"]
    assert summary["baselines"]["longer_wins"]["value"] == 0.5
    before = (out / "5-reward" / "model" / "model.safetensors").stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).output == result.output
    assert (out / "5-reward" / "model" / "model.safetensors").stat().st_mtime_ns == before
