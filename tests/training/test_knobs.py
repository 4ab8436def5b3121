"""Every knob of batch and device leaves the gradient the same, in every loop.

The reference is the plainest way: Transformers' own forward pass, one response in a row, one row in a pass.
"""

from __future__ import annotations

import random

import pytest
import torch

from charter.config import LoraConfig, PolicyConfig
from charter.errors import ConfigError
from charter.training import packing
from charter.training.dpo import accumulate_dpo, reference_logprobs
from charter.training.grpo import GroupUpdate
from charter.training.optimise import Trainer, checkpoint_layers
from charter.training.packing import PackedRow
from charter.training.ppo import ActorCriticUpdate
from charter.training.reward import EncodedPair, accumulate_reward, reward_model_from_policy
from charter.training.rollout import EncodedPrompt, roll_out
from charter.training.sft import accumulate_sft

from .test_grpo import OneStep
from .tiny import END, Tokens, draw_ids, gradients, make_model

LOOPS = ("sft", "reward", "dpo", "grpo", "ppo")
POLICY = PolicyConfig(group_size=3, max_new_tokens=8, kl_coef=0.1, entropy_coef=0.01)
CLOSE = 2e-5
"""Of the length of the reference gradient: how far another one may be, in float32."""
CLOSE_BF16 = 0.06
"""The same in bfloat16, whose steps are 0.4 % wide, through two layers forward and backward."""


def pairs():
    rng = random.Random(1)
    return [
        EncodedPair(draw_ids(rng, 2, 12), [*draw_ids(rng, 0, 7), END], [*draw_ids(rng, 0, 7), END], rng.random())
        for _ in range(11)
    ]


@pytest.fixture(scope="module")
def rolled():
    """Groups of three responses to five prompts, drawn once, and rewards of which one is missing."""
    rng = random.Random(2)
    prompts = [EncodedPrompt(f"p{i}", draw_ids(rng, 2, 12)) for i in range(5)]
    rollouts = roll_out(make_model(), prompts, POLICY, seed=0, step=1, stop_ids=[END])
    rewards = [rng.gauss(0, 1) for _ in rollouts]
    return rollouts, [None if i == 4 else reward for i, reward in enumerate(rewards)]


def classifier(model):
    made = reward_model_from_policy(model, Tokens(), shared=True)
    torch.manual_seed(5)
    torch.nn.init.normal_(made.score.weight, std=0.2)
    return made


def models_of(loop, change=lambda model: model, dtype=torch.float32):
    """The model that trains; in PPO with a value model of its own weights."""
    model = make_model(dtype=dtype)
    if loop == "reward":
        model = classifier(model)
    if loop == "ppo":
        return torch.nn.ModuleDict({"policy": change(model), "value": change(classifier(make_model(3, dtype)))})
    return change(model)


def gradient_of(loop, model, rolled, tokens=8192, order=lambda items: items):
    """The gradient of one update, by name; ``order`` lays out examples, or groups of rollouts."""
    model.train()
    match loop:
        case "sft":
            accumulate_sft(model, order([PackedRow(p.prompt_ids, [p.a_ids]) for p in pairs()]), tokens)
        case "reward":
            accumulate_reward(model, order(pairs()), 0.01, tokens)
        case "dpo":
            own = order(pairs())
            reference_B2 = reference_logprobs(make_model(seed=8), [pair.row for pair in own], tokens)
            accumulate_dpo(model, own, reference_B2, 0.5, tokens)
        case _:
            rollouts, rewards = rolled
            places = [3 * group + g for group in order(list(range(5))) for g in range(3)]
            step = [rollouts[i] for i in places], [rewards[i] for i in places]
            recorder, reference = OneStep(model), make_model(seed=8)
            if loop == "grpo":
                GroupUpdate(model, reference, POLICY, tokens)(recorder, *step)
            else:
                config = POLICY.model_copy(update={"algorithm": "ppo", "gae_lambda": 0.9})
                ActorCriticUpdate(model["policy"], reference, model["value"], config, tokens)(recorder, *step)
            return recorder.seen[0]
    return gradients(model)


def unfused(model):
    """The same model under a name that the fused forward pass doesn't know."""
    model.__class__ = type("Unknown", (type(model),), {})
    return model


def checkpointing(model):
    checkpoint_layers(model)
    return model


def distance(found, expected):
    """Length of the difference, of the expected gradient's length; names must be the same."""
    assert found.keys() == expected.keys()
    apart = sum(float((found[name].double() - expected[name].double()).square().sum()) for name in expected)
    return (apart / sum(float(value.double().square().sum()) for value in expected.values())) ** 0.5


@pytest.fixture(scope="module")
def plainest(rolled):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "shares_prompts", lambda model: False)
        return {loop: gradient_of(loop, models_of(loop, unfused), rolled, tokens=1) for loop in LOOPS}


def reverse(items):
    return items[::-1]


def shuffle(items):
    return random.Random(7).sample(items, len(items))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("tokens", [1, 30, 60, 100, 8192])
