"""What judgments say about a constitution: written by hand, so that the answer is known."""

import json

import pytest
from typer.testing import CliRunner

from charter.cli.main import app
from charter.records import Abstention, Judgment, Message, Prompt, ResponsePair
from charter.store.jsonl import write_jsonl

# log-odds sign of each principle on pair number i; 0 is too weak to decide, None abstains
RULES = {
    "first": lambda i: 1 if i % 2 else -1,
    "twin": lambda i: 1 if i % 2 else -1,
    "foe": lambda i: -1 if i % 2 else 1,
    "free": lambda i: 1 if i % 3 else -1,
    "mute": lambda i: 0,
    "gone": lambda i: None,
}
NUM_PAIRS = 100
NUM_UNDECIDED = 10  # the last ones


def _judgments(number):
    for name, rule in RULES.items():
        sign = rule(number) if number < NUM_PAIRS - NUM_UNDECIDED or rule(number) is None else 0
        p_a = None if sign is None else 0.5 + 0.4 * sign + 0.01
        for order in ("ab", "ba"):
            yield Judgment(f"pair{number}", name, order, p_a, Abstention.UNREADABLE if p_a is None else None)


@pytest.fixture
def run(tmp_path):
    for name in ("3-sample", "4-label"):
        (tmp_path / name).mkdir()
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    (tmp_path / "model").mkdir()
    (tmp_path / "run.yaml").write_text(
        "name: r\nconstitution: constitution.yaml\nmodel: {source: ./model}\nprompts: {source: prompts.jsonl}\n"
        "evaluate: {prompts: {source: prompts.jsonl}}\npolicy: {steps: 5}\n"
        "label: {labeler: {model: {source: ./model}, min_log_odds: 0.5}}\n"
    )
    entries = "\n".join(f"  - {{id: {name}, text: All about {name} and only that}}" for name in RULES)
    (tmp_path / "constitution.yaml").write_text(f"name: c\nprinciples:\n{entries}\n")
    pairs = [
        ResponsePair(f"pair{i}", Prompt(f"p{i}", (Message("user", "hi"),)), "one", "two") for i in range(NUM_PAIRS)
    ]
    write_jsonl(tmp_path / "3-sample" / "pairs.jsonl", pairs)
    write_jsonl(tmp_path / "4-label" / "judgments.jsonl", [j for i in range(NUM_PAIRS) for j in _judgments(i)])
    return tmp_path


def _check(*words):
    return CliRunner().invoke(app, ["constitution", "check", *map(str, words)])


def test_the_labelers_view(run):
    result = _check("--run", run, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    found = {(row["kind"], tuple(row["principle_ids"])) for row in told["findings"]}
    assert {kind for kind in found if kind[0] not in ("wording", "near-duplicate")} == {
        ("never decides", ("mute",)),
        ("unread", ("gone",)),
        ("always agree", ("first", "twin")),
        ("oppose", ("first", "foe")),
        ("oppose", ("twin", "foe")),
    }
    heard = told["heard"]
    assert (heard["num_pairs"], heard["min_log_odds"], heard["undecided"]["value"]) == (100, 0.5, 0.1)
    decides = {row["principle"]: row["decides"]["value"] for row in heard["principles"]}
    assert decides == {"first": 0.9, "twin": 0.9, "foe": 0.9, "free": 0.9, "mute": 0.0, "gone": None}
    free = next(row["agreement"] for row in heard["agreements"] if row["principles"] == ["first", "free"])
    assert (free["value"], free["n"]) == (0.5, 90)


def test_words_and_refusals(run):
    assert "no principle decides 0.10 (0.06 to 0.17)" in _check("--run", run).output
    assert _check("--run", run, "--strict").exit_code == 1
    for words in ((), ("general", "--run", run)):
        assert "one of the two" in str(_check(*words).exception)
    (run / "4-label" / "judgments.jsonl").unlink()
    assert "no labels there yet" in str(_check("--run", run).exception)


def test_json_of_show_and_diff():
    shown = CliRunner().invoke(app, ["constitution", "show", "general", "--json"])
    assert json.loads(shown.output)["principles"][0]["critique_request"]
    changed = CliRunner().invoke(app, ["constitution", "diff", "general", "village", "--json"])
    assert {row["kind"] for row in json.loads(changed.output)["changes"]} == {"added", "removed"}
