"""``charter doctor``: what it finds, and that it tells no secret."""

import importlib.metadata
import importlib.util
import json
import sys

import pytest

from charter import doctor
from charter.cli import main as cli


def findings(folder):
    return {found["name"]: found for found in doctor.examine(folder)}


def test_every_finding_that_is_not_ok_says_what_to_do(tmp_path):
    found = findings(tmp_path / "not" / "there" / "yet")
    assert all(row["fix"] for row in found.values() if row["level"] != "ok")
    assert (
        found["python"]["level"]
        == found["torch"]["level"]
        == found["write"]["level"]
        == found["sqlite"]["level"]
        == "ok"
    )
    assert list(tmp_path.iterdir()) == []  # it leaves nothing behind


def test_problems_are_found(tmp_path, monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = findings(tmp_path)
    assert found["disk"]["level"] == found["torch"]["level"] == "problem"
    assert "charter[endpoint]" in found["extra endpoint"]["fix"] and "HF_HUB_OFFLINE" in found["hub"]["says"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    assert findings(tmp_path)["write"]["level"] == "problem"


@pytest.mark.parametrize(("least", "code"), [(0.0, 0), (1e9, 1)])
def test_the_command_tells_keys_by_name_alone(tmp_path, capfd, monkeypatch, least, code):
    monkeypatch.setattr(doctor, "MIN_FREE_GB", least)
    monkeypatch.setenv("OPENAI_API_KEY", "canary-4711")
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["charter", "doctor", "--folder", str(tmp_path), *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert (stop.value.code or 0) == code and "OPENAI_API_KEY" in out and "canary" not in out + err
    assert json.loads(out)["num_problems"] == code


def of_run(world, tmp_path, *settings):
    return [row for row in doctor.examine(tmp_path, world / "run.yaml", settings) if row["name"] in NAMES]


NAMES = ("needs endpoint", "needs lora", "needs tensorboard", "key SOME_KEY", "server", "model", "run file")


@pytest.fixture
def world(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    (tmp_path / "c.yaml").write_text("name: c\nprinciples:\n- {id: kind, text: be kind}\n")
    (tmp_path / "run.yaml").write_text(
        f"name: x\nconstitution: {tmp_path / 'c.yaml'}\nmodel: {{source: {tmp_path / 'model'}}}\n"
        "prompts: {source: prompts.jsonl}\nevaluate: {prompts: {source: prompts.jsonl}}\n"
        "label: {labeler: {model: {source: 'http://127.0.0.1:9/v1#m', endpoint: {key_env: SOME_KEY}}}}\n"
    )
    return tmp_path


def test_what_a_run_file_needs(world, tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else object())
    found = {row["name"]: row for row in of_run(world, tmp_path, "sft.lora={rank: 4}", "tracker=tensorboard")}
    assert found["needs lora"]["level"] == "problem" and "charter[lora]" in found["needs lora"]["fix"]
    assert found["needs endpoint"]["level"] == found["needs tensorboard"]["level"] == "ok"
    assert found["server"]["level"] == "problem" and "127.0.0.1:9" in found["server"]["says"]  # nobody listens there
    assert found["key SOME_KEY"]["level"] == "note" and found["model"]["level"] == "ok"
    assert "needs ray" not in found and "needs trl" not in found


def test_a_far_server_needs_its_key_and_a_hub_model_the_hub(world, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "charter.doctor_run.status_of", lambda url: asked.append(url) or (401 if "far" in url else None)
    )
    monkeypatch.delenv("SOME_KEY", raising=False)
    settings = ["label.labeler.model.source=https://far.example/v1#m", "model.source=nobody-here/no-such-model"]
    found = {row["name"]: row for row in of_run(world, tmp_path, *settings)}
    assert found["key SOME_KEY"]["level"] == "problem" and found["server"]["level"] == "ok"
    assert found["model"]["level"] == "problem" and "unreachable" in found["model"]["says"]
    assert asked[-1] == "https://far.example/v1/models"
    monkeypatch.setenv("SOME_KEY", "canary-4711")
    told = json.dumps(of_run(world, tmp_path, *settings))
    assert "canary" not in told and '"key SOME_KEY", "level": "ok"' in told


def test_the_hub_is_online_only_if_it_answers(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "unreachable" in findings(tmp_path)["hub"]["says"]
    monkeypatch.setattr(doctor, "status_of", lambda url: 200)
    assert findings(tmp_path)["hub"]["level"] == "ok"
