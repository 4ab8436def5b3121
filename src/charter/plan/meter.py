"""Models that count what they are asked: a real one behind a meter, or a stand-in that answers without any model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from charter.models.chat import ChatEncoder
from charter.models.protocol import Choice, Generation, LanguageModel, Question
from charter.records import Conversation

CHARACTERS_PER_TOKEN = 4.0  # of English in the usual vocabularies; used where no tokenizer is at hand
FILLER = "some words "
TOKENS_PER_TURN = 5.0  # what chat templates put around a turn


@dataclass(frozen=True, slots=True)
class Tally:
    """Work that was done or is to be done; fractions come from scaling up."""

    calls: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    seconds: float = 0.0
    weighed: float = 0.0  # of the completion tokens, those of options that are weighed: a server bills them

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            self.weighed + other.weighed,
        )

    def __mul__(self, factor: float) -> Tally:
        return Tally(
            self.calls * factor,
            self.prompt_tokens * factor,
            self.completion_tokens * factor,
            self.seconds * factor,
            self.weighed * factor,
        )


def total(tallies: Sequence[Tally]) -> Tally:
    """Their sum."""
    return sum(tallies, Tally())


@dataclass
class Meter:
    """A language model whose work is written down, one tally per batch."""

    model: LanguageModel
    batches: list[Tally] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name, self.fingerprint = self.model.name, self.model.fingerprint

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        """As ``LanguageModel.generate``."""
        began = time.monotonic()
        made = self.model.generate(conversations, seeds=seeds, max_new_tokens=max_new_tokens, temperature=temperature)
        read, written = sum(g.num_prompt_tokens for g in made), sum(g.num_completion_tokens for g in made)
        self.batches.append(Tally(len(made), read, written, time.monotonic() - began))
        return made

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """As ``LanguageModel.choose``; an option that is weighed counts as a token written, as servers count it."""
        began = time.monotonic()
        made = self.model.choose(questions)
        read = sum(choice.num_prompt_tokens for choice in made)
        weighed = 0 if self.is_local else len(made)
        self.batches.append(Tally(len(made), read, weighed, time.monotonic() - began, weighed))
        return made

    @property
    def is_local(self) -> bool:
        """Whether real weights answer, so that its seconds mean something."""
        return not isinstance(self.model, StandIn)

    def take(self) -> list[Tally]:
        """What was written down since the last time."""
        taken, self.batches = self.batches, []
        return taken


class TokenRuler:
    """Measures texts by a tokenizer alone, without its model."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self._encoder = encoder
        filler = FILLER * 50
        self.filler_per_token = len(filler) / max(1, len(encoder.text(filler)))
        """Characters of a stand-in's answer that make a token."""

    def prompt(self, conversation: Conversation) -> float:
        """Tokens of a conversation, up to where the assistant begins."""
        return len(self._encoder.prompt(conversation))

    def response(self, text: str) -> float:
        """Tokens of a response, with the one that ends it."""
        return len(self._encoder.text(text)) + 1


@dataclass
class StandIn:
    """Answers every question without a model, in about as many words as one would: only its counts mean something.

    Args:
        answer_tokens: how long its answers are; None: as long as they may be.
    """

    name: str
    answer_tokens: float | None = None
    characters_per_token: float = CHARACTERS_PER_TOKEN
    fingerprint: str = ""
    asked: int = 0
    measure: Callable[[Conversation], float] | None = None  # a real tokenizer's count of a conversation

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        """As ``LanguageModel.generate``; each answer differs, and ends with a verdict and a number that can be read."""
        length = max_new_tokens if self.answer_tokens is None else min(max_new_tokens, math.ceil(self.answer_tokens))
        made = []
        for conversation in conversations:
            self.asked += 1
            ending = f"No. {_letters(self.asked)}: 5. The better response is A."
            filler = FILLER * max(0, round((length * self.characters_per_token - len(ending)) / len(FILLER)))
            text = filler + ending
            made.append(Generation(text, "stop", round(self.prompt(conversation)), length))
        return made

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """As ``LanguageModel.choose``: the first option is a little likelier."""
        made = []
        for question in questions:
            rest = math.log(0.4 / max(1, len(question.options) - 1))
            read = self.prompt(question.conversation) + len(question.prefill) / self.characters_per_token
            made.append(Choice((math.log(0.6), *[rest] * (len(question.options) - 1)), round(read)))
        return made

    def prompt(self, conversation: Conversation) -> float:
        """About how many tokens a conversation has."""
        if self.measure is not None:
            return self.measure(conversation)
        return sum(len(turn.content) / self.characters_per_token + TOKENS_PER_TURN for turn in conversation)

    def response(self, text: str) -> float:
        """About how many tokens a response has, with the one that ends it."""
        return len(text) / self.characters_per_token + 1


def _letters(number: int) -> str:
    """A number in letters, lest it be read as a score."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))
