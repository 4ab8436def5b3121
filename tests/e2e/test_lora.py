"""A whole run in which adapters train: one base in memory, as the table says; files that PEFT reads; what can't work is refused."""

from __future__ import annotations

import gc
import json

import pytest

pytest.importorskip("peft", reason="PEFT is not installed")

import peft
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from charter.errors import ConfigError
from charter.export.hub import write_folders
from charter.memory import memory_plan, shape_of
from charter.pipeline import run
from charter.progress import QuietProgress
from charter.run_file import load_run

LORA = "{rank: 4, alpha: 8}"
SETTINGS = (
    f"sft.lora={LORA}", f"reward.lora={LORA}", f"policy.lora={LORA}", "policy.algorithm=ppo", "reward.ensemble=2",
    "policy.steps=2", "policy.learning_rate=0.01", "sft.learning_rate=0.01", "sft.epochs=1", "reward.epochs=1",
    "revise.rounds=1", "evaluate.sl_rounds=[]", "evaluate.num_checkpoints=0",
)  # fmt: skip


def parts_of(config):
    stages = memory_plan(config, on_gpu=False)
    return {stage.stage: {(p.model, p.what): p.num_bytes for p in stage.parts} for stage in stages}


class Census(QuietProgress):
    """The bytes of all parameters that are alive while the policy is trained, each counted once."""

    def __init__(self):
        self.current, self.seen = "", []
        self.before = {id(o) for o in gc.get_objects() if issubclass(type(o), PreTrainedModel)}

    def start(self, stage, total=None, unit="rows"):
        self.current = stage

    def advance(self, num=1, note=""):
        if self.current == "policy":
            gc.collect()
            alive = [o for o in gc.get_objects() if issubclass(type(o), PreTrainedModel) and id(o) not in self.before]
            held = {p.data_ptr(): p.numel() * p.element_size() for model in alive for p in model.parameters()}
            self.seen.append(sum(held.values()))


@pytest.fixture(scope="module")
def chain(tiny_world, tmp_path_factory):
    out, census = tmp_path_factory.mktemp("lora") / "run", Census()
    return out, run(load_run(tiny_world / "run.yaml", SETTINGS), out, census), census


def test_policy_reference_reward_models_and_value_model_stand_on_one_base(chain):
    out, summary, census = chain
    (table,) = [stage for stage in summary["memory"] if stage["stage"] == "6-policy"]
    held = sum(part["num_bytes"] for part in table["parts"] if part["what"] in ("weights", "adapters"))
    assert census.seen == [held] * 2
    base = sum(t.numel() * t.element_size() for t in load_file(out / "2-sft/model/model.safetensors").values())
    assert [p["num_bytes"] for p in table["parts"] if p["what"] == "weights"] == [base, 0, 0, 0, 0]


def test_the_table_shows_the_saving(tiny_world):
    config = load_run(tiny_world / "run.yaml", SETTINGS)
    whole, lora = parts_of(load_run(tiny_world / "run.yaml", ("policy.algorithm=ppo",))), parts_of(config)
    added = shape_of(config.model).num_adapters(config.sft.lora) * 4
    assert lora["2-sft"][("SL-CAI", "adapters")] == lora["2-sft"][("SL-CAI", "gradients")] == added
    assert lora["2-sft"][("SL-CAI", "optimiser")] == 2 * added < whole["2-sft"][("SL-CAI", "optimiser")]
    head = 4 * shape_of(config.model).hidden_size
    assert (
        lora["6-policy"][("reward model", "adapters")] == lora["6-policy"][("value model", "adapters")] == added + head
    )
    weights = [("reference", "weights"), ("reward model", "weights"), ("value model", "weights")]
    assert all(lora["6-policy"][part] == 0 < whole["6-policy"][part] for part in weights)
    other = parts_of(load_run(tiny_world / "run.yaml", (*SETTINGS, "reward.initialise_from=helpful")))["6-policy"]
    assert other[("reward model", "weights")] == whole["6-policy"][("reward model", "weights")]
    assert other[("value model", "weights")] == 0, "those of the reward model"


