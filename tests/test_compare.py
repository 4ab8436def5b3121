"""Methods side by side: figures, paired differences and Elo that can be checked by hand."""

import json

import numpy as np
import pytest

from charter.cli.compare import table
from charter.cli.main import main
from charter.compare import ELO, _bradley_terry, compare, parse_methods
from charter.errors import ConfigError, DataError
from charter.records import EvaluatedResponse, Message, Prompt, Reading
from charter.report.compare_page import write_comparison
from charter.store.jsonl import write_json, write_jsonl


def make_run(folder, gold_of, seed=0, prompts=range(40), name="oracle"):
    (folder / "7-evaluate").mkdir(parents=True)
    rows = [
        EvaluatedResponse(
            "rl-cai", Prompt(f"p{i}", (Message("user", "?"),), harmful=bool(i % 2)), f"<script>alert({i})</script>",
            Reading(harmful=gold_of(i) < 0, refused=False, correct=gold_of(i) > 0, gold=gold_of(i)), 1, 1, False, 0.5, 0.5,
        )
        for i in prompts
    ]  # fmt: skip
    write_jsonl(folder / "7-evaluate" / "rl-cai.jsonl", rows)
    gold = {"name": name, "simulated": True}
    stages = [{"name": "4-label", "wall_seconds": 3.0, "num_tokens": 700}]
    write_json(folder / "summary.json", {"seed": seed, "phases": ["sl", "rl"], "gold": gold, "policies": {}, "stages": stages,
                                         "counts": {"4-label": {"num_labels": 7}}})  # fmt: skip
    return folder


@pytest.fixture
def runs(tmp_path):
    good = make_run(tmp_path / "good", lambda i: 1.0 if i % 4 else -1.0)
    bad = make_run(tmp_path / "bad", lambda i: 0.5 if i % 4 else -1.0)
    return good, bad


def test_figures_and_paired_differences(runs):
    good, bad = runs
    first, second = compare(parse_methods([f"a={good}", f"b={bad}"]))["methods"]
    assert first["figures"]["gold"]["value"] == pytest.approx(0.5)
    assert second["gold_against_first"]["value"] == pytest.approx(-0.375)
    assert second["gold_against_first"]["high"] < 0 and first["gold_against_first"]["value"] is None
    assert first["labels"] == {"num_labels": 7.0, "tokens": 700.0, "seconds": 3.0, "num_scores": 0.0}
    assert first["elo"]["value"] > second["elo"]["value"] and first["chain"]["lost"]["value"] is None


def test_seeds_of_a_method_are_paired_with_the_same_seeds(tmp_path):
    arguments = []
    for seed in (0, 1):
        prompts = range(20 * seed, 20 * seed + 20)
        arguments.append(f"a={make_run(tmp_path / f'a{seed}', lambda i: 1.0, seed, prompts)}")
        arguments.append(f"b={make_run(tmp_path / f'b{seed}', lambda i, seed=seed: 1.0 - seed, seed, prompts)}")
    found = compare(parse_methods(arguments))
    assert found["num_prompts"] == 40 and found["methods"][1]["num_runs"] == 2
    assert found["methods"][1]["gold_against_first"]["value"] == pytest.approx(-0.5)


def test_bradley_terry_knows_odds_of_three_to_one():
    elo = _bradley_terry(np.array([[0.0, 3e6], [1e6, 0.0]]))
    assert elo[0] - elo[1] == pytest.approx(ELO * np.log(3), rel=1e-4)


def test_equal_methods_are_equal(runs):
    first, second = compare(parse_methods([f"a={runs[0]}", f"b={runs[0]}"]))["methods"]
    assert first["elo"]["value"] == pytest.approx(0, abs=1e-6) == second["elo"]["value"]
    assert second["gold_against_first"]["low"] <= 0 <= second["gold_against_first"]["high"]


@pytest.mark.parametrize("arguments, said", [(["x"], "at least two"), (["=x", "y"], "write NAME=RUN")])
def test_bad_arguments(arguments, said):
    with pytest.raises(ConfigError, match=said):
        parse_methods(arguments)


def test_other_golds_and_missing_runs(runs, tmp_path):
    with pytest.raises(DataError, match="no finished run"):
        compare(parse_methods([str(runs[0]), str(tmp_path / "nothing")]))
    other = make_run(tmp_path / "other", lambda i: 1.0, name="another")
    with pytest.raises(DataError, match="different golds"):
        compare(parse_methods([str(runs[0]), str(other)]))
    with pytest.raises(DataError, match="there are: rl-cai"):
        compare(parse_methods([str(runs[0]), f"{runs[1]}:sl-cai"]))


