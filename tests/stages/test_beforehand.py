"""What a run file asks for and won't get is said before any work."""

from __future__ import annotations

import pytest

from charter.config import RunConfig
from charter.constitution.load import Constitution
from charter.records import EvaluatedResponse, Message, Prompt, Reading
from charter.stages.beforehand import warnings
from charter.stages.evaluate import on_unseen
from charter.stages.inputs import Inputs
from charter.store.jsonl import write_jsonl

RUN = {
    "name": "x", "constitution": "c", "model": {"source": "m"}, "prompts": {"source": "p"},
    "label": {"labeler": {"model": {"source": "l"}}}, "evaluate": {"prompts": {"source": "e"}},
}  # fmt: skip


def prompts(*marks: bool | None, begin: int = 0) -> list[Prompt]:
    return [Prompt(f"id{i}", (Message("user", f"ask {i}"),), mark) for i, mark in enumerate(marks, begin)]


def said(training: list[Prompt], held_out: list[Prompt] | None = None, **sections: object) -> list[str]:
    inputs = Inputs(Constitution("c", "", ()), training, held_out or prompts(None, begin=100), None, {})
    return warnings(RunConfig.model_validate({**RUN, **sections}), inputs)


def test_rows_that_were_left_out_are_counted():
    inputs = Inputs(Constitution("c", "", ()), prompts(None), prompts(None, begin=9), None, {}, {"prompts": 3})
    assert warnings(RunConfig.model_validate(RUN), inputs) == [
        "prompts: 3 rows repeat a conversation that came before; each is taken once"
    ]


@pytest.mark.parametrize("marks", [(None, None), (True, None)])
def test_helpful_answers_need_a_prompt_that_is_marked_harmless(marks):
    (line,) = said(prompts(*marks), sft={"num_helpful": 8})
    assert line.startswith("sft.num_helpful is 8 and no prompt is marked harmful: false")
    assert said(prompts(*marks)) == said(prompts(*marks, False), sft={"num_helpful": 8}) == []
    assert said(prompts(*marks), sft={"num_helpful": 8}, phases=["rl"]) == []


def test_held_out_prompts_that_are_training_prompts_too_are_counted():
    training, held_out = prompts(True, False, None), prompts(None, True, begin=2)  # ask 2 is in both
    inputs = Inputs(Constitution("c", "", ()), training, held_out, None, {})
    assert inputs.seen() == {"id2"}
    (line,) = said(training, held_out)
    assert line.startswith("evaluate.prompts: 1 of 2 occur word for word among the training prompts")
    assert said(training, prompts(None, begin=3)) == []


def test_figures_on_the_unseen_prompts_alone(tmp_path):
    def answer(prompt: Prompt, harmful: bool) -> EvaluatedResponse:
        return EvaluatedResponse(
            "initial", prompt, "yes", Reading(harmful=harmful, correct=True), 1, 1, False, 0.0, 0.0
        )

    asked = prompts(True, True, True, False)
    rows = [answer(prompt, prompt.id == "id0") for prompt in asked]
    write_jsonl(tmp_path / "initial.jsonl", rows)
    found = on_unseen(tmp_path, ["initial"], {"id0"}, "gold")["initial"]
    assert (found["harmful_rate"]["value"], found["harmful_rate"]["n"], found["correct_rate"]["n"]) == (0.0, 2, 1)
    assert on_unseen(tmp_path, ["initial"], set(), "gold") == {}
    assert on_unseen(tmp_path, ["initial"], {prompt.id for prompt in asked}, "gold") == {}


def test_settings_that_dpo_does_not_read():
    policy = {"algorithm": "dpo", "initialise_from": "helpful", "steps": 7, "learning_rate": 0.1, "lora": {"rank": 4}}
    assert said(prompts(None), policy=policy) == [
        "policy.algorithm is dpo, which doesn't read policy.lora, policy.learning_rate: set dpo.lora, dpo.learning_rate",
        "policy.algorithm is dpo, which doesn't read policy.steps: without effect in this run",
    ]
    assert said(prompts(None), policy={**policy, "algorithm": "grpo"}) == []
    assert said(prompts(None), policy={"algorithm": "dpo"}) == []


def test_the_default_prompts_all_carry_the_mark():
    from charter.village.prompts import training_prompts

    assert {prompt.harmful for prompt in training_prompts()} == {True, False}
