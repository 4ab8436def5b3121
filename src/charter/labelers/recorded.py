"""A language model that is never asked the same thing twice: its answers lie in the ledger, keyed by content.

The key of a question holds the model's fingerprint, the whole conversation, the options or the sampling settings. To edit
one principle therefore asks that principle's questions again and no others.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from charter.models.endpoint import EndpointModel
from charter.models.protocol import Choice, Generation, LanguageModel, Question
from charter.records import Conversation
from charter.store.hashing import hash_json
from charter.store.ledger import Ledger

LASTING_REASONS = ("too_long", "no_logprobs")  # what the same model would say again
Asked = TypeVar("Asked")
Answer = TypeVar("Answer", Choice, Generation)


class RecordedModel:
    """A language model in front of which stands the ledger.

    Attributes:
        num_asked: questions that went to the model, those answered from the ledger left out.
        num_tokens: tokens that the model read and wrote for them.
    """

    def __init__(self, model: LanguageModel, ledger: Ledger, tell: Callable[[str], None] | None = None) -> None:
        """``tell``: is told how far a server is with the questions that were put together."""
        self.name, self.fingerprint = model.name, model.fingerprint
        self.num_asked = self.num_tokens = 0
        self._model, self._ledger, self._tell = model, ledger, tell

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        """As ``LanguageModel.generate``. A greedy answer doesn't depend on its seed, which then isn't in the key."""
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        rows = list(zip(conversations, seeds if temperature > 0 else [0] * len(seeds), strict=True))

        def ask(missing: Sequence[tuple[Conversation, int]]) -> list[Generation]:
            asked, drawn = [row[0] for row in missing], [row[1] for row in missing]
            return self._model.generate(asked, seeds=drawn, max_new_tokens=max_new_tokens, temperature=temperature)

        keys = [self._key("generate", turns, {**settings, "seed": seed}) for turns, seed in rows]
        return self._answer(rows, keys, ask, lambda row: Generation(**row))

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """As ``LanguageModel.choose``."""
        keys = [
            self._key("choose", q.conversation, {"options": list(q.options), "prefill": q.prefill}) for q in questions
        ]
        return self._answer(questions, keys, self._model.choose, _choice)

    def _key(self, call: str, conversation: Conversation, settings: dict[str, Any]) -> str:
        turns = [message.to_json() for message in conversation]
        return hash_json([self.fingerprint, call, turns, settings])

    def _answer(
        self,
        rows: Sequence[Asked],
        keys: Sequence[str],
        ask: Callable[[Sequence[Asked]], list[Answer]],
        decode: Callable[[dict[str, Any]], Answer],
    ) -> list[Answer]:
        known = {key: decode(value) for key, value in self._ledger.get_many(list(dict.fromkeys(keys))).items()}
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        self._keep_as_they_come(list(missing))
        fresh = dict(zip(missing, ask(list(missing.values())), strict=True)) if missing else {}
        self._ledger.put_many({key: dataclasses.asdict(answer) for key, answer in fresh.items() if self._lasts(answer)})
        self.num_asked += len(fresh)
        self.num_tokens += sum(_num_tokens(answer) for answer in fresh.values())
        return [fresh[key] if key in fresh else known[key] for key in keys]

    def _keep_as_they_come(self, keys: Sequence[str]) -> None:
        """A server's answers go into the ledger one by one: a kill loses at most those on their way."""
        if not isinstance(self._model, EndpointModel):
            return
        model, ledger = self._model, self._ledger
        model.usage = list(ledger.usage(self.fingerprint))
        seen, rows_done = list(model.usage), itertools.count(1)

        def keep(row: int, answer: Any) -> None:
            if self._tell is not None:
                self._tell(f"{next(rows_done):,} of {len(keys):,} answers of this batch")
            used = [now - before for now, before in zip(model.usage, seen, strict=True)]
            seen[:] = model.usage
            ledger.add_usage(self.fingerprint, *used)
            if self._lasts(answer):
                ledger.put_many({keys[row]: dataclasses.asdict(answer)})

        model.on_answer = keep

    def _lasts(self, answer: Choice | Generation) -> bool:
        if isinstance(answer, Generation) and isinstance(self._model, EndpointModel):
            return answer.finish_reason in EndpointModel.lasting_finishes
        return _lasting(answer)


def _lasting(answer: Choice | Generation) -> bool:
    """A failed call is no answer: the next run asks again."""
    if isinstance(answer, Choice):
        return answer.logprobs is not None or answer.reason in LASTING_REASONS
    return answer.finish_reason != "failed"


def _num_tokens(answer: Choice | Generation) -> int:
    return answer.num_prompt_tokens + (answer.num_completion_tokens if isinstance(answer, Generation) else 0)


def _choice(row: dict[str, Any]) -> Choice:
    return Choice(**{**row, "logprobs": None if row["logprobs"] is None else tuple(row["logprobs"])})