def test_command_page_and_hostile_names(runs, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    monkeypatch.setattr(
        "sys.argv", ["charter", "compare", f"<script>alert(1)</script>={runs[0]}", f"b={runs[1]}", "--out", str(page)]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and "gold against the first" in capsys.readouterr().out
    html = page.read_text()
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert json.loads(page.with_suffix(".json").read_text())["num_prompts"] == 40


def test_each_method_shows_its_own_chain(runs, tmp_path):
    """Three links for labels of people, four for a constitution; runs of one method are averaged."""

    def audit(folder, links, shift=0.0):
        rows = [
            {"link": link, "agreement": {"value": value + shift, "low": None, "high": None, "n": 9, "reason": None},
             "loss": {"value": 0.1, "low": 0.0, "high": 0.2, "n": 9, "reason": None}}
            for link, value in links
        ]  # fmt: skip
        (folder / "8-audit").mkdir()
        chain = {"links": rows, "reason": None}
        write_json(folder / "8-audit" / "audit.json", {"waterfall": {"links": rows}, "chain": chain, "policy": {}})

    more = make_run(tmp_path / "more", lambda i: 1.0, seed=1)
    people = [("goal_to_labels", 0.9), ("labeler_to_reward_model", 0.8), ("reward_model_to_policy", 0.7)]
    audit(runs[0], people)
    audit(more, people, shift=-0.2)
    audit(runs[1], [("goal_to_constitution", 0.95), ("constitution_to_labeler", 0.9), *people[1:]])
    found = compare(parse_methods([f"RLHF={runs[0]}", f"RLHF={more}", f"CAI={runs[1]}"]))
    first, second = (method["chain"]["links"] for method in found["methods"])
    assert [row["link"] for row in first] == [link for link, _ in people]
    assert [row["agreement"]["value"] for row in first] == pytest.approx([0.8, 0.7, 0.6])
    assert len(second) == 4 and second[0]["loss"]["high"] == 0.2  # of one run: its own interval
    page = tmp_path / "compare.html"
    write_comparison(found, page)
    text = page.read_text()
    assert "RLHF: 3 links" in text and "goal → labels" in text and "CAI: 4 links" in text


def test_wins_by_a_judge_stand_in_the_table(runs, tmp_path):
    for folder, p in ((runs[0], 0.9), (runs[1], 0.2)):
        summary = json.loads((folder / "summary.json").read_text())
        wins = {"judge": "/models/judge-x", "policy": "rl-cai", "against": {}}
        write_json(folder / "summary.json", {**summary, "wins": wins})
        rows = [{"prompt_id": f"p{i}", "p_better": None if i == 3 else 0.5 if i % 4 == 0 else p} for i in range(40)]
        write_jsonl(folder / "7-evaluate" / "wins" / "sl-cai.jsonl", rows)
    found = compare(parse_methods([f"a={runs[0]}", f"b={runs[1]}"]))
    first, second = (method["wins"]["rate"] for method in found["methods"])
    assert (
        first["value"] == pytest.approx((29 + 5) / 39) and second["value"] == pytest.approx(5 / 39) and first["n"] == 39
    )
    assert "wins against SL-CAI by judge-x" in table(found)[1]
    page = tmp_path / "compare.html"
    write_comparison(found, page)
    assert "wins against SL-CAI, by judge-x" in page.read_text()


def test_scores_in_training_are_counted_and_their_cost_is_not_called_zero(runs):
    told = {"reward model": {"num": 5}, "starter": {"num": 128}}
    write_jsonl(runs[1] / "6-policy" / "metrics.jsonl", [{"step": i, "sources": told} for i in (1, 2)] + [{"step": 3}])
    found = compare(parse_methods([f"a={runs[0]}", f"b={runs[1]}"]))
    first, second = (method["labels"] for method in found["methods"])
    assert first["num_scores"] == 0 and second["num_scores"] == 256
    assert second["tokens"] is None and second["num_labels"] == 7
    line = next(line for line in reversed(table(found)) if line.startswith("b "))
    assert line.split()[:5] == ["b", "7", "-", "-", "256"]
