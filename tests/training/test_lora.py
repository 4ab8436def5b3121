"""LoRA: one base, which nothing changes; adapters that learn; files that plain Transformers and PEFT read alike."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("peft", reason="PEFT is not installed")

import peft
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from charter.config import DpoConfig, LoraConfig, PolicyConfig, RewardConfig, SftConfig
from charter.errors import ConfigError, ModelError
from charter.models import engines
from charter.models.adapters import is_adapter_layer, merged
from charter.models.decode import sample_tokens
from charter.models.fused import fuse
from charter.models.local import LocalModel
from charter.training.dpo import train_dpo
from charter.training.grpo import train_grpo
from charter.training.lora import adapted, adapters_of, fits, load_adapter, own_copy, save_adapter
from charter.training.ppo import train_ppo, value_model_from
from charter.training.reward import reward_model_from_policy, score, train_reward
from charter.training.rollout import EncodedPrompt
from charter.training.sft import train_sft

from .tiny import END, Tokens, assert_same, make_model, weights

LORA = LoraConfig(rank=4, alpha=16)
FAST = {"learning_rate": 3e-2, "checkpoint_every": 2}
POLICY = {"steps": 3, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 6, "updates_per_rollout": 2, **FAST}
PROMPTS = [EncodedPrompt(f"p{i}", list(range(2 + i, 5 + 2 * i))) for i in range(5)]
IDS = torch.tensor([[3, 4, 5, 6, 7], [9, 8, 7, 6, 5]])


def likes_a_token(rollouts):
    return [float(rollout.response_ids.count(7)) for rollout in rollouts]


def stirred(model, seed=0):
    """The same model with adapters that say something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapters_of(model).items():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@torch.no_grad()
def logits_of(model):
    return model(input_ids=IDS).logits


def local(model, name="base"):
    class Chatless(Tokens):
        chat_template = None

        def __call__(self, *_, **__):
            return {"input_ids": [2]}

        def encode(self, *_, **__):
            return [2]

    made = LocalModel.__new__(LocalModel)
    made.model, made.tokenizer, made.name, made.fingerprint = model, Chatless(), name, f"hash of {name}"
    return made


def test_the_second_model_stands_on_the_weights_of_the_first():
    base = make_model()
    before = logits_of(base)
    model = adapted(base, LORA, seed=0)
    theirs = {name: p.data_ptr() for name, p in base.named_parameters()}
    ours = {name.replace(".base_layer", ""): p.data_ptr() for name, p in model.named_parameters() if "lora" not in name}
    assert ours == theirs
    assert torch.equal(logits_of(model), before), "an adapter begins as nothing"
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == list(adapters_of(model)) and len(trained) == 2 * 7 * 2
    assert not any(p.requires_grad for p in base.parameters())
    assert not torch.equal(logits_of(stirred(model)), before) and torch.equal(logits_of(base), before)


def test_adapters_begin_by_the_seed_and_leave_the_random_state_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second, other = (adapters_of(adapted(make_model(), LORA, seed=s)) for s in (1, 1, 2))
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(first, second)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_only_the_layers_that_are_named():
    model = adapted(make_model(), LORA.model_copy(update={"targets": ("q_proj", "down_proj")}), seed=0)
    names = {name.split(".")[-1] for name, m in model.named_modules() if is_adapter_layer(m)}
    assert names == {"q_proj", "down_proj"}
    with pytest.raises(ConfigError, match="no linear layer nonsense: its layers are down_proj, .*v_proj"):
        adapted(make_model(), LORA.model_copy(update={"targets": ("q_proj", "nonsense")}), seed=0)


def test_merged_is_a_plain_model_that_says_the_same():
    model = stirred(adapted(make_model(), LORA, seed=0))
    plain = merged(model)
    assert not any(map(is_adapter_layer, plain.modules())) and not hasattr(plain, "peft_config")
    torch.testing.assert_close(logits_of(plain), logits_of(model), atol=1e-5, rtol=1e-5)
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in make_model().named_parameters()]


