"""What a link does where it is clear, on one side, in another look; silence; rows, replies and KL that don't fit."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import charter.village
from charter.audit.blame import charge_upstream, verdict
from charter.audit.clear import errs_where_clear
from charter.audit.drivers import worth_naming
from charter.audit.evidence import read_evidence
from charter.audit.figures import LABELER, POLICY, RECORD, REWARD_MODEL, Finding
from charter.audit.kl import check_kl
from charter.audit.labels import audit_labels
from charter.audit.looks import CAPITALS, DIGITS, ECHOED, LINES, MARKS, REPEATED, UNUSUAL, look_features
from charter.audit.policy import audit_policy, curve_of
from charter.audit.reward_model import audit_reward_model
from charter.audit.rows import check_rows
from charter.audit.sameness import audit_sameness
from charter.audit.silence import audit_silence
from charter.records import Estimate, Prompt

VILLAGE = Path(charter.village.__file__).parent


@pytest.fixture
def small(planted):
    def draw(seed):
        world = planted.draw_world(seed)
        world.num_prompts, world.pairs = 60, world.pairs[:500]
        return world

    return draw


def test_looks_are_counted_as_they_stand():
    found = look_features(["where is the lamp ?"], ["The lamp\nIs **here** 42 . here"], ["x"])
    told = dict(zip(found.names, found.values_PF[0].tolist(), strict=True))
    assert (told[CAPITALS], told[LINES], told[DIGITS], told[MARKS]) == (2.0, 1.0, 2.0, 2.0)
    assert told[ECHOED] == 3.0, "the, lamp, is"
    assert told[REPEATED] == 4.0, "three more asterisks... and here again"
    assert told[UNUSUAL] == 0.0, "seven words and one are as far from the median of the two"


def test_labels_turned_at_random_err_where_noise_does_not(small, read):
    world = small(41)
    world.relabel = lambda pair, total: -total if world.rng.random() < 0.15 else total
    _, findings = audit_labels(read(world))
    (fault,) = [f for f in findings if f.kind == "errs_where_clear"]
    assert fault.link == LABELER and fault.size.low <= 0.15 <= fault.size.high


def test_rewards_turned_at_random_err_where_noise_does_not(small, read):
    world = small(42)
    world.learned = lambda pair: (
        4.0 * np.sign(sum(w * _told(pair, id) for id, w in world.weights.items())) * _coin(world)
    )
    _, findings = audit_reward_model(read(world).pairs)
    assert [f.link for f in findings if f.kind == "errs_where_clear"] == [REWARD_MODEL]


def _told(pair, id):
    import worlds

    return worlds.difference(pair, id)


def _coin(world):
    return -1.0 if world.rng.random() < 0.25 else 1.0


@pytest.mark.parametrize("hard", [False, True])
def test_noise_alone_does_not_err_where_it_is_clear(small, read, hard):
    world = small(43)
    world.hard, world.noise = hard, 0.5
    pairs = read(world).pairs
    assert errs_where_clear(LABELER, pairs.label_P, pairs.constitution_P, pairs, 0.01) == []
    known_P = ~np.isnan(pairs.margin_P)
    held_out = pairs.rows(known_P)
    assert errs_where_clear(REWARD_MODEL, held_out.margin_P, held_out.label_P, held_out, 0.01) == []


def test_a_lean_to_one_side_has_its_size(small, read):
    world = small(44)
    world.relabel = lambda pair, total: total - 4.0
    _, findings = audit_labels(read(world))
    (fault,) = [f for f in findings if f.what == "side A"]
    assert fault.size.low <= -4.0 <= fault.size.high and fault.cost > 0.05 and "response B" in fault.says


def test_a_file_whose_a_is_always_the_chosen_one_leans_to_no_side(small, read):
    world = small(45)
    better = lambda pair: sum(w * _told(pair, id) for id, w in world.weights.items())  # noqa: E731
    world.pairs = [
        pair if better(pair) >= 0 else dataclasses.replace(pair, response_a=pair.response_b, response_b=pair.response_a)
        for pair in world.pairs
        if better(pair)
    ]
    world.relabel = lambda pair, total: abs(total)
    assert not [f for f in audit_labels(read(world))[1] if f.what == "side A"]


def test_silence_on_what_one_principle_tells_apart(small, read):
    world = small(46)
    world.silent = lambda pair: _told(pair, "insults") != 0
    evidence = read(world)
    told, (fault,) = audit_silence(evidence, 0.01)
    assert (fault.what, fault.size.value) == ("insults", 1.0) and fault.cost > 0.05
    assert told["insults"]["value"] == 1.0 and told["harm"]["value"] < 0.9


def test_no_silence_where_every_pair_has_a_label(clean_run):
    told, faults = audit_silence(read_evidence(clean_run), 0.01)
    assert faults == [] and {row["value"] for row in told.values()} == {0.0}


def test_one_reply_to_everything(small, read):
    world = small(47)
    world.says = lambda policy, prompt, text: "of course ." if policy == "rl-cai" else text
    told, (fault,) = audit_sameness(curve_of(read(world), None))
    assert fault.link == POLICY and told["after"]["value"] == 1.0 and told["before"]["value"] < 0.2


def test_different_replies_are_no_collapse(clean_run):
    assert audit_sameness(curve_of(read_evidence(clean_run), None))[1] == []


def test_rows_with_responses_exchanged_or_changed(small, read, tmp_path):
    evidence = read(small(48))
    assert check_rows(evidence) == []
    path = tmp_path / "run" / "4-label" / "preferences.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:7]:
        row["response_a"], row["response_b"] = row["response_b"], row["response_a"]
    rows[9]["response_a"] = "something else ."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (fault,) = check_rows(evidence)
    assert (fault.link, fault.of_link) == (RECORD, LABELER) and fault.size.value == pytest.approx(8 / 500)
    assert "7 have A and B exchanged and 1 hold other texts" in fault.says


def test_a_held_out_label_that_is_not_the_written_one(small, read, tmp_path):
    evidence = read(small(49))
    path = tmp_path / "run" / "5-reward" / "held_out.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["p_a"] = 1 - rows[0]["p_a"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (fault,) = check_rows(evidence)
    assert (fault.link, fault.of_link, fault.what) == (RECORD, REWARD_MODEL, "5-reward/held_out.jsonl")


def test_the_same_prompt_under_another_id_is_the_same_prompt(small, read):
    world = small(50)
    world.pairs = [
        dataclasses.replace(
            pair, id=f"{pair.id}-{i}", prompt=dataclasses.replace(pair.prompt, id=f"{pair.prompt.id}-{i}")
        )
        for pair in world.pairs[:40]
        for i in range(2)
    ]
    pairs = read(world).pairs
    assert (
        len(pairs.pairs) == 80 and pairs.index_P.max() + 1 == len({pair.prompt.messages for pair in pairs.pairs}) <= 40
    )


def test_a_fall_that_a_pull_explains_is_laid_where_the_pull_came_in(small, read):
    world = small(51)
    world.num_prompts, world.rude_from = 200, {"rl-step-30": 0.5, "rl-cai": 0.9}
    evidence = read(world)
    curve = curve_of(evidence, None)
    _, (fallen,) = audit_policy(evidence, curve, "no reward")
    pull = Finding(
        REWARD_MODEL, "follows", "rude", Estimate(2.0, 1.8, 2.2, 300), "nats", 0.0, 0.02, "rewards speak for rude"
    )
    charged = charge_upstream([pull, fallen], evidence, curve)
    assert verdict(charged, True, 300)["link"] == REWARD_MODEL
    other = dataclasses.replace(pull, what="“notes”")
    assert verdict(charge_upstream([other, fallen], evidence, curve), True, 300)["link"] == POLICY


def test_kl_without_saved_policies_is_not_known(clean_run):
    evidence = read_evidence(clean_run)
    same, told, faults = check_kl(evidence)
    assert same is evidence and told["value"] is None and "saved" in told["reason"] and faults == []


def test_a_cause_is_named_before_the_whole_loss_that_it_explains():
    def finding(kind, cost):
        return Finding(LABELER, kind, kind, Estimate(cost, cost, cost, 100), "", 0.0, cost, kind)

    assert verdict([finding("unreliable", 0.2), finding("misread", 0.12)], True, 300)["kind"] == "misread"
    assert verdict([finding("unreliable", 0.2), finding("misread", 0.05)], True, 300)["kind"] == "unreliable"


def test_a_pull_that_few_pairs_have_is_named_where_it_turns_many_of_them():
    verdict_P = np.full(1000, 2.0)
    part_P = np.where(np.arange(1000) < 30, 3.0, 0.0)
    verdict_P[4:30] = 9.0
    assert worth_naming(verdict_P, part_P), "4 of 30"
    assert not worth_naming(np.full(1000, 2.0), np.full(1000, 0.01)), "every pair has it, and no verdict turns"
    verdict_P[2:4] = 9.0
    assert not worth_naming(verdict_P, part_P), "two verdicts may be chance"


@pytest.fixture(scope="module")
def run_with_models(planted, tmp_path_factory):
    """A run whose SL-CAI is the starter and whose policy is the early one, with KL as the evaluation computes it."""
    from charter.config import ModelConfig
    from charter.models.load import load_model
    from charter.stages.kl import Spoken, kl_per_response

    folder = tmp_path_factory.mktemp("kl") / "run"
    world = planted.draw_world(52)
    world.num_prompts, world.pairs = 24, world.pairs[:40]
    planted.write(world, folder)
    places = {"2-sft": "starter", "6-policy": "starter-early"}
    for stage, name in places.items():
        shutil.copytree(VILLAGE / name, folder / stage / "model", dirs_exist_ok=True)
    path = folder / "7-evaluate" / "rl-cai.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["truncated"] = True
    said = [Spoken(Prompt.from_json(r["prompt"]).messages, r["response"], r["truncated"]) for r in rows]
    policy, reference = (load_model(ModelConfig(source=str(folder / s / "model"))) for s in ("6-policy", "2-sft"))
    for row, (k1, _) in zip(rows, kl_per_response(policy, reference, said), strict=True):
        row["kl_k1"] = k1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_kl_is_computed_again_from_the_saved_models(run_with_models):
    evidence = read_evidence(run_with_models)
    same, told, faults = check_kl(evidence)
    assert (told["value"], told["n"], faults) == (0.0, 24, [])
    rows = list(evidence.policies["rl-cai"])
    forged = [dataclasses.replace(row, kl_k1=row.kl_k1 + 1.0) for row in rows[:3]] + rows[3:]
    told_otherwise = dataclasses.replace(evidence, policies={**evidence.policies, "rl-cai": forged})
    mended, told, (fault,) = check_kl(told_otherwise)
    assert (fault.link, fault.of_link, told["value"]) == (RECORD, POLICY, 3 / 24) and "rl-cai.jsonl" in fault.says
    assert [row.kl_k1 for row in mended.policies["rl-cai"]] == pytest.approx([row.kl_k1 for row in rows], abs=0.02)
