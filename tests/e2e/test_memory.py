"""What a stage holds in memory, told from files alone, against the models themselves."""

import gc

import pytest
import torch
from transformers import PreTrainedModel

from charter.memory import memory_plan, shape_of
from charter.pipeline import run
from charter.progress import QuietProgress
from charter.report.memory import memory_rows, size
from charter.run_file import load_run


def plan_of(world, *settings):
    found = memory_plan(load_run(world / "run.yaml", settings), on_gpu=False)
    return {stage.stage: stage for stage in found}


def parts_of(stage):
    return {(part.model, part.what): part.num_bytes for part in stage.parts}


def test_each_model_has_its_size(tiny_world):
    config = load_run(tiny_world / "run.yaml")
    shape = shape_of(config.model)
    from charter.models.load import load_model

    model = load_model(config.model).model
    num_parameters = sum(p.numel() for p in model.parameters())
    assert shape.num_parameters == num_parameters and shape.vocabulary == model.config.vocab_size
    parts = parts_of(plan_of(tiny_world, "policy.algorithm=ppo")["6-policy"])
    assert parts[("policy", "weights")] == parts[("reference", "weights")] == 4 * num_parameters
    assert parts[("policy", "optimiser")] == 2 * parts[("policy", "gradients")] == 8 * num_parameters
    body = sum(p.numel() for p in model.base_model.parameters()) + model.config.hidden_size
    assert parts[("reward model", "weights")] == parts[("value model", "weights")] == 4 * body
    assert ("reward model", "gradients") not in parts
    assert ("value model", "weights") not in parts_of(plan_of(tiny_world)["6-policy"])


def test_bfloat16_trains_through_a_float32_copy(tiny_world):
    parts = parts_of(plan_of(tiny_world, "model.dtype=bfloat16")["2-sft"])
    assert parts[("SL-CAI", "optimiser")] == 6 * parts[("SL-CAI", "weights")]


def test_the_labeler_is_where_it_labels_and_nowhere_else(tiny_world):
    labeler = "labeler labeler"
    stages = plan_of(tiny_world)
    assert {name for name, stage in stages.items() if any(p.model == labeler for p in stage.parts)} == {"4-label"}
    direct = f"policy.reward={{kind: direct, model: {{source: {tiny_world / 'labeler'}}}}}"
    assert (labeler, "weights") in parts_of(plan_of(tiny_world, direct)["6-policy"])


def test_several_sources_of_reward_an_ensemble_and_a_judge_that_watches(tiny_world):
    labeler, helpful = tiny_world / "labeler", tiny_world / "helpful"
    direct = f"{{by: {{kind: direct, model: {{source: {labeler}}}}}}}"
    sources = f"policy.reward=[{{by: reward-model}}, {direct}, {{by: {{kind: checker}}}}]"
    watched = (f"evaluate.judge={{source: {helpful}}}", "policy.monitor.holdout=judge")
    stages = plan_of(tiny_world, sources, "reward.ensemble=3", *watched)
    assert {"3-sample", "4-label", "5-reward"} < stages.keys()
    held = [part.model for part in stages["6-policy"].parts if part.what == "weights"]
    assert held.count("reward model") == 3
    assert held.count(f"labeler {labeler.name}") == held.count(f"judge {helpful.name}") == 1


def test_what_cannot_be_known_has_a_reason(tiny_world):
    stage = plan_of(tiny_world, "model.source=nobody/has-this-model")["6-policy"]
    assert stage.num_bytes is None
    assert all(p.num_bytes is not None or "not on this machine" in p.note for p in stage.parts)


class Census(QuietProgress):
    """Counts the models that are alive at every step of the policy."""

    def __init__(self):
        self.current, self.seen = "", []

    def start(self, stage, total=None, unit="rows"):
        self.current = stage

    def advance(self, num=1, note=""):
        if self.current == "policy":
            gc.collect()
            alive = [o for o in gc.get_objects() if issubclass(type(o), PreTrainedModel)]
            roots = [m for m in alive if hasattr(m, "lm_head") or hasattr(m, "score")]
            self.seen.append(roots)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_no_labeler_is_alive_while_the_policy_is_trained(tiny_world, tmp_path, algorithm):
    """Every model in memory is one of the table; the labeler, which has other weights, is none of them."""
    from charter.models.load import load_model

    before = {id(o) for o in gc.get_objects() if issubclass(type(o), PreTrainedModel)}
    labeler = load_run(tiny_world / "run.yaml").label.labeler.model
    fingerprint = load_model(labeler).model.get_input_embeddings().weight.detach().clone()
    counts = []

    class Look(Census):
        def advance(self, num=1, note=""):
            super().advance(num, note)
            if self.current == "policy":
                roots = [m for m in self.seen.pop() if id(m) not in before]
                assert not any(torch.equal(m.get_input_embeddings().weight, fingerprint) for m in roots)
                counts.append(sum(p.numel() * p.element_size() for m in roots for p in m.parameters()))

    settings = (f"policy.algorithm={algorithm}", "phases=[rl]", "policy.steps=2", "evaluate.num_checkpoints=0")
    settings += ("evaluate.sl_rounds=[]",)
    config = load_run(tiny_world / "run.yaml", settings)
    summary = run(config, tmp_path / "run", Look())
    stage = next(row for row in summary["memory"] if row["stage"] == "6-policy")
    assert counts == [sum(p["num_bytes"] for p in stage["parts"] if p["what"] == "weights")] * 2


def test_the_page_shows_the_table():
    summary = {"memory": [{"stage": "6-policy", "num_bytes": None, "parts": [
        {"model": "policy", "what": "weights", "num_bytes": 5_362_688, "note": ""},
        {"model": "policy", "what": "cache", "num_bytes": None, "note": "who knows"}]}]}  # fmt: skip
    (row,) = memory_rows(summary)
    assert (row.name, row.total) == ("6-policy", "not known")
    assert row.parts == "policy: weights 5.36 MB, cache not known (who knows)"
    assert memory_rows({}) == [] and size(12) == "12 bytes"
