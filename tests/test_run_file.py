"""A run file is checked as a whole; every fault is one line with its place and a remedy."""

import json
from pathlib import Path

import pytest

import charter
from charter.constitution.load import load_constitution
from charter.errors import ConfigError
from charter.run_file import load_run, resolved_yaml
from charter.sources import is_python, resolve_python

VILLAGE = Path(charter.__file__).parent / "village" / "run.yaml"
RUN = """\
name: mine
constitution: c.yaml
model: {source: org/model}
prompts: {source: prompts.jsonl}
policy:
  steps: 5
label:
  labeler:
    model:
      source: ./labeler
evaluate:
  prompts: {source: "charter.village.prompts:held_out_prompts"}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "c.yaml").write_text("")
    (tmp_path / "prompts.jsonl").write_text("")
    (tmp_path / "labeler").mkdir()
    return tmp_path


def _load(folder, text=RUN, overrides=()):
    (folder / "run.yaml").write_text(text)
    return load_run(folder / "run.yaml", overrides)


def test_paths_count_from_the_run_file(folder):
    config = _load(folder)
    assert config.constitution == str(folder / "c.yaml")
    assert config.prompts.source == str(folder / "prompts.jsonl")
    assert config.label.labeler.model.source == str(folder / "labeler")
    assert config.model.source == "org/model"  # a hub id, since nothing of that name is there
    assert config.evaluate.prompts.source == "charter.village.prompts:held_out_prompts"


def test_resolved_file_reads_back(folder, tmp_path_factory):
    config = _load(folder, overrides=["evaluate.judge.source=org/judge", "label.labeler.clamp=[0.4, 0.6]"])
    other = tmp_path_factory.mktemp("elsewhere") / "run.yaml"
    other.write_text(resolved_yaml(config))
    assert load_run(other) == config
    assert "kl_coef: 0.05" in other.read_text()


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("steps: 5", "stps: 5", 6, "policy.stps: unknown key: did you mean 'steps'?"),
        ("policy:", "polcy:", 5, "polcy: unknown key: did you mean 'policy'?"),
        (
            "      source: ./labeler",
            "      sorce: x",
            10,
            "label.labeler.model.sorce: unknown key: did you mean 'source'?",
        ),
        ("steps: 5", "steps: many", 6, "policy.steps: must be a whole number, got 'many'"),
        ("steps: 5", "steps: 0", 6, "greater than or equal to 1, got 0"),
        ("steps: 5", "kl_coef: .nan", 6, "not a finite number"),
        ("steps: 5", "algorithm: ppoo", 6, "'grpo'"),
        ("steps: 5", "steps: 5\n  steps: 6", 7, "key 'steps' is there twice"),
        ("constitution: c.yaml", "constitution: d.yaml", 2, "did you mean 'c.yaml'?"),
        ("source: ./labeler", "source: ./labelr", 10, "did you mean 'labeler'?"),
        ("prompts: {source: prompts.jsonl}\n", "", 1, "prompts is missing"),
        ("name: mine", "name: ../mine", 1, "name: "),
        ("evaluate:\n", "evaluate:\n  judge: {source: ./labeler}\n", 1, "can't judge its own labels"),
    ],
)
def test_fault_is_one_line_with_its_place(folder, old, new, line, says):
    assert old in RUN
    with pytest.raises(ConfigError) as caught:
        _load(folder, RUN.replace(old, new, 1))
    assert f"run.yaml:{line}: " in str(caught.value) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_win(folder, monkeypatch):
    assert _load(folder, overrides=["policy.steps=7", "seed=3", "policy.kl_budget=0.5"]).policy.steps == 7
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    (folder / "here" / "mine.yaml").write_text("")
    config = _load(folder, overrides=["constitution=mine.yaml"])
    assert config.constitution == str(folder / "here" / "mine.yaml")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("policy.steps", "expected key.path=value"),
        ("policy..steps=1", "expected key.path=value"),
        ("policy.stps=1", "--set policy.stps: no such setting; did you mean policy.steps?"),
        ("polcy.steps=1", "--set polcy.steps: no such setting; did you mean policy.steps?"),
        ("xyz.steps=1", "--set xyz.steps: no such setting; known are name, "),
        ("policy.steps=x", "--set policy.steps: must be a whole number, got 'x'"),
        ("evaluate.judge=3", "--set evaluate.judge: keys with values are needed here: source:"),
        ("name.first=x", "holds no keys"),
        ("policy.steps=[", "--set policy.steps"),
        ("model.source=../nothing/x", "check the path; it counts from the folder you are in"),
    ],
)
def test_bad_override(folder, override, says):
    with pytest.raises(ConfigError) as caught:
        _load(folder, overrides=[override])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_village_run_file_loads():
    config = load_run(VILLAGE)
    assert config.name == "village" and resolve_python(config.constitution)().is_file()


def test_python_sources():
    assert is_python("a.b:c") and not any(map(is_python, ["a/b", "http://x:1", "org/name", "a:b/c", "C:\\x"]))
    assert resolve_python("charter.records:Prompt").__name__ == "Prompt"
    for bad in ("charter", "charter.records:prompt", "charter.recrds:Prompt"):
        with pytest.raises(ConfigError):
            resolve_python(bad)


def _from_elsewhere(tmp_path, **changes):
    """A run folder as another machine made it."""
    text = f"name: c\nprinciples:\n- {{id: kind, text: {changes.pop('text', 'be kind')}}}\n"
    (tmp_path / "constitution.yaml").write_text(text)
    told = load_constitution(tmp_path / "constitution.yaml").hash
    (tmp_path / "inputs.json").write_text(json.dumps({"constitution": changes.pop("hash", told)}))
    settings = {
        "name": "x",
        "constitution": "/home/author/mine.yaml",
        "model": {"source": "/home/author/venv/charter/village/starter"},
        "prompts": {"source": "charter.village.prompts:training_prompts"},
        "evaluate": {"prompts": {"source": "charter.village.prompts:held_out_prompts"}},
        **changes,
    }
    settings["label"] = {"labeler": {"model": settings["model"]}}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    return tmp_path / "run.yaml"


def test_a_run_folder_of_another_machine_is_its_own_constitution_and_finds_what_the_package_ships(tmp_path):
    config = load_run(_from_elsewhere(tmp_path))
    assert config.constitution == str(tmp_path / "constitution.yaml")
    starter = Path(charter.__file__).parent / "village" / "starter"
    assert config.model.source == str(starter) and config.label.labeler.model.source == str(starter)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hash": "0" * 64}, "constitution: /home/author/mine.yaml is not there"),
        (
            {"model": {"source": "/home/author/charter/my-model"}},
            "model.source: /home/author/charter/my-model is not there",
        ),
        ({"model": {"source": "/home/author/charter"}}, "model.source: /home/author/charter is not there"),
    ],
)
def test_what_cannot_be_known_to_be_the_same_is_missing_but_for_those_who_want_settings_alone(tmp_path, changes, says):
    path = _from_elsewhere(tmp_path, **changes)
    with pytest.raises(ConfigError, match=says):
        load_run(path)
    config = load_run(path, missing_ok=True)
    assert config.model.source.endswith(changes.get("model", {"source": "village/starter"})["source"])
