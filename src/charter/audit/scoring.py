"""Scores that the audit computes itself: rewards of responses, and the policy's own verdict on pairs.

    policy's verdict   log p(A)/q(A) - log p(B)/q(B), p the policy, q its reference: the reward difference, divided by the
                       KL coefficient, for which p would be the best policy (Rafailov et al. 2023, arXiv:2305.18290, eq. 5)

Models are read from the run folder with Transformers alone; no training code of ours takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import ModelConfig
from charter.errors import ModelError
from charter.models.load import load_model
from charter.models.local import LocalModel
from charter.records import Prompt

ROWS_PER_FORWARD = 64
MAX_WORK = 4e12
"""Floating-point operations that a pass of scoring may take: about a minute on two cores."""

Texts = Sequence[tuple[Prompt, str]]


class TooMuchWork(Exception):
    """Scoring would take too long here; the message is a reason for a figure that isn't known."""


class RewardScorer:
    """A saved reward model and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        """Load it.

        Raises:
            ModelError: it can't be loaded, or isn't a classifier with one output.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        from charter.models.chat import ChatEncoder

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True
            ).eval()
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # a damaged folder makes Transformers raise nearly anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{folder}: no reward model that can be loaded ({reason}): train it again") from error
        if self.model.config.num_labels != 1:
            raise ModelError(
                f"{folder}: a classifier with {self.model.config.num_labels} outputs: a reward model has one"
            )
        self._chat = ChatEncoder(tokenizer)

    def __call__(self, texts: Texts) -> list[float]:
        """The reward (nats) of each response, read where the conversation ends.

        Raises:
            TooMuchWork: it would take longer than an audit may.
        """
        rows = self.encoded(texts)
        _refuse_too_much(self.model, sum(map(len, rows)))
        return _by_length(rows, self._score)

    def encoded(self, texts: Texts) -> list[list[int]]:
        """Token ids of each prompt and response, up to the end of the conversation."""
        closing = self._chat.closing_ids
        return [[*self._chat.prompt(p.messages), *self._chat.said(text), *closing] for p, text in texts]

    def _score(self, rows: list[list[int]]) -> list[float]:
        import torch

        ids_BL, mask_BL = _padded(rows)
        end_B = mask_BL.sum(dim=1) - 1
        with torch.inference_mode():
            hidden_BLD = self.model.base_model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
            head = getattr(self.model, "score", None) or self.model.classifier
            found: list[float] = head(hidden_BLD[torch.arange(len(rows)), end_B])[:, 0].float().tolist()
        return found


def load_for_reading(folder: Path, texts: Texts) -> tuple[Any, list[list[int]]]:
    """A saved policy, and the token ids of each prompt and response. Raises ModelError: it can't be loaded."""
    loaded = load_model(ModelConfig(source=str(folder), device="cpu"))
    rows = [[*loaded.encode_prompt(prompt.messages), *loaded.encode_response(text)] for prompt, text in texts]
    return loaded.model, rows


def hidden_states(model: Any, rows: list[list[int]]) -> list[Any]:
    """float64[N, D] at the last token of each row: of the middle layer, and of the last as the head sees it.

    Raises:
        TooMuchWork: it would take longer than an audit may.
    """
    import numpy as np

    _refuse_too_much(model, sum(map(len, rows)))
    both = _by_length(rows, lambda batch: _end_states(model, batch))
    return [np.array([state[layer] for state in both], dtype=np.float64) for layer in (0, 1)]


def _end_states(model: Any, rows: list[list[int]]) -> list[Any]:
    import torch

    ids_BL, mask_BL = _padded(rows)
    at = torch.arange(len(rows)), mask_BL.sum(dim=1) - 1
    with torch.inference_mode():
        found = model.base_model(input_ids=ids_BL, attention_mask=mask_BL, output_hidden_states=True)
    layers = found.hidden_states
    middle_BD, last_BD = layers[len(layers) // 2][at].float().numpy(), found.last_hidden_state[at].float().numpy()
    return list(zip(middle_BD, last_BD, strict=True))


def policy_log_ratios(policy: Path, reference: Path, texts: Texts) -> list[float]:
    """log p/q (nats) of each response.

    Raises:
        ModelError: a folder can't be loaded; TooMuchWork: it would take longer than an audit may.
    """
    whole = [False] * len(texts)
    chosen = [row_logprobs(folder, texts, whole) for folder in (policy, reference)]
    return [p - q for p, q in zip(*chosen, strict=True)]


def row_logprobs(folder: Path, texts: Texts, cut: Sequence[bool]) -> list[float]:
    """log p (nats) of each response under a saved model.

    Args:
        cut: the response ran into a limit, so that its end of turn was never said.

    Raises as ``policy_log_ratios``.
    """
    return _logprobs(load_model(ModelConfig(source=str(folder), device="cpu")), texts, cut)


def _logprobs(model: LocalModel, texts: Texts, cut: Sequence[bool]) -> list[float]:
    prompts = [model.encode_prompt(prompt.messages) for prompt, _ in texts]
    spoken = [model.encode_response(text) for _, text in texts]
    ends = [-1 if short else None for short in cut]
    rows = [[*ids, *own[:end]] for ids, own, end in zip(prompts, spoken, ends, strict=True)]
    _refuse_too_much(model.model, sum(map(len, rows)))
    starts = {tuple(row): len(ids) for row, ids in zip(rows, prompts, strict=True)}
    return _by_length(rows, lambda batch: _sequence_logprobs(model.model, batch, [starts[tuple(row)] for row in batch]))


def _sequence_logprobs(model: Any, rows: list[list[int]], starts: list[int]) -> list[float]:
    import torch

    ids_BL, mask_BL = _padded(rows)
    with torch.inference_mode():
        logprobs_BLV = model(input_ids=ids_BL, attention_mask=mask_BL).logits[:, :-1].float().log_softmax(-1)
    token_BL = logprobs_BLV.gather(2, ids_BL[:, 1:, None])[..., 0]
    return [
        float(token_BL[i, start - 1 : len(row) - 1].sum())
        for i, (row, start) in enumerate(zip(rows, starts, strict=True))
    ]


def _padded(rows: list[list[int]]) -> tuple[Any, Any]:
    """int64[B, L] ids padded on the right with 0, and their mask (1 counts)."""
    import torch

    length = max(map(len, rows))
    ids_BL = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask_BL = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids_BL, mask_BL


def _by_length(rows: list[list[int]], score: Any) -> list[Any]:
    """Score rows of like length together; results in the order given."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[Any] = [None] * len(rows)
    for start in range(0, len(order), ROWS_PER_FORWARD):
        piece = order[start : start + ROWS_PER_FORWARD]
        for i, value in zip(piece, score([rows[i] for i in piece]), strict=True):
            found[i] = value
    return found


def _refuse_too_much(model: Any, num_tokens: int) -> None:
    work = 2.0 * sum(parameter.numel() for parameter in model.parameters()) * num_tokens
    if work > MAX_WORK:
        raise TooMuchWork(f"scoring {num_tokens} tokens by this model would take longer than an audit may")
