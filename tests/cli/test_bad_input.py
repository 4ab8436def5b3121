"""Every command with what is no input for it: one line, exit code 2, nothing written."""

import os

import pytest
import typer

from charter.cli import main as cli

MAKES = {("init",), ("village", "build-starter"), ("village", "card"), ("schema",)}  # their argument is what they make

BESIDE = {
    ("show",): ["pair"],
    ("push",): ["me/repo"],
    ("export",): ["--to", "trl"],
    ("constitution", "diff"): ["{}"],
    ("constitution", "import"): ["--out", "new.yaml"],
    ("constitution", "induce"): ["--labeler", "nowhere", "--out", "new.yaml"],
    ("train-reward",): ["--model", "nowhere", "--out", "new"],
    ("compare",): ["--out", "new.html"],
}  # what a command needs besides the file that is none
NUMBERS = [
    ("run", "--seed"),
    ("chat", "--max-new-tokens"),
    ("chat", "--temperature"),
    ("watch", "--every"),
    ("rate", "--port"),
    ("rate", "--overlap"),
    ("labeler check", "--limit"),
    ("train-reward", "--holdout"),
    ("train-reward", "--learning-rate"),
    ("constitution import", "--min-agreement"),
    ("constitution induce", "--seed"),
]


def _commands(command, path=()):
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


COMMANDS = dict(_commands(typer.main.get_command(cli.app)))
READ = [
    path
    for path, command in COMMANDS.items()
    if path not in MAKES and any(p.param_type_name == "argument" for p in command.params)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "deep.json").write_text("[" * 20_000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _refused(charter, folder, *arguments):
    before = sorted(folder.rglob("*"))
    code, out, err = charter(*arguments)
    assert (code, out) == (2, ""), (arguments, out, err)
    assert err.startswith("charter: ") and err.count("\n") == 1 and len(err) < 500, (arguments, err)
    assert sorted(folder.rglob("*")) == before, arguments
    return err


@pytest.mark.parametrize("path", READ, ids=" ".join)
def test_files_that_are_none(charter, folder, path):
    for name in ("nowhere", "empty", "binary", "folder", "list.yaml", "deep.json", "x" * 300):
        given = [f"A={name}", f"B={name}"] if path == ("compare",) else [name]
        _refused(charter, folder, *path, *given, *(part.format(name) for part in BESIDE.get(path, ())))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_options_that_are_none(charter, folder, path):
    command = " ".join(("charter", *path))
    assert f"No such option: --zzz: see {command} --help" in _refused(charter, folder, *path, "--zzz")
    assert "an argument is empty" in _refused(charter, folder, *path, "")


@pytest.mark.parametrize("value", ["-1", "many", "9" * 400, "nan"])
@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_numbers_that_are_none(charter, folder, command, option, value):
    path = tuple(command.split())
    says = _refused(charter, folder, *path, "nowhere", *BESIDE.get(path, ()), option, value)
    assert option in says or len(value) > 9  # some may be as large as they like


def test_no_such_command(charter, folder):
    assert "No such command 'rum'" in _refused(charter, folder, "rum")
    assert os.listdir(folder)
