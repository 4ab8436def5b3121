"""``charter audit``: a table, a file, one line for what is wrong."""

import json
import shutil

import pytest

from charter.cli.main import main
from charter.store.folder import RunFolder
from charter.store.stale import ASIDE


def charter(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["charter", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


@pytest.fixture
def run(clean_run, tmp_path):
    return shutil.copytree(clean_run, tmp_path / "run")


def test_table_and_file(run, monkeypatch, capsys):
    assert charter(monkeypatch, "audit", run) == 0
    said = capsys.readouterr().out
    assert "goal -> constitution" in said and "at fault: nobody" in said
    assert json.loads((run / "8-audit" / "audit.json").read_text())["verdict"]["link"] is None


def test_json(run, monkeypatch, capsys):
    assert charter(monkeypatch, "audit", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["gold"]["simulated"] is True


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("run.yaml", "a: [", "restore the run file"),
        ("5-reward/held_out.jsonl", '{"id": "x"}\n', "held_out.jsonl:1: no 'margin'"),
        ("4-label/preferences.jsonl", "{}\n", "preferences.jsonl:1"),
        ("constitution.yaml", "principles: 3\n", "constitution.yaml"),
    ],
)
def test_broken_files(run, monkeypatch, capsys, name, text, said):
    (run / name).write_text(text)
    assert charter(monkeypatch, "audit", run) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_no_run(tmp_path, monkeypatch, capsys):
    assert charter(monkeypatch, "audit", tmp_path) == 2
    assert "no run folder" in capsys.readouterr().err


def test_nothing_to_audit_yet(run, monkeypatch, capsys):
    (run / "4-label" / "preferences.jsonl").unlink()
    shutil.rmtree(run / "7-evaluate")
    before = sorted(run.rglob("*"))
    assert charter(monkeypatch, "audit", run) == 2
    told = capsys.readouterr()
    assert "there are no labels yet" in told.err and told.err.count("\n") == 1 and told.out == ""
    assert sorted(run.rglob("*")) == before


def test_labels_of_other_settings_are_none(run, monkeypatch, capsys):
    shutil.rmtree(run / "7-evaluate")
    (run / "4-label" / ASIDE).write_text("{}")
    assert charter(monkeypatch, "audit", run) == 2 and "no labels yet" in capsys.readouterr().err


def test_another_process_works_in_the_folder(run, monkeypatch, capsys):
    with RunFolder.open(run):
        assert charter(monkeypatch, "audit", run) == 2
    told = capsys.readouterr().err
    assert "works in this run folder" in told and told.count("\n") == 1
    assert not (run / "8-audit").exists()
