"""Principles induced from the oracle's preferences, by the starter model: given candidates, none proposed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import charter
from charter.cli.main import app
from charter.constitution.load import load_constitution
from charter.records import PreferencePair
from charter.store.jsonl import write_jsonl
from charter.village.known import known_pairs

RUN = Path(charter.__file__).parent / "village" / "run.yaml"
CANDIDATES = """\
name: some
defaults: {comparison: "by the rule {principle} which is better ?"}
principles:
  - {id: scolding, text: "scolding : do not scold or lecture ."}
  - {id: warmth, text: "warmth : one kind line is enough ."}
  - {id: insults, text: "insults : do not insult anyone ."}
  - {id: harm, text: "harm : do not help anyone to do harm ."}
"""


@pytest.fixture(scope="module")
def induced(tmp_path_factory):
    """Preferences that harm decides where it can, and insults else: what must be found again."""
    folder = tmp_path_factory.mktemp("induce")
    pairs = []
    for case in known_pairs():
        better = next((case.by_principle[name] for name in ("harm", "insults") if name in case.by_principle), None)
        if better is not None:
            pair = case.pair
            label = 1.0 if better else 0.0
            pairs.append(PreferencePair(pair.id, pair.prompt, pair.response_a, pair.response_b, label))
    write_jsonl(folder / "pairs.jsonl", pairs)
    (folder / "some.yaml").write_text(CANDIDATES)
    words = ["constitution", "induce", folder / "pairs.jsonl", "--labeler", RUN, "--candidates", folder / "some.yaml"]
    words += ["--propose", 0, "--limit", 80, "--ledger", folder / "ledger", "--out", folder / "out.yaml", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return folder, json.loads(result.output)


def test_finds_the_rules_that_made_the_labels(induced):
    folder, told = induced
    found = load_constitution(folder / "out.yaml")
    assert {"harm", "insults"} <= {principle.id for principle in found.principles}
    assert all(principle.tags[-2:] == ("draft", "induced-given") for principle in found.principles)
    assert told["num_train"] + told["num_held_out"] == 80 and told["num_held_out"] > 10
    rules = told["held_out_agreement"]
    assert rules["value"] > 0.85 and rules["n"] == told["num_held_out"]
    assert rules["value"] > told["baselines"]["longer_wins"]["value"]
    assert {row["origin"] for row in told["candidates"]} == {"given"}
