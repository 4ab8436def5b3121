"""The village's tokenizer: one word, one token; a chat template of three marks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from charter.village import words
from charter.village.corpus import example

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = (PAD, UNKNOWN, USER, ASSISTANT, END)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}"
    " {{ message['content'] }} <|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def vocabulary() -> list[str]:
    """Special tokens, then every word of the village in alphabetical order: the same at each call."""
    rng = random.Random(0)
    found: set[str] = {"<", ">", "(", ")", "!", "system"}
    for value in vars(words).values():
        if isinstance(value, list):
            found.update(word for entry in value for word in entry.split())
    found.update(words.HELD_OUT_NAMES)
    for _ in range(4000):
        drawn = example(rng, 0.1)
        for _, text in drawn.beginning + [turn for branch in drawn.branches for turn in branch]:
            found.update(text.split())
    return [*SPECIAL_TOKENS, *sorted(found)]


def make_tokenizer(vocab: list[str]) -> Any:
    """A ``PreTrainedTokenizerFast`` that splits on white space."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocab)}, unk_token=UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def starter_folder() -> Path:
    """Where the shipped starter model lies."""
    return Path(__file__).parent / "starter"


def early_folder() -> Path:
    """Where the starter's earlier, weaker checkpoint lies."""
    return Path(__file__).parent / "starter-early"


def constitution_file() -> Path:
    """Where the village's constitution lies."""
    return Path(__file__).parents[1] / "constitutions" / "village.yaml"
