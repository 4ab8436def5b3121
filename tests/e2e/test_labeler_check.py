"""The check of a labeler as the README has it: of a folder that ``charter init`` has just made."""

from __future__ import annotations

import json
import sys

import pytest

from charter.cli import main as cli


def command(*arguments: object) -> int:
    sys.argv = ["charter", *map(str, arguments)]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    assert command("init", tmp_path / "my-run") == 0
    return tmp_path / "my-run" / "run.yaml"


def test_a_fresh_folder_can_be_checked(fresh, tiny_world, tmp_path, capfd):
    """The tiny labeler is a random one: it isn't at all fit, and it is what it is asked that counts here."""
    check = ["labeler", "check", fresh, "--set", f"label.labeler.model.source={tiny_world / 'labeler'}"]
    check += ["--attacks", 2, "--out", tmp_path / "ledger"]
    capfd.readouterr()
    code = command(*check, "--json")
    found = json.loads(capfd.readouterr().out)
    assert found["num_cases"] == found["accuracy"]["n"] == 24 and code == bool(found["verdict"]["unfit"])
    assert set(found["attacks"]) == {"before", "after"} and found["controls"]["empty"]["n"] > 0
    assert command(*check) == code
    assert "easy ones that come with Charter" in capfd.readouterr().out
    assert command(*check, "--set", "label.check.pairs=no-such-file.jsonl") == 2
