"""Random tiny models of several architectures, saved as any Hugging Face model, with a tokenizer made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = (
    "the a is it to of and you me help how do i make tell open lock door bread kind rude no yes please in secret one two "
    "A B Yes No . ? ! : better reply which"
).split()
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPACED = (
    "{% for m in messages %}<|im_start|> {{ m['content'] }} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def word_tokenizer(chat_template: str | None = SPACED) -> Any:
    """One token per word, split at white space."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(raw, chat_template, unk_token="<unk>")


def bpe_tokenizer(chat_template: str | None = CHATML) -> Any:
    """Byte-level BPE as GPT-2's and Qwen's, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([" ".join(WORDS), "user\nassistant\nsystem\n", " A B (A) (B) A B"] * 3, trainer)
    return _wrap(raw, chat_template)


def _wrap(raw: Any, chat_template: str | None, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>" if chat_template else "<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        **special,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_model(arch: str, vocab_size: int, seed: int = 0) -> Any:
    """Two layers, random weights large enough that the next-word distribution is far from uniform."""
    import torch
    import transformers

    shape = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256,
    }  # fmt: skip
    gpt2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
    settings: dict[str, dict[str, Any]] = {
        "llama": shape,
        "llama-scaled": {**shape, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
        "llama-biased": {**shape, "attention_bias": True},
        "mistral": {**shape, "sliding_window": None},
        "mistral-windowed": {**shape, "sliding_window": 8},
        "qwen2": shape,
        "qwen3": {**shape, "head_dim": 16, "tie_word_embeddings": True},
        "gemma2": {**shape, "head_dim": 8, "sliding_window": 8},
        "gpt2": gpt2,
    }
    family = arch.partition("-")[0]
    name = {
        "llama": "Llama",
        "mistral": "Mistral",
        "qwen2": "Qwen2",
        "qwen3": "Qwen3",
        "gemma2": "Gemma2",
        "gpt2": "GPT2",
    }
    ids = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{name[family]}Config")(
        vocab_size=vocab_size, initializer_range=0.3, **ids, **settings[arch]
    )
    torch.manual_seed(seed)
    model = getattr(transformers, {"gpt2": "GPT2LMHeadModel"}.get(family, f"{name[family]}ForCausalLM"))(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases, which start at ones and zeros: let them matter
                parameter += torch.randn_like(parameter) * 0.2
    return model.eval()


def save_tiny_model(folder: Path, arch: str = "llama", tokenizer: Any = None, seed: int = 0) -> Path:
    """A whole model folder."""
    tokenizer = word_tokenizer() if tokenizer is None else tokenizer
    tiny_model(arch, len(tokenizer), seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
