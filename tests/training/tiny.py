"""A random model of two layers, small enough to train within a test."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

VOCAB, END = 40, 1


def make_model(seed=0, dtype=torch.float32):
    """Weights are large enough that the model has opinions, and that mistakes show."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=128, tie_word_embeddings=True, initializer_range=0.2,
        pad_token_id=0, eos_token_id=END,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).to(dtype).eval()


class Tokens:
    """What training needs to know of a tokenizer."""

    pad_token_id, eos_token_id = 0, END


def draw_ids(rng, low, high):
    return [rng.randrange(2, VOCAB) for _ in range(rng.randint(low, high))]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], **(tolerance or {"atol": 0, "rtol": 0}))