def test_memory_follows_the_knobs(tiny_world):
    def activations(*settings):
        return parts_of(load_run(tiny_world / "run.yaml", settings))["2-sft"][("SL-CAI", "activations")]

    assert activations("sft.tokens_per_forward=4096") == activations() / 2
    assert activations("sft.gradient_checkpointing=true") < activations()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
@pytest.mark.parametrize(("stage", "base"), [("2-sft", "helpful"), ("6-policy", "2-sft/model")])
def test_the_adapter_on_its_base_is_the_model(chain, tiny_world, stage, base):
    out = chain[0]
    folder = out / stage / "adapter"
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    if stage == "2-sft":
        base = tiny_world / base
        assert named.startswith("helpful@") and f"`{named}`" in (folder / "README.md").read_text()
    else:
        base = folder / named
        assert named == "../../2-sft/model" and f'from_pretrained("{named}")' in (folder / "README.md").read_text()
    plain = AutoModelForCausalLM.from_pretrained(out / stage / "model")
    by_peft = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out / stage / "adapter")
    ids = torch.tensor([[2, 5, 6, 7, 4, 3]])
    with torch.no_grad():
        found, expected = plain(input_ids=ids).logits, by_peft(input_ids=ids).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        with by_peft.disable_adapter():
            assert not torch.allclose(by_peft(input_ids=ids).logits, found, atol=1e-4), "it learned something"


def test_files_and_metrics_are_those_of_any_run(chain):
    out, summary, _ = chain
    assert set(summary["policies"]) == {"initial", "sl-cai", "rl-cai"}
    for place in ("5-reward", "5-reward/members/2"):
        assert (out / place / "model" / "model.safetensors").is_file() and (
            out / place / "adapter" / "base.json"
        ).is_file()
    rows = [json.loads(line) for line in (out / "6-policy" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["drift_max"] < 1e-4 and row["reward_spread"] > 0 for row in rows)


def test_adapters_are_exported_with_their_base_named(chain, tmp_path):
    out = chain[0]
    write_folders(out, tmp_path)
    for what in ("reward", "policy"):
        told = json.loads((tmp_path / what / "adapter" / "adapter_config.json").read_text())
        base = tmp_path / what / "adapter" / told["base_model_name_or_path"]
        assert (base / "model.safetensors").read_bytes() == (out / "2-sft/model/model.safetensors").read_bytes()
        readme = (tmp_path / what / "adapter" / "README.md").read_text()
        assert "../../sl-cai" in readme and "2-sft" not in readme
    assert (tmp_path / "sl-cai" / "adapter" / "adapter_model.safetensors").is_file()
    small = [path.read_text() for path in tmp_path.rglob("adapter/*") if path.suffix != ".safetensors"]
    assert len(small) == 9 and not any(str(out.parent) in text for text in small)


def test_dpo_by_adapters(tiny_world, tmp_path):
    settings = (
        "phases=[rl]",
        "policy.algorithm=dpo",
        f"dpo.lora={LORA}",
        "dpo.learning_rate=0.01",
        "dpo.batch_size=4",
        "dpo.epochs=3",
        "evaluate.sl_rounds=[]",
    )
    run(load_run(tiny_world / "run.yaml", (*settings, "reward.epochs=1")), tmp_path, QuietProgress())
    rows = [json.loads(line) for line in (tmp_path / "6-policy" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3) and rows[-1]["loss"] < rows[0]["loss"]
    assert (tmp_path / "6-policy" / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "5-reward" / "adapter").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("sft.lora={targets: []}",), "sft.lora"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(tiny_world, settings, told):
    with pytest.raises(ConfigError, match=told):
        load_run(tiny_world / "run.yaml", settings)


def test_without_peft_one_line_says_what_to_do(tiny_world, tmp_path, monkeypatch):
    from charter.training import lora

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(lora, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'charter\[lora\]'"):
        run(load_run(tiny_world / "run.yaml", SETTINGS), tmp_path / "run", QuietProgress())
    assert not (tmp_path / "run" / "1-revise").exists()
