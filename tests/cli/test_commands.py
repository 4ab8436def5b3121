"""Commands as a user types them: output, exit codes, and one line for each fault."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charter import __version__
from charter.cli import main as cli
from charter.cli.ending import explained, next_steps
from charter.cli.plan import _seconds
from charter.cli.run import default_run_file, headline
from charter.run_file import load_run
from charter.source import source_hash
from charter.store.folder import RunFolder
from charter.store.whole import close

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_init_gives_a_run_that_loads(charter, tmp_path):
    code, out, _ = charter("init", tmp_path / "my run")
    assert code == 0 and "charter run" in out
    config = load_run(tmp_path / "my run" / "run.yaml")
    assert config.name == "my-run"
    from charter.constitution.load import load_constitution
    from charter.data.prompts import load_prompts

    assert len(load_constitution(Path(config.constitution)).principles) == 16
    prompts = load_prompts(config.prompts, tmp_path, 0)
    held_out = load_prompts(config.evaluate.prompts, tmp_path, 0)
    assert {p.harmful for p in prompts} == {True, False} and not {p.id for p in prompts} & {p.id for p in held_out}
    code, _, err = charter("init", tmp_path / "my run")
    assert code == 2 and "is there already" in err


def test_default_run_file_is_shipped():
    assert default_run_file().is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.yaml"], "none.yaml: no such file"),
        (["run", "--set", "x=1"], "--set x: no such setting; known are name, "),
        (["constitution", "show", "generl"], "no shipped constitution"),
        (["verify", "nowhere"], "nowhere: no run folder there"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(charter, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = charter(*arguments)
    assert (code, out) == (2, "") and err.startswith("charter: ") and says in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_hostile_text_is_defused(charter, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        'name: "x\\e[31m"\nprinciples:\n  - {id: a, text: "be [bold]good[/bold] \\e]0;title\\a to all \\u202e"}\n'
    )
    code, out, _ = charter("constitution", "show", path)
    assert code == 0 and "\x1b" not in out and "\u202e" not in out and "[bold]good[/bold]" in out
    path.write_text('name: x\n"\\e[2J\\n\\nfake": 1\nprinciples: [{id: a, text: b}]\n')
    code, _, err = charter("constitution", "show", path)
    assert code == 2 and "\x1b" not in err and err.count("\n") == 1


def test_check_and_diff(charter, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: c\nprinciples:\n  - {id: a, text: be good}\n")
    code, out, _ = charter("constitution", "check", path)
    assert code == 0 and "vague: a is very short" in out
    assert charter("constitution", "check", path, "--strict")[0] == 1
    assert charter("constitution", "check", "general", "--strict")[0] == 0
    (tmp_path / "d.yaml").write_text(
        "name: c\nprinciples:\n  - {id: a, text: be good, weight: 2}\n  - {id: b, text: new}\n"
    )
    code, out, _ = charter("constitution", "diff", path, tmp_path / "d.yaml")
    assert out.splitlines() == ["changed  a weight: 1.0 -> 2.0", "added    b: new", "2 changes"]


@pytest.mark.skipif(not SHARED.exists(), reason="shared data sets are not beside this checkout")
def test_import(charter, tmp_path):
    files = [
        SHARED / "paper2022" / name for name in ("CritiqueRevisionInstructions.json", "RLMadisonInstructions.json")
    ]
    code, out, _ = charter("constitution", "import", *files, "--out", tmp_path / "paper.yaml")
    assert code == 0 and "32 principles" in out
    code, _, err = charter("constitution", "import", *files, "--out", tmp_path / "paper.yaml")
    assert code == 2 and "is there already" in err


def test_verify(charter, tmp_path):
    with RunFolder.open(tmp_path) as run:
        stage = run.stage("1-revise")
        with stage.attempt():
            (stage.path / "rows.jsonl").write_text("{}\n")
            stage.finish("k", {})
    close(tmp_path)
    assert charter("verify", tmp_path)[0] == 0
    (stage.path / "rows.jsonl").write_text("{ }")
    code, out, _ = charter("verify", tmp_path)
    assert code == 1 and "1-revise/rows.jsonl: content changed" in out


def test_verify_refuses_what_is_no_run_folder(charter, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    code, out, err = charter("verify", tmp_path, "--json")
    assert (code, out) == (2, "") and "no run folder" in err and err.count("\n") == 1


def test_verify_names_a_chat_template_that_is_not_the_base_models(charter, tmp_path):
    run = tmp_path / "run"
    for folder, text in ((tmp_path / "base", "a\nb\n"), (run / "2-sft" / "model", "a\nB\n")):
        folder.mkdir(parents=True)
        (folder / "chat_template.jinja").write_text(text)
    (run / "run.yaml").write_text(f"model:\n  source: {tmp_path / 'base'}\n")
    code, out, _ = charter("verify", run)
    assert code == 1 and "2-sft/model: chat template 'default'" in out and "\n-b\n+B\n" in out


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "free some"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "free some"),
        (OSError(errno.EIO, "Input/output error"), 2, "input/output error: check the disk"),
        (RuntimeError("Input/output error (os error 5)"), 2, "input/output error: check the disk"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_can_strike_anywhere(charter, monkeypatch, error, code, says):
    def strike(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr("charter.store.folder.verify", strike)
    assert charter("verify", "x")[0] == code
    assert says in charter("verify", "x")[2]


def test_a_fault_of_ours_keeps_its_traceback(charter, monkeypatch):
    def strike(*_: object) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr("charter.store.folder.verify", strike)
    monkeypatch.setattr(sys, "argv", ["charter", "verify", "x"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_console_script_is_installed():
    script = Path(sys.executable).with_name("charter")
    shown = subprocess.run([script, "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})
    assert shown.returncode == 0 and "constitution" in shown.stdout


def test_headline_without_a_judge_tells_what_is_counted():
    known, unknown = (
        {"value": 12.5, "low": 10.0, "high": 15.0, "n": 9},
        {"value": None, "low": None, "high": None, "n": 0},
    )
    policy = {"harmful_rate": unknown, "gold": unknown, "num_words": known, "kl_to_sl_cai": unknown}
    head, row, why = headline({"policies": {"initial": policy}})
    assert "num_words" in head and "harmful_rate" not in head and "12.50 (10.00 to 15.00)" in row
    assert "evaluate.judge" in why
    assert "num_words" not in headline({"policies": {"initial": {**policy, "gold": known}}})[0]


def test_headline_says_what_is_not_known():
    known = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 9, "reason": None}
    unknown = {"value": None, "low": None, "high": None, "n": 0, "reason": "no gold"}
    summary = {"policies": {"initial": {"harmful_rate": known, "gold": unknown}, "rl-cai": {"harmful_rate": known}}}
    lines = headline(json.loads(json.dumps(summary)))
    assert lines[0].split() == ["harmful_rate", "over_refusal_rate", "correct_rate", "gold"]
    assert lines[1].split("  ")[0] == "initial" and "0.25 (0.20 to 0.30)" in lines[1] and lines[1].endswith("-")


def test_importing_opens_no_socket():
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise SystemExit('a socket is opened at import')\n"
        "socket.socket.connect = socket.socket.bind = socket.create_connection = socket.getaddrinfo = refuse\n"
        "socket.socket.__init__ = refuse\n"
        "import charter, charter.cli.main, charter.pipeline, charter.audit.run, charter.report.page, charter.compare\n"
        "import charter.models.endpoint, charter.rating.guard, charter.export.write\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_version_tells_the_source(charter, monkeypatch, tmp_path):
    code, out, _ = charter("--version")
    assert code == 0 and out == f"charter {__version__} (source {source_hash()})\n"
    package = tmp_path / "charter"
    (package / "report").mkdir(parents=True)
    monkeypatch.setattr("charter.source.__file__", str(package / "source.py"))
    hashes = []
    for name, text in (("source.py", "a"), ("source.py", "b"), ("report/page.css", "b"), ("model.safetensors", "c")):
        (package / name).write_text(text)
        hashes.append(source_hash.__wrapped__())
    assert len(set(hashes)) == 3 and hashes[2] == hashes[3]  # weights have a hash of their own


def test_a_folder_is_no_run_file(charter, tmp_path):
    code, _, err = charter("run", tmp_path)
    assert code == 2 and f"{tmp_path}: a folder, not a run file: name a run file" in err
    (tmp_path / "run.yaml").write_text("name: x\n")
    code, _, err = charter("run", tmp_path)
    assert code == 2 and err.endswith(f"did you mean {tmp_path / 'run.yaml'}?\n")


def test_the_end_of_a_run_in_words(tmp_path):
    known, unknown = {"value": 0.1}, {"value": None}
    figures = {"harmful_rate": known, "over_refusal_rate": unknown, "correct_rate": known, "gold": known}
    summary = {
        "policies": {"initial": figures, "rl-cai": dict.fromkeys(figures, unknown), "rl-step-3": figures},
        "gold": {"name": "oracle", "simulated": True},
        "labeler": {"check": {"verdict": {"fitness": "fit with warnings", "unfit": [], "warnings": ["a", "b"]}}},
    }
    lines = explained(summary)
    assert lines[0] == "initial: the model as it came"
    assert [line.split(":")[0] for line in lines[1:4]] == ["harmful_rate", "correct_rate", "gold"]
    assert "lower is better" in lines[1] and "higher is better" in lines[2] and "oracle, a program in place" in lines[3]
    assert lines[-1] == "the labeler is fit with warnings: a; b" and len(lines) == 6
    nobody = {
        "policies": {"initial": dict.fromkeys(figures, unknown)},
        "gold": None,
        "labeler": {"check": {"verdict": None}},
    }
    assert explained(nobody) == []
    assert next_steps(tmp_path / "a b").endswith(f"charter chat '{tmp_path / 'a b'}'")
    (tmp_path / "4-label").mkdir()
    (tmp_path / "4-label" / "preferences.jsonl").write_text('{"id": "pair-7"}\n')
    assert f"charter show {tmp_path} pair-7" in next_steps(tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["constitution", "--help"], ["village", "--help"]])
def test_the_list_of_commands_is_whole(charter, arguments):
    code, out, _ = charter(*arguments)
    assert code == 0 and "…" not in out and "..." not in out.replace("[ARGS]...", "")
    assert charter("help", *arguments[:-1])[1] == out


def test_long_times_of_a_plan_are_told_in_hours_too():
    assert [_seconds(t) for t in (None, 12.4, 300, 3900)] == ["-", "12", "300 (5 min)", "3,900 (1 h 5 min)"]
