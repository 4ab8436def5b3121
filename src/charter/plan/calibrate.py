"""How fast the run's own model is on this machine: a few real answers, and one real pass forward and backward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charter.config import LoraConfig
from charter.models.decode import MAX_ROWS_CPU, MAX_ROWS_GPU
from charter.models.local import LocalModel
from charter.plan.meter import Tally
from charter.records import Conversation, Prompt

FEW, MANY = 4, 32  # rows of the first and of the second timing
SECONDS = 20.0  # what generating the sample may take, about


class LocalRuler:
    """Measures texts by the model's own tokenizer."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model

    def prompt(self, conversation: Conversation) -> float:
        """Tokens of a conversation, up to where the assistant begins."""
        return len(self._model.encode_prompt(conversation))

    def response(self, text: str) -> float:
        """Tokens of a response, with the one that ends it."""
        return len(self._model.encode_response(text))


@dataclass(frozen=True)
class Speed:
    """Seconds of this machine. A batch of b rows takes ``per_batch + per_row * b`` to generate."""

    rows: int
    per_batch: float
    per_row: float
    written_tokens: float  # of one row in the timing
    per_trained_token: float = 0.0
    per_adapted_token: float = 0.0  # the same where adapters train
    per_forward_token: float = 0.0
    max_rows: int = MAX_ROWS_CPU

    def generating(self, tally: Tally, batch_rows: int) -> float:
        """Seconds for what is to be generated in batches of so many rows."""
        batch = max(1, min(batch_rows, self.max_rows))
        per_row = self.per_batch / batch + self.per_row
        return per_row * tally.completion_tokens / max(1.0, self.written_tokens)


def time_generating(model: LocalModel, prompts: Sequence[Prompt], max_new_tokens: int, rounds: int) -> Speed:
    """Time two sizes of batches; the rows to sample follow from what a row takes through all rounds."""
    cap = MAX_ROWS_GPU if model.model.device.type == "cuda" else MAX_ROWS_CPU
    _generate(model, prompts[:1], 2)  # warms up
    few, written = _generate(model, prompts[:FEW], max_new_tokens)
    rows = min(MANY, len(prompts), max(FEW, int(SECONDS / max(1e-6, few / FEW * (3 + 2 * rounds)))))
    if rows <= FEW:
        return Speed(min(FEW, len(prompts)), 0.0, few / FEW, written, max_rows=cap)
    many, written = _generate(model, prompts[:rows], max_new_tokens)
    per_row = max(0.0, (many - few) / (rows - FEW))
    return Speed(rows, max(0.0, many - per_row * rows), per_row, written, max_rows=cap)


def _generate(model: LocalModel, prompts: Sequence[Prompt], max_new_tokens: int) -> tuple[float, float]:
    """(seconds, tokens per row)."""
    began = time.monotonic()
    made = model.generate(
        [prompt.messages for prompt in prompts],
        seeds=list(range(len(prompts))),
        max_new_tokens=max_new_tokens,
    )
    return time.monotonic() - began, sum(g.num_completion_tokens for g in made) / len(made)


def time_passes(model: LocalModel, texts: Sequence[tuple[Conversation, str]]) -> tuple[float, float]:
    """(seconds per token forward and backward, seconds per token forward alone); the second of two passes counts."""
    import torch

    rows = _rows(model, texts)
    num_tokens = sum(map(len, rows))
    trained = _time_training(model.model, rows)
    with torch.no_grad():
        for _ in range(2):
            began = time.monotonic()
            _forward(model, rows)
            forward = time.monotonic() - began
    return trained / num_tokens, forward / num_tokens


def time_adapters(model: LocalModel, texts: Sequence[tuple[Conversation, str]], lora: LoraConfig) -> float:
    """Seconds per token forward and backward where adapters on the model train; its own weights are frozen from here on."""
    from charter.training.lora import adapted

    rows = _rows(model, texts)
    return _time_training(adapted(model.model, lora, seed=0), rows) / sum(map(len, rows))


def _rows(model: LocalModel, texts: Sequence[tuple[Conversation, str]]) -> list[Any]:
    from charter.training.packing import PackedRow

    return [PackedRow(model.encode_prompt(turns), [model.encode_response(text)]) for turns, text in texts]


def _time_training(model: Any, rows: Sequence[Any]) -> float:
    from charter.training.packing import TOKENS_PER_FORWARD
    from charter.training.sft import accumulate_sft

    for _ in range(2):
        began = time.monotonic()
        accumulate_sft(model, rows, TOKENS_PER_FORWARD)
        trained = time.monotonic() - began
        model.zero_grad(set_to_none=True)
    return trained


def _forward(model: LocalModel, rows: Sequence[Any]) -> None:
    from charter.training.packing import TOKENS_PER_FORWARD, response_logprobs, rows_by_tokens

    for piece in rows_by_tokens(rows, TOKENS_PER_FORWARD):
        response_logprobs(model.model, [rows[i] for i in piece])
