"""The plan before a run: exact where the sample is the whole, an upper bound where nothing is generated."""

import json
import sys

import pytest

from charter.cli import main as cli
from charter.plan.calibrate import Speed, time_adapters
from charter.plan.make import _seconds, against, make_plan
from charter.plan.work import StageWork
from charter.records import Message
from charter.run_file import load_run
from charter.stages.saved import loaded


@pytest.fixture
def finished(tiny_world, whole):
    return load_run(tiny_world / "run.yaml"), whole


def by_name(plan):
    return {stage["name"]: stage for stage in plan["stages"]}


def test_a_calibrated_plan_foretells_the_run(finished):
    config, folder = finished
    plan = make_plan(config, calibrate=True)
    ratios = {row["name"]: row["tokens_ratio"] for row in against(plan, folder)}
    assert list(ratios) == [stage["name"] for stage in plan["stages"]]
    # all prompts are in the sample, and each row draws from its own seed
    assert ratios["1-revise"] == 1.0
    # later stages speak with models that are yet to be trained; of a random one's answers many are cut off and left out
    assert all(0.6 < ratios[name] < 1.7 for name in ("2-sft", "2-sft-round-1", "3-sample", "4-label")), ratios
    asked = [stage for stage in plan["stages"] if stage["name"] != "4-label"]  # another model labels, and isn't timed
    assert all(stage["seconds"] is not None for stage in asked) and by_name(plan)["4-label"]["seconds_reason"]
    assert all(stage["memory_gb"] is not None for stage in plan["stages"])
    assert by_name(plan)["1-revise"]["calls"] == 12 * (1 + 2 * 2)
    assert by_name(plan)["6-policy"]["calls"] == 4 * 3 * 2
    assert by_name(plan)["7-evaluate"]["rows"] == 9 * 5  # initial, after one round, SL-CAI, one checkpoint, RL-CAI


def test_adapters_have_a_speed_of_their_own(tiny_world):
    pytest.importorskip("peft", reason="PEFT is not installed")
    speed = Speed(4, 0.0, 0.0, 1.0, per_trained_token=1.0, per_adapted_token=3.0)
    work = [
        StageWork(name, 1, "rows", {}, 0.0, trained_tokens=10.0) for name in ("2-sft-round-1", "5-reward", "6-policy")
    ]
    for setting, expected in (
        ("sft.lora={rank: 2}", [30, 10, 10]), ("reward.lora={rank: 2}", [10, 30, 10]), ("policy.lora={rank: 2}", [10, 10, 30])
    ):  # fmt: skip
        config = load_run(tiny_world / "run.yaml", (setting,))
        assert [_seconds(config, stage, speed)[0] for stage in work] == expected
    with loaded(config.model) as model:
        talk = (Message("user", "open the door ?"),)
        assert time_adapters(model, [(talk, "yes please")] * 4, config.policy.lora) > 0
    served = load_run(tiny_world / "run.yaml", ("policy.rollouts={source: 'http://localhost:1/v1#m'}",))
    assert _seconds(served, work[2], speed) == (None, "http://localhost:1/v1#m wasn't asked")


def test_without_calibration_it_is_an_upper_bound(finished):
    config, folder = finished
    plan = make_plan(config, calibrate=False)
    labelled = json.loads((folder / "4-label" / "done.json").read_text())["summary"]
    assert by_name(plan)["4-label"]["rows"] >= labelled["num_pairs"]
    assert by_name(plan)["1-revise"]["completion_tokens"] == 12 * 5 * 8
    assert all(stage["seconds"] is None and stage["seconds_reason"] for stage in plan["stages"])
    assert plan["total"]["seconds"] is None and any("upper bound" in line for line in plan["assumptions"])


