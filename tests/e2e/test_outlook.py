"""What a run says before it begins: all of it at first, then what is left, and nothing once it is done."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from charter.beginning import servers_left
from charter.cli.main import main
from charter.outlook import outlook
from charter.pipeline import run
from charter.progress import QuietProgress
from charter.run_file import load_run
from charter.stages.inputs import gather
from charter.store.folder import RunFolder
from charter.store.ledger import Ledger

SERVER = "http://127.0.0.1:9/v1#m"


def said(config, folder: Path) -> list[str]:
    with RunFolder.open(folder) as run, Ledger(folder / "ledger.sqlite") as ledger:
        return outlook(config, gather(config), run, ledger)


@pytest.fixture
def begun(whole, tmp_path) -> Path:
    """The run as it was killed in the middle of sampling."""
    folder = shutil.copytree(whole, tmp_path / "run")
    for name in ("4-label", "5-reward", "6-policy", "7-evaluate"):
        shutil.rmtree(folder / name)
    (folder / "3-sample" / "done.json").unlink()
    path = folder / "3-sample" / "pairs.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:6]))
    return folder


def test_before_anything_is_done(tiny_world, tmp_path):
    before = set(tiny_world.rglob("*"))
    to_do, work, check, money, memory = said(load_run(tiny_world / "run.yaml"), tmp_path / "run")
    assert to_do.startswith("to do: 1-revise (12 prompts), 2-sft (") and "6-policy (4 steps), 7-evaluate (" in to_do
    assert work.startswith("at most ") and "answers of models" in work and "time isn't known" in work
    assert "; at most " in work and check == "the check of the labeler: 80 calls (label.check)"
    assert money == "money: none, no server is asked" and memory.startswith("memory: about ")
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == set()  # no stage was touched
    assert set(tiny_world.rglob("*")) == before


def test_what_is_left_of_a_run_that_was_killed(tiny_world, begun):
    done, to_do, work, *_ = said(load_run(tiny_world / "run.yaml"), begun)
    assert done == "done before: 1-revise, 2-sft, 2-sft-round-1"
    assert to_do.startswith("to do: 3-sample (24 prompts, begun: 25% of its rows), 4-label (24 pairs), ")
    answers = int(work.split()[2].replace(",", ""))
    begun.joinpath("3-sample", "pairs.jsonl").write_bytes(b"")
    more = int(said(load_run(tiny_world / "run.yaml"), begun)[2].split()[2].replace(",", ""))
    assert more - answers == 12  # a quarter of 24 pairs of responses


def test_training_goes_on_from_its_checkpoint(tiny_world, begun):
    (begun / "2-sft" / "done.json").unlink()
    assert "2-sft (" in said(load_run(tiny_world / "run.yaml"), begun)[1]
    assert ", begun)" in said(load_run(tiny_world / "run.yaml"), begun)[1].partition("3-sample")[0]  # no checkpoint
    (begun / "2-sft" / "checkpoint" / "step-00000001").mkdir(parents=True)
    total = len((begun / "2-sft" / "metrics.jsonl").read_text().splitlines())
    _, to_do, work, *_ = said(load_run(tiny_world / "run.yaml"), begun)
    assert total > 1 and f"begun: step 1 of {total})" in to_do.partition("3-sample")[0]


def test_a_finished_run_has_nothing_left(tiny_world, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    assert said(load_run(tiny_world / "run.yaml"), folder) == ["all 8 stages are done before"]


def test_a_changed_setting_is_to_do_again(tiny_world, begun):
    config = load_run(tiny_world / "run.yaml", ["sft.learning_rate=0.002"])
    done, to_do, *_ = said(config, begun)
    assert done == "done before: 1-revise" and to_do.startswith("to do: 2-sft (") and "begun" not in to_do


def labelled_by_server(world: Path, **caps: object):
    endpoint = "{" + ", ".join(f"{key}: {value}" for key, value in caps.items()) + "}"
    return load_run(world / "run.yaml", [f'label.labeler={{model: {{source: "{SERVER}", endpoint: {endpoint}}}}}'])


def test_money_and_caps_of_a_server(tiny_world, tmp_path):
    config = labelled_by_server(tiny_world, price=[1000, 2000], max_spend=0.5)
    line = next(line for line in said(config, tmp_path / "a") if line.startswith(SERVER))
    assert "money: at most " in line and "caps: max_spend 0.5, where it stops before the end" in line
    line = next(line for line in said(labelled_by_server(tiny_world), tmp_path / "b") if line.startswith(SERVER))
    assert "money isn't known: the run file gives no price" in line and line.endswith("caps: none")


def test_what_was_spent_before_is_said(tiny_world, tmp_path):
    from charter.models.endpoint import endpoint_fingerprint

    config = labelled_by_server(tiny_world, price=[1000, 2000])
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add_usage(endpoint_fingerprint(SERVER), 7, 1000, 500)
    line = next(line for line in said(config, tmp_path) if line.startswith(SERVER))
    assert "so far 2.00 for 7 calls" in line


def test_only_servers_that_will_still_be_asked_are_looked_at(tiny_world):
    config = labelled_by_server(tiny_world)
    assert [model.source for model in servers_left(config, {"3-sample": "done", "4-label": "begun"})] == [SERVER]
    assert servers_left(config, {"3-sample": "to do", "4-label": "done", "7-evaluate": "to do"}) == []


def test_a_far_server_without_its_key_stops_the_run_before_its_first_stage(tiny_world, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("MY_KEY", raising=False)
    far = '{source: "https://example.invalid/v1#m", endpoint: {key_env: MY_KEY}}'
    settings = ["--set", f"label.labeler.model={far}"]
    out = tmp_path / "run"
    for command in (["run", "--out", str(out)], ["plan", "--no-calibrate"]):
        monkeypatch.setattr(sys, "argv", ["charter", *command, str(tiny_world / "run.yaml"), *settings])
        with pytest.raises(SystemExit) as stop:
            main()
        said_by = capfd.readouterr()
        assert "https://example.invalid/v1: the environment holds no MY_KEY: put the key there" in " ".join(said_by)
        assert (stop.value.code or 0) == (2 if command[0] == "run" else 0)
    assert not list(out.glob("1-revise*"))


def test_a_server_that_is_not_there_is_one_line_and_no_error(tiny_world, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("charter.pipeline.Pipeline.run", lambda self: {})
    told: list[str] = []
    progress = QuietProgress()
    monkeypatch.setattr(progress, "say", told.append)
    run(labelled_by_server(tiny_world), tmp_path / "run", progress)
    (line,) = [line for line in told if "no answer now" in line]
    assert line.startswith("warning: http://127.0.0.1:9/v1: no answer now (ConnectError)")
    assert any(line.startswith("warning: ") and "is asked without a key" in line for line in told)
