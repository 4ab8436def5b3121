"""The example run files load, and can be planned, without a network: nothing is asked and nothing is loaded."""

import socket
from pathlib import Path

import pytest

from charter.run_file import load_run

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*/*.yaml"))
NAMED = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("an example wanted the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@NAMED
def test_it_loads_and_can_be_planned(path, no_network):
    from charter.plan.make import make_plan

    config = load_run(path)
    assert config.name == path.parent.name + ("" if path.name == "run.yaml" else f"-{path.stem}")
    plan = make_plan(config, calibrate=False)
    assert [stage["name"] for stage in plan["stages"]][-1] == "7-evaluate"
    assert all(stage["rows"] > 0 for stage in plan["stages"])


def test_each_is_what_its_name_says():
    config = {run.name: run for run in map(load_run, EXAMPLES)}
    assert {"one-gpu", "endpoint-labeler", "committee", "multi-turn-red-team", "several-gpus"} <= set(config)
    assert config["endpoint-labeler"].label.labeler.model.endpoint.max_spend
    assert config["committee"].label.labeler.kind == "committee"
    assert config["several-gpus"].scale.processes > 1 and config["several-gpus"].scale.sharding == "fsdp"
    lora = config["one-gpu-lora"]
    assert lora.sft.lora and lora.reward.lora and lora.policy.lora and lora.policy.gradient_checkpointing
    from charter.data.prompts import load_prompts

    prompts = load_prompts(config["multi-turn-red-team"].prompts, Path(), 0)
    assert all(len(prompt.messages) >= 3 for prompt in prompts) and {p.harmful for p in prompts} == {True, False}


@NAMED
def test_the_readme_says_what_it_costs_and_what_to_look_at(path):
    text = path.with_name("README.md").read_text()
    assert (
        "an estimate, not a measurement" in text and "**Look at**" in text and f"{path.parent.name}/{path.name}" in text
    )


def test_prompts_of_training_and_evaluation_differ():
    for path in EXAMPLES:
        from charter.data.prompts import load_prompts

        config = load_run(path)
        train, held_out = (load_prompts(c, Path(), 0) for c in (config.prompts, config.evaluate.prompts))
        assert not {p.id for p in train} & {p.id for p in held_out}
