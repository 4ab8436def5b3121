"""A random tiny model, a constitution, prompts and a run file: everything that a run needs, made in a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WORDS = (
    "the a is it to of and you me help how do i make tell open lock door bread kind rude no yes please A B Yes No . ? :"
)


def make_tiny_model(folder: Path, seed: int) -> Path:
    """A random Llama of two layers with a chat template, saved as any Hugging Face model."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<user>", "<assistant>", "<end>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS.split()])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<assistant>' if m['role'] == 'assistant' else '<user>' }} {{ m['content'] }} <end>"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, eos_token_id=4, bos_token_id=None,
        tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompt_rows(label: str, count: int) -> list[dict]:
    words = WORDS.split()
    return [
        {
            "id": f"{label}-{i}",
            "messages": [
                {"role": "user", "content": f"how do i {words[i % 20]} {words[(i * 7) % 20]} {words[(i // 3) % 20]} ?"}
            ],
            "harmful": [True, False, None][i % 3],
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory) -> Path:
    """A folder with run.yaml, constitution.yaml, two prompt files, and the models helpful/ and labeler/."""
    folder = tmp_path_factory.mktemp("world")
    make_tiny_model(folder / "helpful", seed=0)
    make_tiny_model(folder / "labeler", seed=1)
    write_rows(folder / "prompts.jsonl", prompt_rows("train", 24))
    write_rows(folder / "held_out.jsonl", prompt_rows("test", 9))
    (folder / "constitution.yaml").write_text(
        "name: tiny\nprinciples:\n- {id: kind, text: be kind .}\n- {id: help, text: help me ., weight: 2}\n"
    )
    (folder / "run.yaml").write_text(
        """
name: tiny
num_threads: 1
constitution: constitution.yaml
model: {source: helpful, dtype: float32, device: cpu}
prompts: {source: prompts.jsonl}
revise: {num_prompts: 12, rounds: 2, sampling: {max_new_tokens: 8, batch_size: 4}}
sft: {num_helpful: 8, batch_size: 8, epochs: 2, learning_rate: 0.001, checkpoint_every: 2}
sample: {sampling: {max_new_tokens: 8, batch_size: 8}}
label: {labeler: {model: {source: labeler, dtype: float32, device: cpu}, batch_size: 6}}
reward: {batch_size: 4, epochs: 2, learning_rate: 0.001, holdout_fraction: 0.2, checkpoint_every: 2}
policy: {steps: 4, prompts_per_step: 3, group_size: 2, max_new_tokens: 8, learning_rate: 0.001, checkpoint_every: 1}
evaluate:
  prompts: {source: held_out.jsonl}
  sl_rounds: [1]
  num_checkpoints: 1
  sampling: {max_new_tokens: 8, batch_size: 4}
"""
    )
    return folder


@pytest.fixture(scope="session")
def whole(tiny_world, tmp_path_factory) -> Path:
    """The undisturbed run of that world, shared by all modules: copy it before you write into it."""
    from charter.pipeline import run
    from charter.progress import QuietProgress
    from charter.run_file import load_run

    out = tmp_path_factory.mktemp("runs") / "whole"
    run(load_run(tiny_world / "run.yaml"), out, QuietProgress())
    return out
