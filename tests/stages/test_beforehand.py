"""What a run file asks for and won't get is said before any work."""

from __future__ import annotations

import pytest

from charter.config import RunConfig
from charter.constitution.load import Constitution
from charter.records import Message, Prompt
from charter.stages.beforehand import warnings
from charter.stages.inputs import Inputs

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


def test_the_default_prompts_all_carry_the_mark():
    from charter.village.prompts import training_prompts

    assert {prompt.harmful for prompt in training_prompts()} == {True, False}