def test_tokens_per_forward(loop, tokens, rolled, plainest):
    """From one row or group a pass to all of them in one."""
    assert distance(gradient_of(loop, models_of(loop), rolled, tokens), plainest[loop]) < CLOSE


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("order", [reverse, shuffle])
def test_the_order_of_rows(loop, order, rolled, plainest):
    assert distance(gradient_of(loop, models_of(loop), rolled, 60, order), plainest[loop]) < CLOSE


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("change", [unfused, lambda model: model], ids=["transformers", "fused"])
def test_packing_and_fusing(loop, shares, change, rolled, plainest, monkeypatch):
    monkeypatch.setattr(packing, "shares_prompts", lambda model: shares)
    assert distance(gradient_of(loop, models_of(loop, change), rolled, 60), plainest[loop]) < CLOSE


@pytest.mark.parametrize("loop", LOOPS)
def test_gradient_checkpointing(loop, rolled, plainest):
    """The same gradient, and every layer computed twice."""
    model, calls = models_of(loop, checkpointing), []
    norm = next(m for name, m in model.named_modules() if name.endswith("layers.0.input_layernorm"))
    norm.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    assert distance(gradient_of(loop, model, rolled), plainest[loop]) < CLOSE
    assert calls.count(True) == 2


@pytest.mark.parametrize("loop", ["sft", "dpo", "grpo", "ppo"])
def test_logits_in_pieces_that_are_computed_again(loop, rolled, plainest, monkeypatch):
    monkeypatch.setattr(packing, "LOGITS_PER_CHUNK", 200)  # five tokens
    assert distance(gradient_of(loop, models_of(loop), rolled), plainest[loop]) < CLOSE


@pytest.mark.parametrize("loop", LOOPS)
def test_bfloat16_to_its_own_precision(loop, rolled, plainest):
    found = gradient_of(loop, models_of(loop, dtype=torch.bfloat16), rolled, 60)
    assert distance(found, plainest[loop]) < CLOSE_BF16


@pytest.mark.parametrize("loop", LOOPS)
def test_the_measure_sees_what_matters(loop, rolled, plainest):
    """A wrong count, a lost row and another model are all far beyond the tolerances."""
    doubled = {name: 2 * value for name, value in plainest[loop].items()}
    assert distance(doubled, plainest[loop]) > 10 * CLOSE_BF16
    lost = gradient_of(loop, models_of(loop), rolled, 60, lambda items: [items[1], *items[1:]])
    assert distance(lost, plainest[loop]) > 1.5 * CLOSE_BF16


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("knob", ["tokens", "checkpointing"])
def test_the_gradient_of_adapters_too(loop, knob, rolled):
    pytest.importorskip("peft", reason="PEFT is not installed")
    from charter.training.lora import adapted, adapters_of

    def adapt(model):
        made = adapted(model, LoraConfig(rank=4), seed=0)
        generator = torch.Generator().manual_seed(1)
        for parameter in adapters_of(made).values():
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        return made

    expected = gradient_of(loop, models_of(loop, adapt), rolled)
    assert all("lora_" in name or name.endswith("score.weight") for name in expected)
    if knob == "tokens":
        found = gradient_of(loop, models_of(loop, adapt), rolled, 1)
    else:
        found = gradient_of(loop, models_of(loop, lambda model: checkpointing(adapt(model))), rolled, 60)
    assert distance(found, expected) < CLOSE


def test_the_settings_reach_the_model(tmp_path):
    """Checkpointing is on in every part that trains, and no part of what identifies a run."""
    both = models_of("ppo")
    common = {"num_steps": 1, "learning_rate": 1e-3, "warmup_fraction": 0.0, "settings": []}
    Trainer(both, tmp_path, gradient_checkpointing=True, **common)
    assert all(any(getattr(m, "gradient_checkpointing", False) for m in part.modules()) for part in both.values())
    knobs = POLICY.model_copy(update={"gradient_checkpointing": True, "tokens_per_forward": 10})
    assert knobs.settings() == POLICY.settings()
    assert POLICY.model_copy(update={"lora": LoraConfig()}).settings() != POLICY.settings()


def test_a_model_that_cannot_is_told_in_one_line():
    model = make_model()
    type(model).supports_gradient_checkpointing = False
    try:
        with pytest.raises(ConfigError, match="gradient_checkpointing: Qwen3ForCausalLM has none: leave it out"):
            checkpoint_layers(model)
    finally:
        del type(model).supports_gradient_checkpointing


def test_gradients_of_many_passes_add_up_in_float32(tmp_path, monkeypatch):
    """In bfloat16 the sum of many small ones would lose the small ones."""
    rows = [PackedRow(p.prompt_ids, [p.a_ids]) for p in pairs() * 20]
    expected: dict[str, torch.Tensor] = {}
    for row in rows:
        model = make_model(dtype=torch.bfloat16)
        count = sum(len(r.responses[0]) for r in rows)
        loss = -packing.response_logprobs(model, [row]).logprobs_RT.sum() / count
        loss.backward()
        for name, value in gradients(model).items():
            expected[name] = expected.get(name, 0) + value.double()
    model, seen = make_model(dtype=torch.bfloat16), {}
    trainer = Trainer(model, tmp_path, num_steps=1, learning_rate=1e-3, warmup_fraction=0, settings=[])
    look = lambda: seen.update({name: w.grad.clone() for name, w in trainer._weights.items()})  # noqa: E731
    monkeypatch.setattr(trainer.optimizer, "step", look)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **__: torch.tensor(1.0))
    measured = accumulate_sft(model, rows, 1)
    trainer.update(measured["loss"])
    assert distance(seen, expected) < 1e-5
    assert all(parameter.grad is None for parameter in model.parameters())
