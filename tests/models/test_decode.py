"""Sampling equals what Transformers generates, and rows are independent."""

import numpy as np
import pytest
import torch
from tests.models.tiny import tiny_model

from charter.errors import ModelError
from charter.models.cache import RECENT, packed_order
from charter.models.decode import _batches, sample_tokens
from charter.models.engines import FusedEngine, make_engine
from charter.models.fused import fuse

VOCAB = 60
FUSED = ("llama", "mistral", "qwen3")
OTHER = ("qwen2", "gpt2", "gemma2", "llama-scaled", "llama-biased", "mistral-windowed")


def make_prompts(count: int = 7, seed: int = 0, longest: int = 20) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, rng.integers(1, longest)).tolist() for _ in range(count)]


def sample(model, prompts, seeds=None, steps=12, temperature=1.0, stop=(2,)):
    seeds = list(range(len(prompts))) if seeds is None else seeds
    return sample_tokens(
        model, prompts, seeds=seeds, max_new_tokens=steps, temperature=temperature, stop_ids=list(stop)
    )


@torch.no_grad()
def logprobs_of(model, prompt, response, temperature=1.0):
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float()
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.parametrize("arch", FUSED)
def test_known_shapes_are_fused(arch):
    assert fuse(tiny_model(arch, VOCAB)) is not None


@pytest.mark.parametrize("arch", OTHER)
def test_unusual_models_are_not_fused(arch):
    assert fuse(tiny_model(arch, VOCAB)) is None


def test_adapters_are_not_fused():
    model = tiny_model("llama", VOCAB)

    class LoraLinear(torch.nn.Linear):
        pass

    layer = model.model.layers[1].mlp
    layer.up_proj = LoraLinear(32, 48, bias=False)
    assert fuse(model) is None


@pytest.mark.parametrize("arch", [*FUSED, *OTHER])
def test_greedy_equals_generate(arch):
    model = tiny_model(arch, VOCAB)
    for prompt, ids in zip(make_prompts(), sample(model, make_prompts(), temperature=0.0).ids, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
            max_new_tokens=12, eos_token_id=2, pad_token_id=0,
        )[0, len(prompt) :]  # fmt: skip
        assert ids == expected.tolist()


@pytest.mark.parametrize("arch", [*FUSED, *OTHER])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_a_full_forward(arch, temperature):
    model = tiny_model(arch, VOCAB)
    prompts = make_prompts()
    sampled = sample(model, prompts, temperature=temperature)
    for prompt, ids, logprobs in zip(prompts, sampled.ids, sampled.logprobs, strict=True):
        torch.testing.assert_close(
            torch.tensor(logprobs), logprobs_of(model, prompt, ids, temperature), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_row_does_not_depend_on_its_neighbours(arch):
    model = tiny_model(arch, VOCAB).double()
    prompts = make_prompts(9)
    together = sample(model, prompts, steps=20)
    for i, prompt in enumerate(prompts):
        assert sample(model, [prompt], seeds=[i], steps=20).ids[0] == together.ids[i]


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_equal_prompts_share_their_prefill_and_differ_by_seed(arch):
    model = tiny_model(arch, VOCAB)
    prompt = make_prompts(1)[0]
    shapes = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape[0]))
    sampled = sample(model, [prompt] * 6, seeds=[1, 2, 3, 4, 5, 1])
    hook.remove()
    if arch == "gpt2":
        assert shapes[0] == 1  # one row is prefilled for six
    assert sampled.ids[0] == sampled.ids[5]
    assert len({tuple(ids) for ids in sampled.ids}) > 2


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
def test_finished_rows_leave_the_batch(arch):
    model = tiny_model(arch, VOCAB)
    prompts = make_prompts(16)
    batch_sizes = []
    engine = make_engine(model, prompts)
    step = type(engine).step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine), "step", lambda self, drawn: (batch_sizes.append(len(drawn)), step(self, drawn)))
        sampled = sample(model, prompts, steps=40, stop=range(2, 20))
    assert isinstance(engine, FusedEngine) == (arch == "qwen3")
    assert batch_sizes[-1] < 16 and sorted(batch_sizes, reverse=True) == batch_sizes
    for ids, stopped in zip(sampled.ids, sampled.stopped, strict=True):
        assert (ids[-1] in range(2, 20)) == stopped
        assert not any(token in range(2, 20) for token in ids[:-1])


def test_sampling_follows_the_distribution():
    model = tiny_model("llama", VOCAB)
    prompt = [5, 6, 7]
    draws = sample(model, [prompt] * 2000, steps=1, seeds=list(range(2000)), stop=()).ids
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits[0, -1].softmax(-1).numpy()
    counts = np.bincount([ids[0] for ids in draws], minlength=VOCAB)
    # each count is binomial: five standard deviations
    assert np.all(np.abs(counts - 2000 * expected) <= 5 * np.sqrt(2000 * expected * (1 - expected)) + 1)


def test_an_early_stop_ends_a_row():
    model = tiny_model("llama", VOCAB)
    sampled = sample_tokens(
        model, [[5, 6], [7]], seeds=[0, 1], max_new_tokens=9, temperature=1.0, stop_ids=[],
        stops_early=lambda ids: len(ids) == 3,
    )  # fmt: skip
    assert [len(ids) for ids in sampled.ids] == [3, 3] and sampled.stopped == [True, True]


def test_nan_is_an_error_not_a_token():
    model = tiny_model("llama", VOCAB)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        sample(model, [[5, 6]])


def test_batches_hold_each_row_once_and_stay_small():
    lengths = [3, 500, 4, 200_000, 90] * 100
    batches = _batches(lengths, 64)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    assert all(len(batch) <= 64 for batch in batches)
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 1 << 17 for batch in batches)


@pytest.mark.parametrize("arch", FUSED)
@pytest.mark.parametrize(("steps", "num_stops"), [(14, 20), (3 * RECENT, 2)])
def test_groups_of_several_sizes_whose_rows_leave_keep_their_own_prompt(arch, steps, num_stops):
    model = tiny_model(arch, VOCAB)
    first, second, third = make_prompts(3, seed=4)
    prompts = [first] * 5 + [second] + [third] * 3 + [first]
    found = sample(model, prompts, steps=steps, stop=range(num_stops))
    assert len({len(ids) for ids in found.ids}) > 3
    for prompt, ids, logprobs in zip(prompts, found.ids, found.logprobs, strict=True):
        torch.testing.assert_close(torch.tensor(logprobs), logprobs_of(model, prompt, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kept", "order"), [([0, 1], [0, 1]), ([1, 3, 4], [3, 1, 4]), ([2], [2]), ([0, 2, 5], [0, 5, 2])]
)
def test_the_last_places_fill_the_holes(kept, order):
    assert sorted(packed_order(kept)) == kept
    assert [place for to, place in enumerate(packed_order(kept)) if place == to] == [p for p in kept if p < len(kept)]
    assert packed_order(kept) == order
