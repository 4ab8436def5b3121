"""A finished folder run again with another setting, and interrupted: nothing of the run before passes as current."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from charter import pipeline
from charter.compare import compare, parse_methods
from charter.errors import DataError
from charter.progress import QuietProgress
from charter.report.page import write_report
from charter.run_file import load_run
from charter.store.folder import verify
from charter.store.stale import ASIDE, restore, set_aside, what_changed
from charter.store.whole import WHOLE, close
from charter.watch import look


class Lines(QuietProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Stopped(Exception):
    pass


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    folder = shutil.copytree(whole, tmp_path / "run")
    write_report(folder)
    close(folder)
    return folder


def interrupted(monkeypatch, config, folder: Path, stage: str = "train_policy") -> list[str]:
    """Run until a stage begins, and what was said."""
    progress = Lines()
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(getattr(pipeline, stage), "run", lambda *a, **k: (_ for _ in ()).throw(Stopped()))
        pipeline.run(config, folder, progress)
    return progress.lines


def test_interrupted_with_another_setting(tiny_world, finished, monkeypatch):
    before = (finished / "summary.json").read_bytes()
    said = interrupted(monkeypatch, load_run(tiny_world / "run.yaml", ["policy.steps=5"]), finished)
    assert said[0] == "policy.steps was 4, is 5: 6-policy, 7-evaluate are done anew"
    left = {name for name in ("summary.json", "report.html", WHOLE) if (finished / name).exists()}
    assert left == set() and verify(finished) == []
    assert not (finished / "7-evaluate" / "done.json").exists() and (finished / "4-label" / "done.json").exists()
    with pytest.raises(DataError, match="no finished run"):
        compare(parse_methods([f"A={finished}", f"B={finished}:sl-cai"]))
    assert "Not finished." in write_report(finished).read_text()
    state = {stage["name"]: stage["state"] for stage in look(finished)["stages"]}
    assert state["4-label"] == "done" and state["7-evaluate"] == "waiting"

    said = interrupted(monkeypatch, load_run(tiny_world / "run.yaml", ["policy.steps=5"]), finished)
    assert not any("done anew" in line for line in said)  # nothing changed since
    said = interrupted(monkeypatch, load_run(tiny_world / "run.yaml", ["policy.steps=6"]), finished)
    assert said[0] == "policy.steps was 5, is 6: 6-policy, 7-evaluate are done anew"

    pipeline.run(load_run(tiny_world / "run.yaml"), finished, QuietProgress())  # as it was at first
    assert not (finished / "7-evaluate" / ASIDE).exists()
    after = (finished / "summary.json").read_bytes()
    assert len(after) > 0 and after[:40] == before[:40]


def test_the_setting_turned_back_brings_results_back(tiny_world, finished, monkeypatch):
    """What was only set aside isn't done again."""
    other = load_run(tiny_world / "run.yaml", ["sft.learning_rate=0.002"])
    said = interrupted(monkeypatch, other, finished, "train_sft")
    assert said[0].startswith("sft.learning_rate was 0.001, is 0.002: 2-sft, 2-sft-round-1, 3-sample, 4-label")
    labels = (finished / "4-label" / ASIDE).read_bytes()
    said = interrupted(monkeypatch, load_run(tiny_world / "run.yaml"), finished, "train_sft")
    assert said[0] == "sft.learning_rate was 0.002, is 0.001: 2-sft is done anew"
    assert (finished / "4-label" / "done.json").read_bytes() == labels


def test_another_constitution_changes_nothing(tiny_world, finished, tmp_path):
    from charter.errors import StoreError

    other = tmp_path / "other.yaml"
    other.write_text("name: other\nprinciples:\n- {id: kind, text: be rude .}\n")
    before = {path: path.read_bytes() for path in finished.iterdir() if path.is_file() and path.name[0] != "."}
    with pytest.raises(StoreError, match="another constitution"):
        pipeline.run(load_run(tiny_world / "run.yaml", [f"constitution={other}"]), finished, QuietProgress())
    assert {path: path.read_bytes() for path in before} == before


def test_prompts_of_other_content_are_named(tiny_world, finished, tmp_path, monkeypatch):
    rows = (tiny_world / "held_out.jsonl").read_text().splitlines(keepends=True)
    world = shutil.copytree(tiny_world, tmp_path / "world")
    (world / "held_out.jsonl").write_text("".join(rows[:-1]))
    config = load_run(tiny_world / "run.yaml")
    prompts = config.evaluate.prompts.model_copy(update={"source": str(world / "held_out.jsonl")})
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"prompts": prompts})})
    progress = Lines()
    pipeline.run(config, finished, progress)
    assert (
        progress.lines[0].startswith("evaluate.prompts.source was ") and "7-evaluate is done anew" in progress.lines[0]
    )
    (world / "held_out.jsonl").write_text("".join(rows[:-2]))
    progress = Lines()
    pipeline.run(config, finished, progress)
    assert progress.lines[0] == "held out prompts: other content than before: 7-evaluate is done anew"


def test_what_changed():
    before = {"a": {"b": 1, "gone": 2}, "list": [1], "judge": None, "long": "x" * 60}
    now = {"a": {"b": 2, "new": 3}, "list": [1, 2], "judge": {"source": "m"}, "long": "y" * 60}
    said = what_changed(before, now)
    assert said.startswith('a.b was 1, is 2, list was [1], is [1, 2], judge was null, is {"source": "m"}, long was xxx')
    assert "gone" not in said and "new" not in said and len(said) < 250
    assert what_changed(now, now) == ""
    many = what_changed({str(i): 1 for i in range(9)}, {str(i): 2 for i in range(9)})
    assert many.endswith("5 was 1, is 2 and 3 more")


def test_set_aside_and_back(tmp_path):
    for name in ("1-revise/done.json", "2-sft/done.json", "summary.json", "report.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    set_aside(tmp_path, ["2-sft", "3-sample"])
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")} == {"1-revise/done.json", f"2-sft/{ASIDE}"}
    assert restore(tmp_path) == {"2-sft"} and (tmp_path / "2-sft" / "done.json").is_file()


def test_words_that_the_models_dont_know_are_named_at_the_start(tiny_world, tmp_path, monkeypatch):
    constitution = tmp_path / "c.yaml"
    constitution.write_text(
        "name: c\nprinciples:\n- {id: k, text: be kind ., critique_request: is it kind to animals ?, "
        "revision_request: please be kind ., comparison: is A kind to plants ?}\n"
    )
    config = load_run(tiny_world / "run.yaml", [f"constitution={constitution}"])
    said = "\n".join(interrupted(monkeypatch, config, tmp_path / "run", "revise"))
    assert (
        "the model doesn't know these words of the principles, and reads each as the same unknown one: be, animals"
        in said
    )
    assert (
        "the labeler doesn't know these words of the principles, and reads each as the same unknown one: plants" in said
    )
    assert "the prompts" not in said