def test_money_and_caps_of_a_server_that_is_never_asked(tiny_world):
    server = "http://127.0.0.1:9/v1#m"  # nobody listens there
    settings = [f"label.labeler.model={{source: '{server}', endpoint: {{price: [10, 100], max_tokens: 50}}}}"]
    plan = make_plan(load_run(tiny_world / "run.yaml", settings), calibrate=False)
    (endpoint,) = plan["endpoints"]
    controls = (
        5 * 4 * 2 * 2
    )  # five texts that answer nothing are put up against a fifth of 24 responses by both principles
    assert endpoint["calls"] == 24 * 2 * 2 + controls and by_name(plan)["4-label"]["check_calls"] == controls
    assert endpoint["money"] == pytest.approx(
        (endpoint["prompt_tokens"] * 10 + endpoint["completion_tokens"] * 100) / 1e6, rel=1e-3
    )
    assert endpoint["stops_before_the_end"] and endpoint["max_tokens"] == 50
    assert plan["total"]["money"] == pytest.approx(endpoint["money"], abs=1e-3)
    unpriced = make_plan(load_run(tiny_world / "run.yaml", [f"label.labeler.model.source={server}"]), calibrate=False)
    assert unpriced["total"]["money"] is None and not unpriced["endpoints"][0]["stops_before_the_end"]


@pytest.mark.parametrize(
    ("labeler", "calls_per_pair"),
    [
        ("{kind: plain, model: {source: labeler}}", 2),
        ("{kind: direct, model: {source: labeler}, principles: none}", 2),
        ("{kind: constitutional, model: {source: labeler}, chain_of_thought: true}", 8),
        ("{kind: constitutional, model: {source: labeler}, principles: 1, both_orders: false, votes: 3}", 3),
        ("{kind: assisted, model: {source: labeler}, critic: {source: helpful}, principles: 1}", 6),
        ("{kind: debate, model: {source: labeler}, turns: 2, principles: 1}", 10),
        ("{kind: committee, members: [{kind: plain, model: {source: labeler}}, {kind: checker, check: exact}]}", 2),
    ],
)
def test_every_kind_of_labeler_is_counted(tiny_world, labeler, calls_per_pair, monkeypatch):
    monkeypatch.chdir(tiny_world)
    config = load_run(tiny_world / "run.yaml", [f"label.labeler={labeler}", "label.check.num_controls=0"])
    assert by_name(make_plan(config, calibrate=False))["4-label"]["calls"] == 24 * calls_per_pair


def test_every_source_of_reward_is_counted(tiny_world):
    sources = f"[{{by: reward-model}}, {{by: {{kind: direct, principles: none, model: {{source: {tiny_world / 'labeler'}}}}}}}]"
    plans = [
        by_name(make_plan(load_run(tiny_world / "run.yaml", settings), calibrate=False))
        for settings in ([], [f"policy.reward={sources}", "reward.ensemble=3"])
    ]
    alone, several = plans
    assert alone.keys() == several.keys(), "the reward model is trained all the same"
    assert several["6-policy"]["calls"] == 2 * alone["6-policy"]["calls"], "each rollout is scored once"
    assert several["5-reward"]["trained_tokens"] == pytest.approx(3 * alone["5-reward"]["trained_tokens"], rel=0.01)


def test_the_command(tiny_world, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["charter", "plan", str(tiny_world / "run.yaml"), "--no-calibrate", "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code in (0, None)
    assert json.loads(capfd.readouterr().out)["name"] == "tiny"


def test_without_a_tokenizer_at_hand_tokens_are_no_upper_bound(tiny_world, monkeypatch):
    config = load_run(tiny_world / "run.yaml")
    assert make_plan(config, calibrate=False)["upper_bound"]
    monkeypatch.setattr("charter.models.load.encoder_at_hand", lambda source: None)
    plan = make_plan(config, calibrate=False)
    assert not plan["upper_bound"] and any("4 characters" in line for line in plan["assumptions"])


def test_counted_money_is_not_below_what_is_measured(tiny_world):
    server = "http://127.0.0.1:9/v1#m"
    settings = [f"label.labeler.model={{source: '{server}', endpoint: {{price: [1000, 2000]}}}}"]
    config = load_run(tiny_world / "run.yaml", settings)
    counted, measured = (make_plan(config, calibrate=calibrate)["total"]["money"] for calibrate in (False, True))
    assert counted >= measured > 0
