"""Ask a labeler again, and let the ledger answer: what was asked about a pair, word for word, and what was said.

No model is loaded. A question whose answer isn't in the ledger is shown as such: its model or its principle was changed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from charter.labelers.recorded import RecordedModel
from charter.models.protocol import Choice, Generation, Question
from charter.records import Conversation
from charter.store.ledger import Ledger

MISSING = "not in the ledger"


class ReplayedModel:
    """Stands in for a model: its name, its fingerprint, and its answers of old.

    Attributes:
        heard: everything that was asked of it, in order, as JSON.
    """

    def __init__(self, name: str, fingerprint: str, ledger: Ledger, heard: list[dict[str, Any]]) -> None:
        self.name, self.fingerprint, self.heard = name, fingerprint, heard
        self._recorded = RecordedModel(_Absent(name, fingerprint), ledger)

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        """As ``LanguageModel.generate``; a missing answer has failed."""
        answers = self._recorded.generate(
            conversations, seeds=seeds, max_new_tokens=max_new_tokens, temperature=temperature
        )
        for conversation, answer in zip(conversations, answers, strict=True):
            said = answer.text if answer.finish_reason != "failed" else None
            self.heard.append(
                {
                    **self._asked(conversation),
                    "reply": said,
                    "finish_reason": answer.finish_reason if said is not None else MISSING,
                    "num_tokens": answer.num_prompt_tokens + answer.num_completion_tokens,
                }
            )
        return answers

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """As ``LanguageModel.choose``; a missing answer has no log-probabilities."""
        answers = self._recorded.choose(questions)
        for question, answer in zip(questions, answers, strict=True):
            self.heard.append(
                {
                    **self._asked(question.conversation),
                    "prefill": question.prefill,
                    "options": list(question.options),
                    "logprobs": None if answer.logprobs is None else list(answer.logprobs),
                    "reason": answer.reason,
                    "num_tokens": answer.num_prompt_tokens,
                }
            )
        return answers

    def _asked(self, conversation: Conversation) -> dict[str, Any]:
        return {"model": self.name, "conversation": [message.to_json() for message in conversation]}


class _Absent:
    """A model that isn't there; what it says is never written into the ledger."""

    def __init__(self, name: str, fingerprint: str) -> None:
        self.name, self.fingerprint = name, fingerprint

    def generate(self, conversations: Sequence[Conversation], **settings: Any) -> list[Generation]:
        return [Generation("", "failed", 0, 0) for _ in conversations]

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        return [Choice(None, 0, MISSING) for _ in questions]
