"""Packed rows give what plain rows give: values and gradients, for every architecture, with or without a block mask."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from charter.training import packing
from charter.training.packing import PackedRow, response_logprobs, rows_by_tokens, shares_prompts, unpacked

from .tiny import assert_same, gradients, make_model

ROWS = [
    PackedRow([5, 6, 7], [[8, 9, 1], [4, 1], [1]]),
    PackedRow([3], [[2, 2, 2, 2, 2, 1], [9]]),
    PackedRow([11, 12, 13, 14, 15], [[6, 1]]),
]


def plain_logprobs(model, temperature=1.0):
    """One response at a time, by the model's own logits."""
    found = []
    for row in ROWS:
        for response in row.responses:
            logits = model(input_ids=torch.tensor([row.prompt + response])).logits[0] / temperature
            logprobs = logits.log_softmax(-1)[len(row.prompt) - 1 : -1]
            found.append(logprobs.gather(1, torch.tensor(response)[:, None])[:, 0])
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_plain_rows(policy, temperature):
    found = response_logprobs(policy, ROWS, temperature=temperature)
    for index, expected in enumerate(plain_logprobs(policy, temperature)):
        torch.testing.assert_close(found.logprobs_RT[index][found.mask_RT[index]], expected, atol=1e-5, rtol=1e-5)
        assert (found.logprobs_RT[index][~found.mask_RT[index]] == 0).all()


def test_gradients_are_those_of_plain_rows(policy):
    response_logprobs(policy, ROWS).logprobs_RT.sum().backward()
    packed = gradients(policy)
    policy.zero_grad()
    torch.cat(plain_logprobs(policy)).sum().backward()
    assert_same(packed, gradients(policy), atol=1e-4, rtol=1e-4)


def test_a_response_never_sees_its_sibling(policy):
    before = response_logprobs(policy, ROWS).logprobs_RT
    changed = [PackedRow([5, 6, 7], [[30, 31, 32], [4, 1], [1]]), *ROWS[1:]]
    after = response_logprobs(policy, changed).logprobs_RT
    torch.testing.assert_close(before[1:], after[1:])
    assert not torch.allclose(before[0], after[0])


def test_entropy_is_that_of_the_distribution(policy):
    found = response_logprobs(policy, ROWS[2:], with_entropy=True)
    logprobs = policy(input_ids=torch.tensor([ROWS[2].prompt + [6]])).logits[0, -2:].log_softmax(-1)
    torch.testing.assert_close(found.entropy_RT[0], -(logprobs.exp() * logprobs).sum(-1))


def test_the_head_in_chunks_changes_nothing(policy, monkeypatch):
    response_logprobs(policy, ROWS).logprobs_RT.sum().backward()
    whole = gradients(policy)
    policy.zero_grad()
    monkeypatch.setattr(packing, "LOGITS_PER_CHUNK", 100)
    response_logprobs(policy, ROWS).logprobs_RT.sum().backward()
    assert_same(whole, gradients(policy), atol=1e-5, rtol=1e-5)


def other_architectures():
    small = dict(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    yield LlamaForCausalLM(LlamaConfig(**small, initializer_range=0.2)), True
    yield GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2)), True
    yield (
        MistralForCausalLM(MistralConfig(**small, num_key_value_heads=1, sliding_window=3, initializer_range=0.2)),
        False,
    )


@pytest.mark.parametrize(("index", "shares"), [(0, True), (1, True), (2, False)])
def test_other_architectures(index, shares):
    torch.manual_seed(0)
    model, expected = list(other_architectures())[index]
    model.eval()
    assert shares_prompts(model) is expected is shares
    found = response_logprobs(model, ROWS)
    for place, values in enumerate(plain_logprobs(model)):
        torch.testing.assert_close(found.logprobs_RT[place][found.mask_RT[place]], values, atol=1e-5, rtol=1e-5)


def test_a_model_that_ignores_the_mask_is_found_out(monkeypatch):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2)).eval()
    forward = model.base_model.forward
    monkeypatch.setattr(
        model.base_model, "forward", lambda attention_mask=None, position_ids=None, **inputs: forward(**inputs)
    )
    assert not shares_prompts(model)
    assert len(packing.prepared(model, ROWS)) == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_weights_give_what_the_model_gives(dtype, monkeypatch):
    """Values and gradients; rounding apart in bfloat16."""
    found = []
    for known in (True, False):
        model = make_model(dtype=dtype)
        monkeypatch.setattr(packing, "has_own_ways", lambda _, known=known: not known)
        logprobs = response_logprobs(model, ROWS).logprobs_RT
        logprobs.sum().backward()
        found.append((logprobs.detach(), gradients(model)))
    (fused, fused_gradients), (plain, plain_gradients) = found
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.3, "rtol": 0.1}
    torch.testing.assert_close(fused, plain, **tolerance)
    for name, gradient in plain_gradients.items():
        off = (fused_gradients[name] - gradient).float().norm() / gradient.float().norm()
        assert off < (1e-4 if dtype == torch.float32 else 0.1), name


def test_equal_groups_give_what_plain_rows_give(policy):
    equal = [PackedRow([5, 6, 7], [[8, 9, 1], [4, 1]]), PackedRow([3], [[2, 2, 2, 2, 1], [9]])]
    together, apart = response_logprobs(policy, equal), response_logprobs(policy, unpacked(equal))
    torch.testing.assert_close(together.logprobs_RT, apart.logprobs_RT, atol=1e-5, rtol=1e-5)
    (first,) = torch.autograd.grad(together.logprobs_RT.sum(), policy.model.embed_tokens.weight)
    (second,) = torch.autograd.grad(apart.logprobs_RT.sum(), policy.model.embed_tokens.weight)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


def test_dropout_and_gradient_checkpointing_go_through_the_model(policy):
    assert not packing.has_own_ways(policy.train())
    policy.model.layers[0].self_attn.attention_dropout = 0.1
    assert packing.has_own_ways(policy) and not packing.has_own_ways(policy.eval())
    other = make_model().train()
    other.activation_checkpointing_enable()
    assert packing.has_own_ways(other)
    plain = response_logprobs(make_model(), ROWS).logprobs_RT
    torch.testing.assert_close(response_logprobs(other, ROWS).logprobs_RT, plain, atol=1e-5, rtol=1e-5)


def test_unpacking_keeps_the_order():
    assert [row.responses[0] for row in unpacked(ROWS)] == [r for row in ROWS for r in row.responses]


@pytest.mark.parametrize("tokens", [1, 12, 40, 10_000])
def test_batches_hold_every_row_once_and_keep_to_the_limit(tokens):
    rows = [PackedRow([1] * (i % 7 + 1), [[1] * (i % 5 + 1)]) for i in range(50)]
    batches = rows_by_tokens(rows, tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(rows[i]) for i in batch) <= tokens
