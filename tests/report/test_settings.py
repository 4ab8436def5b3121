"""The page's sentences follow the run's settings, and its charts the files of the run."""

import pytest
from ruamel.yaml import YAML

from charter.report.artifacts import read_run
from charter.report.page import render
from charter.report.reinforcement import reinforcement
from charter.report.settings import chain_words, labeler_words, labels_by, missing, policy_words, reward_words
from charter.store.jsonl import read_json, write_json, write_jsonl

MODEL = {"source": "/some/where/m"}
DIRECT = {"kind": "direct", "model": MODEL}
CHECK = {"kind": "checker", "check": "math"}
MIXED = [{"by": "reward-model"}, {"by": CHECK, "weight": 2.0, "domains": ["sums"]}]


@pytest.fixture
def run_with(make_run):
    """A run whose run file has other settings: ``run_with({"policy": {...}})``."""

    def changed(settings, **kwargs):
        folder = make_run(**kwargs)
        yaml = YAML(typ="safe", pure=True)
        told = yaml.load((folder / "run.yaml").read_text())
        for section, own in settings.items():
            told[section] = {**told[section], **own} if isinstance(own, dict) else own
        with (folder / "run.yaml").open("w") as file:
            yaml.dump(told, file)
        return folder

    return changed


@pytest.mark.parametrize(
    ("settings", "says", "never"),
    [
        ({}, "GRPO against the reward model, with a KL penalty of weight 0.05 (estimator k3, in the loss)", "stopped"),
        ({"policy": {"algorithm": "ppo"}}, "PPO against the reward model, with a KL penalty of weight 0.05 (estimator k1, in the reward)", "loss"),
        ({"policy": {"algorithm": "rloo", "kl_in": "reward", "kl_estimator": "k3"}}, "(estimator k3, in the reward)", "k1"),
        ({"policy": {"kl_target": 3.0}}, "begins with weight 0.05 and is steered to 3 nats", "of weight"),
        ({"policy": {"kl_coef": 0.0}}, "against the reward model, with no KL penalty", "estimator"),
        ({"policy": {"reward": CHECK}}, "against a program’s check (math)", "reward model"),
        ({"policy": {"reward": DIRECT}}, "against the scores that a frozen model (m) gives each response on its own (d-RLAIF)", "reward model"),
        ({"policy": {"reward": MIXED}}, "a mix of the reward model (weight 1), a program’s check (math) (weight 2 on sums), each normalised", "d-RLAIF"),
        ({"reward": {"ensemble": 3}}, "an ensemble of 3 reward models (their mean less 1 deviations)", "the reward model"),
        ({"engine": "trl"}, "GRPO by TRL’s trainer", "PPO"),
        ({"policy": {"initialise_from": "helpful"}}, "It starts from the helpful model.", "SL-CAI"),
        ({"policy": {"algorithm": "dpo"}}, "DPO on the labelled pairs themselves, with beta 0.1", "KL penalty"),
    ],
)  # fmt: skip
def test_what_trained_the_policy(settings, says, never, run_with):
    told = policy_words(read_run(run_with(settings)))
    assert says in told and never not in told


def test_a_run_without_gold_does_not_say_that_gold_shows_gaming(run_with):
    assert "can’t tell whether the reward is being gamed" in policy_words(read_run(run_with({}, gold=False)))


def test_why_training_stopped(run_with):
    folder = run_with({"policy": {"kl_budget": 2.5}})
    write_json(folder / "6-policy" / "done.json", {"summary": {"stopped_by": "kl_budget", "num_steps": 17}})
    assert "stopped after 17 steps: the KL budget of 2.5 nats was spent." in policy_words(read_run(folder))


@pytest.mark.parametrize(
    ("labeler", "says", "never"),
    [
        ({}, "better by every principle, in both orders. Its probabilities of the two options are the soft labels", "hard"),
        ({"kind": "plain"}, "which of two responses is better, with no principle named", "by every principle"),
        ({"votes": 5}, "The share of 5 sampled verdicts is the soft labels", "probabilities"),
    ],
)  # fmt: skip
def test_who_labelled(labeler, says, never, run_with):
    told = labeler_words(read_run(run_with({"label": {"labeler": {"model": MODEL, **labeler}}})))
    assert says in told and never not in told