def test_decoding_sees_the_adapters_on_both_ways(monkeypatch):
    """The fused weights hold them; without fusing, the model computes them itself. Both differ from the base."""
    base = make_model()
    model = stirred(adapted(base, LORA, seed=0))
    settings = {"seeds": [1, 2, 3], "max_new_tokens": 12, "temperature": 1.0, "stop_ids": [END]}
    prompts = [[3, 4, 5], [3, 4, 5], [9, 8]]
    with torch.no_grad():
        assert fuse(model) is not None
    found = sample_tokens(model, prompts, **settings)
    of_base = sample_tokens(base, prompts, **settings)
    monkeypatch.setattr(engines, "fuse", lambda *_, **__: None)
    slow = sample_tokens(model, prompts, **settings)
    assert found.ids == slow.ids != of_base.ids
    torch.testing.assert_close(torch.tensor(found.logprobs[0]), torch.tensor(slow.logprobs[0]), atol=1e-5, rtol=1e-5)


def test_where_adding_would_be_wrong_nothing_is_fused():
    model = adapted(make_model(), LORA, seed=0)
    assert fuse(model) is None, "a gradient is wanted: the adapters' alone"
    with torch.no_grad():
        assert fuse(adapted(make_model(dtype=torch.bfloat16), LORA, seed=0)) is None, "small adapters would round away"
        next(m for m in model.modules() if is_adapter_layer(m)).enable_adapters(False)
        assert fuse(model) is None
    half = adapted(make_model(dtype=torch.bfloat16), LORA, seed=0)
    assert {p.dtype for p in adapters_of(half).values()} == {torch.float32}


def run_loop(name, base, lora, folder, examples, pairs, **settings):
    """Train by one of the loops on ``base``, with adapters where ``lora`` is given; return what trained and the metrics."""
    common, steps = {"seed": 0, "folder": folder}, {**FAST, "batch_size": 8, "lora": lora, **settings}
    model = adapted(base, lora, seed=0)
    match name:
        case "sft":
            train_sft(model, examples, SftConfig(epochs=2, **steps), **common)
        case "reward":
            model = adapted(reward_model_from_policy(base, Tokens(), shared=True), lora, seed=0)
            train_reward(model, pairs, RewardConfig(epochs=3, **steps), **common)
        case "dpo":
            train_dpo(model, base, pairs, DpoConfig(epochs=4, **steps), **common)
        case _:
            config = PolicyConfig(**{**POLICY, "algorithm": name, "lora": lora, **settings})
            common["stop_ids"] = [END]
            if name == "ppo":
                value = adapted(reward_model_from_policy(base, Tokens(), shared=True), lora, seed=0)
                train_ppo(model, base, value, likes_a_token, PROMPTS, config, **common)
                model = torch.nn.ModuleDict({"policy": model, "value": value})
            else:
                train_grpo(model, base, likes_a_token, PROMPTS, config, **common)
    return model, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loop", ["sft", "reward", "dpo", "grpo", "rloo", "ppo"])
def test_only_adapters_and_heads_move_and_the_checkpoint_holds_nothing_else(loop, examples, pairs, tmp_path):
    from safetensors.torch import load_file

    base = make_model()
    before = weights(base)
    model, _ = run_loop(loop, base, LORA, tmp_path, examples, pairs)
    assert_same(weights(base), before)
    newest = sorted((tmp_path / "checkpoint").iterdir())[-1]
    held = load_file(newest / "model.safetensors")
    assert held.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.endswith("score.weight") for name in held)
    assert all(held[name].abs().sum() > 0 for name in held if "lora_B" in name)
    if loop in ("reward", "ppo"):
        assert any(name.endswith("score.weight") and held[name].abs().sum() > 0 for name in held)


