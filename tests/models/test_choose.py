"""Option probabilities equal one forward pass per question, however questions share their beginnings."""

import numpy as np
import pytest
import torch
from tests.models.tiny import tiny_model

from charter.models import choose
from charter.models.choose import option_logprobs
from charter.models.fused import fuse
from charter.models.shared import attention, plain_attention
from charter.models.tree import MIN_SHARED, grow

VOCAB = 60
ARCHITECTURES = [
    "llama",
    "mistral",
    "qwen3",
    "qwen2",
    "gpt2",
    "gemma2",
    "llama-scaled",
    "llama-biased",
    "mistral-windowed",
]


def words(rng, count: int) -> list[int]:
    return rng.integers(3, VOCAB, count).tolist()


def nested_prompts(seed: int, pairs: int = 5, principles: int = 4) -> list[list[int]]:
    """Worked examples > conversation > order > principle, all of uneven length."""
    rng = np.random.default_rng(seed)
    examples = words(rng, 18)
    prompts = []
    for _ in range(pairs):
        conversation = examples + words(rng, rng.integers(14, 30))
        for _ in range(2):
            ordered = conversation + words(rng, rng.integers(13, 24))
            prompts += [ordered + words(rng, rng.integers(2, 9)) for _ in range(principles)]
    return prompts


@torch.no_grad()
def one_by_one(model, prompts, options):
    found = []
    for prompt, choices in zip(prompts, options, strict=True):
        values = []
        for option in choices:
            logprobs = model(torch.tensor([prompt + option])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            values.append(float(logprobs[range(len(option)), option].sum()))
        found.append(values)
    return found


def assert_equal(model, prompts, options):
    expected = np.concatenate([np.array(row) for row in one_by_one(model, prompts, options)])
    found = np.concatenate([np.array(row) for row in option_logprobs(model, prompts, options)])
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_single_token_options_equal_one_by_one(arch):
    prompts = nested_prompts(0)
    assert_equal(tiny_model(arch, VOCAB), prompts, [[[5], [6], [7]]] * len(prompts))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_options_of_several_tokens_equal_one_by_one(arch):
    rng = np.random.default_rng(1)
    prompts = nested_prompts(1, pairs=3)
    options = [[words(rng, 1), words(rng, 3), words(rng, 2)] for _ in prompts]
    assert_equal(tiny_model(arch, VOCAB), prompts, options)


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
def test_odd_shapes(arch):
    """One token, equal prompts, one a beginning of the other, empty input, an option that begins another."""
    model, rng = tiny_model(arch, VOCAB), np.random.default_rng(2)
    long = words(rng, 40)
    prompts = [[5], long, long, long[:25], [*long, 9], words(rng, 3)]
    assert_equal(model, prompts, [[[7], [8]], [[7], [7, 8]], [[7], [8]], [[7], [8]], [[9], [9, 9, 9]], [[3]]])
    assert option_logprobs(model, [], []) == []


@pytest.mark.parametrize("seed", range(5))
def test_random_sets_of_prompts(seed):
    rng = np.random.default_rng(seed)
    pool = [words(rng, 60) for _ in range(3)]
    prompts = [pool[rng.integers(3)][: rng.integers(1, 50)] + words(rng, rng.integers(1, 12)) for _ in range(40)]
    assert_equal(tiny_model("qwen3", VOCAB, seed), prompts, [[[5], [6]]] * 40)


def test_small_batches_give_the_same(monkeypatch):
    prompts = nested_prompts(3)
    monkeypatch.setattr("charter.models.shared.TOKENS_PER_BATCH", 150)
    assert_equal(tiny_model("llama", VOCAB), prompts, [[[5], [6]]] * len(prompts))
    monkeypatch.setattr(choose, "TOKENS_PER_BATCH", 150)
    monkeypatch.setattr(choose, "MAX_ROW", 100)
    assert_equal(tiny_model("gpt2", VOCAB), prompts, [[[5], [6]]] * len(prompts))


def test_grown_trees_hold_each_sequence_once_and_share():
    prompts = nested_prompts(4)
    trees = grow(prompts, [1] * len(prompts))
    leaves = [leaf for tree in trees for leaf in tree.levels()[-1]]
    assert sorted(leaf.member for leaf in leaves) == list(range(len(prompts)))
    assert all(leaf.ids == prompts[leaf.member] for leaf in leaves)
    for tree in trees:
        for node, _ in tree.depth_first():
            assert all(child.ids[: len(node.ids)] == node.ids for child in node.children)
    computed = sum(tree.num_tokens for tree in trees)
    assert computed == sum(len(n.ids) - start for tree in trees for n, start in tree.depth_first())
    assert computed < 0.4 * sum(map(len, prompts))
    assert len(trees) == 1 and len(trees[0].levels()) == 4  # examples, conversations, orders, principles


def test_a_short_common_beginning_is_not_shared():
    rng = np.random.default_rng(0)
    beginning = words(rng, MIN_SHARED - 1)
    assert len(grow([beginning + words(rng, 9) for _ in range(4)], [1] * 4)) == 4


def test_trees_are_no_larger_than_asked():
    prompts = nested_prompts(5, pairs=30)
    trees = grow(prompts, [1] * len(prompts), 300)
    assert max(tree.num_tokens for tree in trees) <= 300 and len(trees) > 5


def test_windows_and_recurrence_are_not_given_branches():
    assert not choose._honours_branches(tiny_model("gemma2", VOCAB))
    assert not choose._honours_branches(tiny_model("mistral-windowed", VOCAB))
    assert choose._honours_branches(tiny_model("gpt2", VOCAB))
    wide = tiny_model("mistral-windowed", VOCAB)
    wide.config.sliding_window = 64  # wider than what is tried
    assert choose._try_branches(wide) and not choose._honours_branches(wide)


def test_attention_by_its_definition_equals_the_kernel():
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, 8) for n in (5, 9, 9))
    bias = torch.zeros(3, 1, 1, 9).masked_fill(
        torch.arange(9) >= torch.tensor([9, 4, 7])[:, None, None, None], -torch.inf
    )
    for causal, b, own in ((False, None, q), (False, bias, q), (True, None, torch.randn(3, 2, 9, 8))):
        for fast, plain in zip(
            attention(own, k, v, b, causal=causal), plain_attention(own, k, v, b, causal=causal), strict=True
        ):
            torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)


def test_float64_takes_the_plain_path():
    prompts = nested_prompts(7, pairs=2)
    assert_equal(tiny_model("llama", VOCAB).double(), prompts, [[[5], [6]]] * len(prompts))


def test_bfloat16_is_close():
    model = tiny_model("qwen3", VOCAB).to(torch.bfloat16)
    prompts = nested_prompts(6, pairs=2)
    options = [[[5], [6]]] * len(prompts)
    assert fuse(model) is not None
    found, exact = (np.array(option_logprobs(m, prompts, options)) for m in (model, tiny_model("qwen3", VOCAB)))
    assert np.abs(found - exact).mean() < 0.3
