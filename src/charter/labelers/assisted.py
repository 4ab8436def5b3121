"""Critiques of both responses, by a named model, that the labeler sees before it decides.

One step of recursive reward modelling (Leike et al. 2018, arXiv:1811.07871; Saunders et al. 2022, arXiv:2206.05802): a model
that is helped to judge. The critic is asked as in phase 1, with the principle's own critique request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from charter.labelers.asking import ABSTENTION_OF_FINISH, Ask
from charter.labelers.question import Material
from charter.models.protocol import Generation, LanguageModel
from charter.records import Abstention, Conversation, Message, Principle

CRITIQUE_IN_GENERAL = "Say in a few sentences what is good and what is bad about your last response."


@dataclass(frozen=True, slots=True)
class Critiques:
    """Writes a critique of each response of each question; greedy, so that both orders see the same ones."""

    critic: LanguageModel
    max_new_tokens: int

    def __call__(self, asks: Sequence[Ask]) -> list[tuple[Material, ...] | Abstention]:
        """As ``asking.Prepare``."""
        requests = [critique_request(ask, response) for ask in asks for response in ask.shown]
        written = self.critic.generate(
            requests, seeds=[0] * len(requests), max_new_tokens=self.max_new_tokens, temperature=0.0
        )
        return [_both(written[2 * i], written[2 * i + 1]) for i in range(len(asks))]


def critique_request(ask: Ask, response: str) -> Conversation:
    """The conversation to which the answer is a critique of ``response``."""
    return (
        *ask.pair.prompt.messages,
        Message("assistant", response),
        Message("user", _request(ask.principle)),
    )


def _request(principle: Principle | None) -> str:
    return principle.critique_request if principle else CRITIQUE_IN_GENERAL


def _both(first: Generation, second: Generation) -> tuple[Material, ...] | Abstention:
    for generation in (first, second):
        if generation.finish_reason != "stop":
            return ABSTENTION_OF_FINISH.get(generation.finish_reason, Abstention.UNREADABLE)
    return Material("critique", "A", first.text), Material("critique", "B", second.text)
