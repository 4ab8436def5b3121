"""The one protocol through which everything talks to a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from charter.records import Conversation

FinishReason = Literal["stop", "length", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One sampled assistant turn."""

    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_completion_tokens: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Log-probabilities (nats) of given options as the next words of the assistant, one per option.

    ``logprobs`` is None where the model can't give them; ``reason`` then says why.
    """

    logprobs: tuple[float, ...] | None
    num_prompt_tokens: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation and the options between which the model chooses.

    ``prefill`` is text with which the assistant's turn already begins.
    """

    conversation: Conversation
    options: tuple[str, ...]
    prefill: str = ""


class LanguageModel(Protocol):
    """A frozen chat model.

    Attributes:
        name: for people: a path, hub id or endpoint model.
        fingerprint: content hash of weights, tokenizer and template (or server identity): keys the ledger.
    """

    name: str
    fingerprint: str

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        """Sample one assistant turn per conversation.

        Row ``i`` draws from its own stream, seeded by ``seeds[i]``: its text doesn't depend on its
        neighbours' random numbers. ``temperature`` 0 is greedy.
        """
        ...

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Log-probabilities of each question's options. Neighbouring questions that begin alike share that work."""
        ...
