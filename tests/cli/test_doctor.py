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
