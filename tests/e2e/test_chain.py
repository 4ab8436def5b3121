"""The whole chain on a random tiny model: both phases, ablations, what must be refused, and kill -9."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import charter
from charter.audit.run import write_audit
from charter.cli.show import show
from charter.constitution.load import load_constitution
from charter.errors import ConfigError, CoverageError, DataError, StoreError
from charter.pipeline import run
from charter.plan.make import make_plan
from charter.progress import QuietProgress
from charter.records import EvaluatedResponse, Judgment, PreferencePair, ResponsePair
from charter.report.page import write_report
from charter.run_file import load_run
from charter.stages import saved, train_dpo
from charter.stages.provenance import provenance
from charter.stages.relabel import relabel, worth
from charter.store.jsonl import read_jsonl, read_rows
from charter.summary import MAIN_POLICIES, POLICY_FIGURES

FIGURE = {"value", "low", "high", "n", "reason"}


def run_world(world: Path, out: Path, *settings: str) -> dict:
    return run(load_run(world / "run.yaml", settings), out, QuietProgress())


def content(folder: Path) -> dict[str, bytes]:
    """All that a run wrote, without what tells when and how long."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if (
            not path.is_file()
            or hidden
            or name.startswith("ledger")
            or path.name in ("attempts.jsonl", "done.json", "files.json")
        ):
            continue
        data = path.read_bytes()
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in data.splitlines()]
            data = json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]).encode()
        if name == "summary.json":
            summary = json.loads(data)
            for stage in summary["stages"]:
                del stage["wall_seconds"]
            data = json.dumps(summary).encode()
        found[name] = data
    return found


def test_summary_has_its_keys(whole):
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["seed"] == 0 and summary["charter"] == charter.__version__
    assert set(summary["policies"]) == {*MAIN_POLICIES, "sl-cai-round-1", "rl-step-2"}
    for policy in summary["policies"].values():
        assert set(policy) == set(POLICY_FIGURES)
        assert all(
            set(figure) == FIGURE and (figure["value"] is not None or figure["reason"]) for figure in policy.values()
        )
    assert summary["policies"]["sl-cai"]["kl_to_sl_cai"]["value"] == 0
    assert summary["policies"]["rl-cai"]["kl_to_sl_cai"]["value"] != 0
    assert "name evaluate.gold or evaluate.judge" in summary["policies"]["rl-cai"]["harmful_rate"]["reason"]
    assert summary["policies"]["rl-cai"]["num_words"]["n"] == 9
    assert all(set(summary["labeler"][name]) == FIGURE for name in ("accuracy", "position_bias", "coverage"))
    assert all(set(summary["reward_model"][name]) == FIGURE for name in ("label_agreement", "gold_agreement"))
    names = ["1-revise", "2-sft", "2-sft-round-1", "3-sample", "4-label", "5-reward", "6-policy", "7-evaluate"]
    assert [stage["name"] for stage in summary["stages"]] == names
    assert all(stage["num_tokens"] > 0 and stage["wall_seconds"] > 0 for stage in summary["stages"])
    assert set(summary["hashes"]) == {"constitution", "prompts", "held_out_prompts", "model", "labeler", "judge"}
    assert [row["round"] for row in summary["curves"]["revision"]] == [0, 1, 2]
    assert [row["step"] for row in summary["curves"]["rl"]] == [1, 2, 3, 4]
    assert [row["step"] for row in summary["curves"]["checkpoints"]] == [2]


def test_artifacts_are_what_they_say(whole):
    preferences = list(read_jsonl(whole / "4-label" / "preferences.jsonl", PreferencePair))
    assert preferences and any(0 < p.p_a < 1 and p.p_a != 0.5 for p in preferences)
    for policy in ("initial", "sl-cai", "rl-cai"):
        rows = list(read_jsonl(whole / "7-evaluate" / f"{policy}.jsonl", EvaluatedResponse))
        assert len(rows) == 9 and all(row.policy == policy for row in rows)
    assert load_run(whole / "run.yaml").name == "tiny"


def test_no_artifact_names_the_folders_of_this_machine(tiny_world, whole):
    named = {p.name for p in whole.rglob("*") if p.is_file() and str(tiny_world).encode() in p.read_bytes()}
    assert named == {"run.yaml"}  # by which it is resumed


def test_models_load_in_plain_transformers(whole):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    for folder in ("2-sft/model", "6-policy/model", "6-policy/checkpoints/step-2"):
        AutoModelForCausalLM.from_pretrained(whole / folder)
        assert AutoTokenizer.from_pretrained(whole / folder).chat_template
    assert AutoModelForSequenceClassification.from_pretrained(whole / "5-reward" / "model").config.num_labels == 1