def test_a_reward_without_labels_claims_no_labels(run_with):
    run = read_run(run_with({"policy": {"reward": CHECK}}))
    assert labels_by(run) == "No pairs were labelled: the reward is a program’s check (math)."
    assert missing(run, "5-reward", "rl").startswith("not part of this run: its reward is a program’s check (math)")
    assert chain_words(run).startswith("True goal → reward → policy")


def test_chains_and_trainers(run_with):
    people = read_run(run_with({"label": {"labeler": {"kind": "human", "labels": "x.jsonl"}}, "engine": "trl"}))
    assert chain_words(people).startswith("True goal → labels → reward model → policy")
    assert "the likelier side of each label" in reward_words(people) and "people’s choices" in labels_by(people)


def test_warnings_sources_and_spread_are_shown(run_with):
    folder = run_with({"policy": {"reward": MIXED}})
    alarm = {"name": "refusals", "step": 12, "value": 0.9, "text": "more responses decline <b>: refusal_rate 0.9"}
    write_jsonl(folder / "6-policy" / "warnings.jsonl", [alarm])
    summary = read_json(folder / "summary.json")
    for row in summary["curves"]["rl"]:
        row |= {"reward_spread": 0.4, "refusal_rate": 0.5, "over_refusal_rate": 0.1, "num_without_reward": 1}
        check = {"mean": 0.75, "std": 0.1, "num": 32, "abstained": {"no_answer_key": 3}}
        row["sources"] = {"reward model": {"mean": 2.0, "std": 1.0, "num": 96, "abstained": {}}, "math": check}
    write_json(folder / "summary.json", summary)
    html = render(read_run(folder))
    assert "step 12: more responses decline &lt;b&gt;: refusal_rate 0.9" in html and "warned once" in html
    assert "Source: reward model" in html and "Source: math" in html and "Spread of the ensemble" in html
    charts = {chart.title: chart.caption for chart in reinforcement(read_run(folder))}
    num_steps = len(summary["curves"]["rl"])
    assert f"{32 * num_steps:,} scores, 25 % of all; abstained: no answer key {3 * num_steps}" in charts["Source: math"]
    assert f"{num_steps} rollouts got no reward" in charts["Reward"]
    assert "marked harmless" in charts["Refusals"]


def test_no_warning_is_said_only_where_somebody_watched(run_with):
    folder = run_with({})
    assert "gave no warning" not in render(read_run(folder))
    write_json(folder / "6-policy" / "done.json", {"summary": {"warnings": [], "stopped_by": "steps"}})
    assert "The monitors gave no warning." in render(read_run(folder))


def test_a_judges_holdout_is_shown_and_golds_is_not(run_with):
    folder = run_with({})
    rows = [
        {"step": s, "num": 4, "reward": [1] * 4, "holdout": [0.5, 1, 0.75, 1], "reader": "judge-x"} for s in (10, 20)
    ]
    write_jsonl(folder / "6-policy" / "holdout.jsonl", rows)
    assert "as judge-x reads them" in render(read_run(folder))
    write_jsonl(folder / "6-policy" / "holdout.jsonl", [{**row, "reader": "made-up oracle"} for row in rows])
    assert "Holdout judge" not in render(read_run(folder))


def test_trl_measures_kl_by_k3_and_the_page_says_so(run_with):
    folder = run_with({"engine": "trl"})
    summary = read_json(folder / "summary.json")
    for row in summary["curves"]["rl"]:
        row |= {"kl_k3": row["kl_k1"], "kl_k1": None}
    write_json(folder / "summary.json", summary)
    charts = {chart.title: chart for chart in reinforcement(read_run(folder))}
    assert (
        "estimator k3" in charts["KL to the reference"].caption and "not known" not in charts["KL to the reference"].svg
    )
