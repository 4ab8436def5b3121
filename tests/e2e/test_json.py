"""``--json``: one JSON document on standard output, whatever the command; a fault is one line on standard error."""

import json
import shutil

import pytest


def test_run_verify_report(charter, tiny_world, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    code, out, _ = charter("run", tiny_world / "run.yaml", "--out", run, "--json")  # resumes: all is done
    told = json.loads(out)
    assert code == 0 and told["summary"] == json.loads((run / "summary.json").read_text())
    assert told["verdict"] == json.loads((run / "8-audit" / "audit.json").read_text())["verdict"]
    assert told["files"]["report"] == str(run / "report.html")

    code, out, _ = charter("verify", run, "--json")
    assert (code, json.loads(out)["faults"]) == (0, []) and json.loads(out)["num_stages"] >= 7
    with (run / "3-sample" / "pairs.jsonl").open("a") as file:
        file.write("\n")
    code, out, _ = charter("verify", run, "--json")
    assert code == 1 and "3-sample/pairs.jsonl" in json.loads(out)["faults"][0]

    code, out, _ = charter("report", run, "--json")
    assert code == 0 and json.loads(out) == {"report": str(run / "report.html")}


def test_train_reward(charter, tiny_world, whole, tmp_path):
    data = whole / "4-label" / "preferences.jsonl"
    arguments = ["train-reward", "--data", data, "--model", tiny_world / "helpful", "--out", tmp_path / "r"]
    code, out, _ = charter(*arguments, "--json")
    told = json.loads(out)
    assert code == 0 and told["summary"] == json.loads((tmp_path / "r" / "summary.json").read_text())
    assert told["model"] == str(tmp_path / "r" / "5-reward" / "model")


def test_init(charter, tmp_path):
    code, out, _ = charter("init", tmp_path / "new", "--json")
    told = json.loads(out)
    assert code == 0 and sorted(told["files"]) == sorted(map(str, (tmp_path / "new").iterdir()))
    assert told["next"] == f"charter run {tmp_path / 'new' / 'run.yaml'}"


@pytest.mark.parametrize(
    "command", [["run", "none.yaml"], ["verify", "none"], ["report", "none"], ["show", "none", "x"]]
)
def test_a_fault_leaves_standard_output_empty(charter, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, out, err = charter(*command, "--json")
    assert (code, out) == (2, "") and err.startswith("charter: ") and err.count("\n") == 1