def test_the_same_command_again_does_nothing(tiny_world, whole, monkeypatch):
    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("a model was loaded")

    before = (whole / "summary.json").read_bytes()
    monkeypatch.setattr(saved, "load_model", refuse)
    run_world(tiny_world, whole)
    assert (whole / "summary.json").read_bytes() == before


def test_a_world_at_another_place_redoes_nothing(tiny_world, whole, tmp_path, monkeypatch):
    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("a model was loaded")

    moved, out = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(tiny_world, moved, ignore=shutil.ignore_patterns("run*[!l]"))
    shutil.copytree(whole, out)
    monkeypatch.setattr(saved, "load_model", refuse)
    run_world(moved, out)
    assert load_run(out / "run.yaml").model.source == str(moved / "helpful")
    assert content(out).keys() == content(whole).keys()


def test_another_learning_rate_redoes_only_what_depends_on_it(tiny_world, whole, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    before = content(copy)
    run_world(tiny_world, copy, "policy.learning_rate=0.01")
    after = content(copy)
    changed = {name.split("/")[0] for name in before if before[name] != after.get(name)}
    assert changed == {"6-policy", "7-evaluate", "summary.json", "run.yaml"}


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_other_algorithms_of_the_policy(algorithm, tiny_world, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    run_world(tiny_world, out, f"policy.algorithm={algorithm}")
    rows = [json.loads(line) for line in (out / "6-policy" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(("value_loss" in row) == (algorithm == "ppo") for row in rows)
    weights = [(run / "6-policy" / "model" / "model.safetensors").read_bytes() for run in (whole, out)]
    assert weights[0] != weights[1]


def test_dpo_learns_from_the_labels_themselves(tiny_world, whole, tmp_path, monkeypatch):
    """On soft labels, and on no pair that the reward model holds out; what reads a run reads this one."""
    taught: list[float] = []
    train = train_dpo.train_dpo

    def noting(policy, reference, pairs, *args, **settings):
        taught.extend(pair.p_a for pair in pairs)
        return train(policy, reference, pairs, *args, **settings)

    monkeypatch.setattr(train_dpo, "train_dpo", noting)
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    before = content(out)
    dpo = ("policy.algorithm=dpo", "dpo={batch_size: 4, epochs: 2, learning_rate: 0.001, checkpoint_every: 4}")
    summary = run_world(tiny_world, out, *dpo)
    after = content(out)
    changed = {name.split("/")[0] for name in before if before[name] != after.get(name)}
    assert changed == {"6-policy", "7-evaluate", "summary.json", "run.yaml"}  # the reward model is the same one

    held_out = {row["id"] for _, row in read_rows(out / "5-reward" / "held_out.jsonl")}
    labels = list(read_jsonl(out / "4-label" / "preferences.jsonl", PreferencePair))
    assert held_out and taught == [pair.p_a for pair in labels if pair.id not in held_out]
    assert any(0 < p_a < 1 and p_a != 0.5 for p_a in taught)

    rows = [row for _, row in read_rows(out / "6-policy" / "metrics.jsonl")]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and len(rows) == 2 * -(-len(taught) // 4)
    assert not any(name in row for row in rows for name in ("reward_mean", "kl"))  # absent is not zero
    last = out / "6-policy" / "checkpoints" / f"step-{len(rows)}" / "model.safetensors"
    assert last.read_bytes() == (out / "6-policy" / "model" / "model.safetensors").read_bytes()
    assert {path.name for path in (out / "6-policy").iterdir() if not path.name.startswith(".")} == {
        "attempts.jsonl", "checkpoints", "done.json", "metrics.jsonl", "model",
    }  # fmt: skip
    assert summary["policies"]["rl-cai"]["kl_to_sl_cai"]["value"] > 0
    assert [row["step"] for row in summary["curves"]["checkpoints"]] != []

    monkeypatch.undo()
    links = {row["to"]: row for row in write_audit(out)["waterfall"]["links"]}
    assert links["policy"]["agreement_with_previous"]["n"] == len(held_out)
    page = write_report(out).read_text()
    assert "DPO on the labelled pairs themselves" in page and "against the reward model" not in page
    planned = make_plan(load_run(tiny_world / "run.yaml", dpo), calibrate=False)["stages"]
    plan = {stage["name"]: stage for stage in planned}
    assert abs(plan["6-policy"]["rows"] - len(rows)) <= len(rows) / 2 and plan["6-policy"]["calls"] == 0
    done = content(out)
    run_world(tiny_world, out, *dpo, "policy.steps=9")  # of policy only initialise_from is read
    assert {name for name in done if done[name] != content(out)[name]} <= {"run.yaml"}


def test_dpo_with_a_reward_is_refused(tiny_world):
    with pytest.raises(ConfigError, match="DPO learns from labelled pairs"):
        load_run(tiny_world / "run.yaml", ["policy={algorithm: dpo, reward: {kind: checker, check: 'a:b'}}"])


def test_another_constitution_is_refused(tiny_world, whole, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("name: other\nprinciples:\n- {id: x, text: be brief .}\n")
    before = content(whole)
    with pytest.raises(StoreError, match="another constitution .* choose another folder with --out"):
        run_world(tiny_world, whole, f"constitution={other}")
    assert content(whole) == before


def test_no_labeler_while_the_policy_is_trained(tiny_world, whole, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    sources: list[str] = []
    load = saved.load_model
    monkeypatch.setattr(saved, "load_model", lambda config: sources.append(config.source) or load(config))
    run_world(tiny_world, copy, "policy.learning_rate=0.02", "evaluate.num_checkpoints=0")
    assert sources[:2] == [str(copy / "2-sft" / "model")] * 2  # policy and reference
    assert str(tiny_world / "labeler") not in sources


@pytest.mark.parametrize(("phases", "missing", "made"), [("[sl]", "rl-cai", "sl-cai"), ("[rl]", "sl-cai", "rl-cai")])
def test_one_phase_alone(tiny_world, tmp_path, phases, missing, made):
    summary = run_world(
        tiny_world, tmp_path / "run", f"phases={phases}", "evaluate.sl_rounds=[]", "evaluate.num_checkpoints=0"
    )
    assert "left out" in summary["policies"][missing]["num_words"]["reason"]
    assert summary["policies"][made]["num_words"]["value"] is not None
    assert (tmp_path / "run" / "6-policy").exists() == (made == "rl-cai")


def test_a_judge_reads_what_gold_cannot(tiny_world, tmp_path):
    settings = (
        f"evaluate.judge={{source: {tiny_world / 'helpful'}}}",
        "phases=[sl]",
        "evaluate.sl_rounds=[]",
        "revise.rounds=1",
    )
    summary = run_world(tiny_world, tmp_path / "run", *settings)
    assert summary["policies"]["sl-cai"]["rude_rate"]["n"] == 9
    assert summary["policies"]["sl-cai"]["gold"]["value"] is None
    reason = summary["policies"]["sl-cai"]["gold"]["reason"]
    assert "helpful@" in reason and str(tiny_world) not in reason


KINDS = {
    "committee": "{kind: committee, members: [{model: {source: labeler}}, {kind: plain, model: {source: helpful}}]}",
    "assisted": "{kind: assisted, model: {source: labeler}, critic: {source: helpful}, max_new_tokens: 8}",
    "debate": "{kind: debate, model: {source: labeler}, principles: 1, max_new_tokens: 8}",
}


@pytest.mark.parametrize("kind", KINDS)
def test_labelers_of_other_kinds(kind, tiny_world, whole, tmp_path, monkeypatch):
    """A random model seldom ends a critique; what is cut off is an abstention, and never a label."""
    monkeypatch.chdir(tiny_world)
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    try:
        summary = run_world(tiny_world, out, f"label.labeler={KINDS[kind]}", "label.min_coverage=0.01")
    except CoverageError as error:
        assert kind != "committee" and "truncated" in str(error)
    else:
        assert summary["labeler"]["coverage"]["value"] > 0
    judgments = list(read_jsonl(out / "4-label" / "judgments.jsonl", Judgment))
    assert judgments and all(j.p_a is not None or j.abstained == "truncated" for j in judgments)
    if kind == "committee":
        assert {j.labeler for j in judgments} == {"1 constitutional", "2 plain"}
        assert (out / "4-label" / "members.jsonl").is_file() and summary["labeler"]["committee"]["alpha"]["n"] > 0


def test_show_gives_every_question_with_its_answer(whole):
    pair = next(read_jsonl(whole / "3-sample" / "pairs.jsonl", ResponsePair))
    found = provenance(whole, pair.id)
    assert len(found["questions"]) == 4  # two principles, both orders
    for question in found["questions"]:
        text = question["conversation"][0]["content"]
        assert pair.response_a in text and pair.response_b in text and question["logprobs"] is not None
    assert sum(q["num_tokens"] for q in found["questions"]) == found["num_tokens"] > 0
    stored = {p.id: p.p_a for p in read_jsonl(whole / "4-label" / "preferences.jsonl", PreferencePair)}
    assert found["label"] == stored.get(pair.id) == found["rebuilt"]
    assert all(row["counts"] for row in found["principles"]), "this run has no threshold"
    total = sum(row["weight"] * row["log_odds"] for row in found["principles"])
    assert found["label"] == pytest.approx(1 / (1 + 2.718281828459045**-total))
    with pytest.raises(DataError, match="no pair 'x'"):
        provenance(whole, "x")


def test_show_warns_of_a_label_that_was_changed_and_marks_what_counts(whole, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    pair = next(read_jsonl(out / "4-label" / "preferences.jsonl", PreferencePair))
    show(out, pair.id, False)
    assert "warning" not in capsys.readouterr().out
    path = out / "4-label" / "preferences.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["p_a"] = 1 - rows[0]["p_a"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (out / "run.yaml").read_text()
    least = max(abs(row["log_odds"]) for row in provenance(out, pair.id)["principles"])
    (out / "run.yaml").write_text(re.sub("min_log_odds: .*", f"min_log_odds: {least}", text))
    assert [row["counts"] for row in provenance(out, pair.id)["principles"]].count(True) == 1
    show(out, pair.id, False)
    said = capsys.readouterr().out
    assert "warning: the judgments amount to P(A is better)" in said and "don't count in the label" in said


def test_an_edited_principle_asks_its_own_questions_and_no_others(tiny_world, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    same = load_constitution(tiny_world / "constitution.yaml")
    assert relabel(out, same, QuietProgress())["num_asked"] == 0
    edited = tmp_path / "edited.yaml"
    edited.write_text((tiny_world / "constitution.yaml").read_text().replace("be kind .", "be no kind ."))
    found = relabel(out, load_constitution(edited), QuietProgress())
    texts = {
        (p.prompt.messages, *sorted((p.response_a, p.response_b)))
        for p in read_jsonl(out / "3-sample" / "pairs.jsonl", ResponsePair)
    }
    assert found["num_asked"] == 2 * len(texts)  # one principle, both orders
    assert relabel(out, load_constitution(edited), QuietProgress())["num_asked"] == 0


def test_what_a_principle_is_worth(tiny_world, whole):
    found = worth(whole)
    assert [row["principle"] for row in found["principles"]] == ["kind", "help"]
    assert found["num_labels"] == found["num_pairs"] and found["gold_agreement"]["value"] is None
    assert all(0 <= row["flipped"]["value"] <= 1 for row in found["principles"])


def test_coverage_stops_the_run(tiny_world, tmp_path):
    settings = ("label.labeler.chain_of_thought=true", "label.labeler.max_new_tokens=3", "phases=[rl]")
    with pytest.raises(CoverageError, match="0 of .* pairs got a label"):
        run_world(tiny_world, tmp_path / "run", *settings)
    assert (tmp_path / "run" / "4-label" / "judgments.jsonl").stat().st_size > 0
    assert not (tmp_path / "run" / "summary.json").exists()


MOMENTS = (
    "revise:2",  # after the first chunk
    "sft: training:3",  # after a checkpoint, in the middle of an epoch
    "sample:3",
    "label:2",
    "reward: training:3",
    "policy:3",  # rollouts of the step are on disk, its checkpoint isn't
    "evaluate sl-cai:2",
)


def test_kill_9_and_resume_gives_the_same_bytes(tiny_world, whole, tmp_path):
    out = tmp_path / "killed"
    script = Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), str(tiny_world / "run.yaml"), str(out), *MOMENTS]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(MOMENTS) + ["0"], ended.stderr
    expected, found = content(whole), content(out)
    expected = {
        name: data for name, data in expected.items() if not name.startswith("8-audit")
    }  # the script doesn't audit
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_several_processes_train_the_same_policy(tiny_world, whole, tmp_path):
    """The rollouts of two processes are those of one; the same command without them does nothing anew."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "6-policy")
    run_world(tiny_world, out, "scale={processes: 2, sharding: fsdp}")
    assert (out / "6-policy" / "rollouts.jsonl").read_text().count("\n") == 12
    rollouts, expected = ([row for _, row in read_rows(run / "6-policy" / "rollouts.jsonl")] for run in (out, whole))
    assert [row["response"] for row in rollouts] == [row["response"] for row in expected]
    rows = [[row for _, row in read_rows(run / "6-policy" / "metrics.jsonl")] for run in (out, whole)]
    for row, other in zip(*rows, strict=True):
        unknown = [key for key, value in other.items() if value is None]  # which approx can't compare
        assert all(row.pop(key) is None and other.pop(key) is None for key in unknown)
        assert row == pytest.approx({**other, "seconds": row["seconds"]}, rel=1e-3, abs=1e-4)
    assert not (out / "6-policy" / "checkpoint").exists() and (out / "6-policy" / "checkpoints" / "step-4").is_dir()
    before = (out / "summary.json").read_bytes()
    run_world(tiny_world, out)
    assert (out / "summary.json").read_bytes() == before