def test_it_learns(examples, pairs, tmp_path):
    for loop in ("sft", "reward", "dpo"):
        _, rows = run_loop(loop, make_model(), LORA, tmp_path / loop, examples, pairs)
        assert rows[-1]["loss"] < 0.9 * rows[0]["loss"], loop
    settings = {"steps": 12, "group_size": 8, "kl_coef": 0.0}
    _, rows = run_loop("grpo", make_model(), LORA, tmp_path / "grpo", examples, pairs, **settings)
    early, late = (sum(row["reward_mean"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert late > early + 0.5 and rows[0]["drift_max"] < 1e-4


@pytest.mark.parametrize("loop", ["sft", "ppo"])
def test_a_resumed_run_is_bitwise_the_same(loop, examples, pairs, tmp_path, monkeypatch):
    from charter.training import optimise

    whole, _ = run_loop(loop, make_model(), LORA, tmp_path / "whole", examples, pairs)
    save, done = optimise.save_checkpoint, []

    def killed(*arguments, **settings):
        save(*arguments, **settings)
        done.append(1)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(optimise, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run_loop(loop, make_model(), LORA, tmp_path / "torn", examples, pairs)
    monkeypatch.undo()
    resumed, _ = run_loop(loop, make_model(), LORA, tmp_path / "torn", examples, pairs)
    assert_same(weights(whole), weights(resumed))


BY_PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own


@BY_PEFT
def test_what_is_saved_reads_the_same_in_transformers_and_in_peft(tmp_path):
    """A tied embedding, whose head nothing adapts; and a projection with a bias, which merging keeps."""
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, eos_token_id=END, attention_bias=True,
        initializer_range=0.2, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    for number, base in enumerate((make_model(), LlamaForCausalLM(config).eval())):
        folder = tmp_path / str(number)
        base.save_pretrained(folder / "base")
        model = stirred(adapted(base, LORA, seed=0))
        merged(model).save_pretrained(folder / "model")
        save_adapter(model, folder / "adapter", local(base, str(folder / "base")))
        plain = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
        by_peft = peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "adapter"
        )
        torch.testing.assert_close(logits_of(plain), logits_of(model), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits_of(by_peft.eval()), logits_of(model), atol=1e-5, rtol=1e-5)
        with by_peft.disable_adapter():
            torch.testing.assert_close(logits_of(by_peft), logits_of(base))
        assert {path.name for path in (folder / "adapter").iterdir()} == {
            "README.md", "adapter_config.json", "adapter_model.safetensors", "base.json",
        }  # fmt: skip


@BY_PEFT
def test_a_reward_model_of_adapter_and_head(pairs, tmp_path):
    """Trained over the policy's weights, it is read by PEFT, and comes back over the same weights as it was."""
    base = make_model()
    before = weights(base)
    base.save_pretrained(tmp_path / "base")
    model, _ = run_loop("reward", base, LORA, tmp_path, [], pairs)
    asked = [[pair.prompt_ids for pair in pairs], [[pair.a_ids, pair.b_ids] for pair in pairs]]
    owner = local(base, str(tmp_path / "base"))
    save_adapter(model, tmp_path / "adapter", owner)
    assert fits(tmp_path / "adapter", owner) and not fits(tmp_path / "adapter", local(base, "another"))
    again = load_adapter(reward_model_from_policy(base, Tokens(), shared=True), tmp_path / "adapter")
    assert score(again, *asked) == score(model, *asked)
    assert again.model.embed_tokens.weight.data_ptr() == base.model.embed_tokens.weight.data_ptr()
    assert not any(p.requires_grad for p in again.parameters())
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    by_peft = peft.PeftModel.from_pretrained(classifier, tmp_path / "adapter").eval()
    rows = [pair.prompt_ids + pair.a_ids for pair in pairs[:4]]
    with torch.no_grad():
        theirs = [float(by_peft(input_ids=torch.tensor([row])).logits) for row in rows]
    assert theirs == pytest.approx([a for a, _ in score(model, *asked)][:4], abs=1e-5)
    assert_same(weights(base), before)
    value = own_copy(again)
    assert {name for name, p in value.named_parameters() if p.requires_grad} == {*adapters_of(value), "score.weight"}
    assert value.score.weight.data_ptr() != again.score.weight.data_ptr()
    assert value.model.norm.weight is again.model.norm.weight
    value_model_from(reward_model_from_policy(base, Tokens()))  # the whole one still is a copy
    small = make_model()
    small = adapted(reward_model_from_policy(small, Tokens(), shared=True), LORA.model_copy(update={"rank": 2}), seed=0)
    save_adapter(small, tmp_path / "small", owner)
    (tmp_path / "small" / "adapter_config.json").write_bytes(
        (tmp_path / "adapter" / "adapter_config.json").read_bytes()
    )
    with pytest.raises(ModelError, match="train it again"):
        load_adapter(reward_model_from_policy(base, Tokens(), shared=True), tmp_path / "small")


def test_bfloat16_trains_adapters_in_float32(examples, tmp_path):
    base = make_model(dtype=torch.bfloat16)
    before = weights(base)
    model, rows = run_loop("sft", base, LORA, tmp_path / "sft", examples, [])
    assert_same(weights(base), before)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}
    assert {p.dtype for p in merged(model).parameters()} == {torch.bfloat16}
    run_loop("grpo", make_model(dtype=torch.bfloat16), LORA, tmp_path / "grpo", examples, [])
