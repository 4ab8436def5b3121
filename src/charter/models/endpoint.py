"""A model behind an OpenAI-compatible server, by the official client.

What a server can do wrong is expected here, and none of it becomes an answer: see models/calls.py for retries, limits and
deadlines. Log-probabilities are read where the server gives them; one that ignores the request gives an abstention.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from charter.config import EndpointConfig, ModelConfig
from charter.errors import BudgetError, CharterError, ConfigError
from charter.models.calls import BadItem, Caller, Malformed
from charter.models.protocol import Choice, FinishReason, Generation, Question
from charter.records import Conversation
from charter.store.hashing import hash_json

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "refused"}
Answer = TypeVar("Answer")


def is_endpoint(source: str) -> bool:
    """Whether a source names a server."""
    return source.startswith(("http://", "https://"))


def endpoint_fingerprint(source: str) -> str:
    """Under which the ledger keeps a server's answers and usage."""
    base_url, model = _parts(source)
    return hash_json({"endpoint": base_url, "model": model})


class EndpointModel:
    """A frozen chat model behind a server; ``with`` is not needed, connections end with each batch.

    Attributes:
        on_answer: called with (row, answer) as soon as an answer is there, from another thread, one at a time.
        usage: calls, prompt tokens and completion tokens so far; set it to what earlier attempts used.
        lasting_finishes: finish reasons that may be remembered; refusals and truncations are asked again.
    """

    lasting_finishes = ("stop",)

    def __init__(self, config: ModelConfig, notice: Callable[[str], None] | None = None) -> None:
        self._settings = config.endpoint or EndpointConfig()
        self._base_url, self._model = _parts(config.source)
        self._key = _key(self._base_url, self._settings.key_env)
        self.name = config.source
        self.fingerprint = endpoint_fingerprint(config.source)
        self.on_answer: Callable[[int, Any], None] | None = None
        self.usage = [0, 0, 0]
        self._lock = threading.Lock()
        self._caller = Caller(self._settings, self.name, self._key, notice or (lambda line: None))

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        """As ``LanguageModel.generate``. A row that got no answer within its deadline has failed.

        Raises:
            EndpointError: the server refuses everybody, or stayed dead too long.
            BudgetError: a cap on money or tokens is reached; what was answered has been handed to ``on_answer``.
        """

        async def one(client: Any, row: int) -> Generation:
            completion = await self._complete(
                client,
                messages=_messages(conversations[row]),
                max_tokens=max_new_tokens,
                temperature=temperature,
                seed=seeds[row] % (1 << 31),
            )
            return self._generation(completion)

        return self._all(len(conversations), one, lambda: Generation("", "failed", 0, 0))

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """As ``LanguageModel.choose``: from the log-probabilities of the first token.

        An option that isn't among the likeliest tokens has at most the probability of the last of them, and is given that.
        Raises as ``generate``.
        """

        async def one(client: Any, row: int) -> Choice:
            question = questions[row]
            completion = await self._complete(
                client,
                max_tokens=1,
                temperature=0.0,
                logprobs=True,
                top_logprobs=self._settings.top_logprobs,
                **self._put(question),
            )
            first, num_tokens = self._first(completion)
            told = _likeliest(first)
            if not told:
                return Choice(None, num_tokens, "no_logprobs")
            found = option_logprobs(told, question.options)
            return Choice(found, num_tokens, None if found else "unreadable")

        return self._all(len(questions), one, lambda: Choice(None, 0, "endpoint_failed"))

    async def _complete(self, client: Any, **body: Any) -> Any:
        """One chat completion. The client's typed models cost more than all else of a call, so plain JSON is read."""
        answer = await client.post("/chat/completions", cast_to=object, body={"model": self._model, **body})
        return _attributes(answer)

    def _put(self, question: Question) -> dict[str, Any]:
        """Messages of a question; an answer that is begun is gone on with where the server can, else asked to end."""
        messages = _messages(question.conversation)
        if not question.prefill:
            return {"messages": messages}
        messages.append({"role": "assistant", "content": question.prefill})
        if self._settings.continues_answers:
            return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
        options = " or ".join(option.strip() for option in question.options)
        return {"messages": [*messages, {"role": "user", "content": f"End your answer with one of: {options}"}]}

    def _all(
        self, count: int, one: Callable[[Any, int], Awaitable[Answer]], failed: Callable[[], Answer]
    ) -> list[Answer]:
        """Ask all rows; the loop lives in a thread of its own, so that this works inside a running loop too."""
        if not count:
            return []

        async def row(client: Any, index: int) -> Answer:
            self._check_caps()
            try:
                answer = await self._caller.call(lambda: one(client, index))
            except BadItem as bad:
                answer = failed()
                if isinstance(answer, Choice) and bad.too_long:
                    answer = Choice(None, 0, "too_long")  # type: ignore[assignment]
            if self.on_answer is not None:
                with self._lock:
                    self.on_answer(index, answer)
            return answer

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(self._rows(count, row))).result()

    async def _rows(self, count: int, row: Callable[[Any, int], Awaitable[Answer]]) -> list[Answer]:
        answers: list[Any] = [None] * count
        stopped: list[CharterError] = []
        waiting = iter(range(count))
        async with self._caller.client(self._base_url) as client:

            async def worker() -> None:
                for index in waiting:
                    try:
                        answers[index] = await row(client, index)
                    except CharterError as error:  # what is on its way comes to its end, and is kept
                        stopped.append(error)
                    if stopped:
                        return

            async with asyncio.TaskGroup() as group:
                for _ in range(min(count, self._settings.concurrency)):
                    group.create_task(worker())
        if stopped:
            raise stopped[0]
        return answers

    def _check_caps(self) -> None:
        settings, (_, prompt, completion) = self._settings, self.usage
        if settings.max_tokens is not None and prompt + completion >= settings.max_tokens:
            raise BudgetError(
                f"{self.name}: {prompt + completion:,} tokens used, endpoint.max_tokens is {settings.max_tokens:,}: "
                "raise it and run the same command again, answers so far are kept"
            )
        if settings.max_spend is not None and self.spent() >= settings.max_spend:
            raise BudgetError(
                f"{self.name}: {self.spent():.4f} spent, endpoint.max_spend is {settings.max_spend:g}: raise it and run the "
                "same command again, answers so far are kept"
            )

    def spent(self) -> float:
        """Money so far, by the prices in the run file."""
        price = self._settings.price
        return (self.usage[1] * price[0] + self.usage[2] * price[1]) / 1e6 if price else 0.0

    def _first(self, completion: Any) -> tuple[Any, int]:
        """The first choice of a well-formed completion, and its prompt's tokens; counts the usage."""
        choices = getattr(completion, "choices", None)
        if getattr(completion, "error", None) or not isinstance(choices, list) or not choices:
            raise Malformed("no choices in the answer")
        if getattr(choices[0], "message", None) is None:
            raise Malformed("a choice without a message")
        usage = getattr(completion, "usage", None)
        prompt = int(getattr(usage, "prompt_tokens", 0) or 0)
        with self._lock:
            self.usage = [
                self.usage[0] + 1,
                self.usage[1] + prompt,
                self.usage[2] + int(getattr(usage, "completion_tokens", 0) or 0),
            ]
        return choices[0], prompt

    def _generation(self, completion: Any) -> Generation:
        first, prompt = self._first(completion)
        written = int(getattr(getattr(completion, "usage", None), "completion_tokens", 0) or 0)
        text, finish = first.message.content, FINISH.get(str(first.finish_reason))
        if getattr(first.message, "refusal", None) or finish == "refused":
            return Generation(text if isinstance(text, str) else "", "refused", prompt, written)
        if not isinstance(text, str) or finish is None:
            raise Malformed(f"finish_reason {str(first.finish_reason)[:40]!r} with {type(text).__name__} as text")
        return Generation(text, finish, prompt, written)


def option_logprobs(told: Sequence[tuple[str, float]], options: Sequence[str]) -> tuple[float, ...] | None:
    """Log-probability of each option from the likeliest first tokens.

    Every token that spells an option, or begins to, and begins no other, counts for it. None where no option is there.
    """
    words = [option.strip() for option in options]
    p = [0.0] * len(options)
    for token, logprob in told:
        spelled = token.strip()
        fits = [i for i, word in enumerate(words) if spelled and word.startswith(spelled)]
        if len(fits) == 1:
            p[fits[0]] += math.exp(logprob)
    if not any(p):
        return None
    least = math.exp(min(logprob for _, logprob in told))
    return tuple(math.log(max(each, min(least, max(p)))) if each == 0 else math.log(each) for each in p)


def _attributes(obj: Any) -> Any:
    """JSON with its keys as attributes."""
    if isinstance(obj, dict):
        return SimpleNamespace(**{str(key): _attributes(value) for key, value in obj.items()})
    return [_attributes(value) for value in obj] if isinstance(obj, list) else obj


def _likeliest(choice: Any) -> list[tuple[str, float]]:
    """The likeliest first tokens with their log-probabilities; none where the server gives none."""
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content:
        return []
    try:
        told = [(str(entry.token), float(entry.logprob)) for entry in content[0].top_logprobs or []]
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise Malformed("log-probabilities that can't be read") from error
    if any(math.isnan(logprob) or logprob > 1e-3 for _, logprob in told):
        raise Malformed("log-probabilities that are none")
    return told


def _messages(conversation: Conversation) -> list[dict[str, str]]:
    return [message.to_json() for message in conversation]


def _parts(source: str) -> tuple[str, str]:
    """(base URL, model name) of ``http://host:port/v1#model``."""
    base, mark, model = source.partition("#")
    parts = urlsplit(base)
    if not mark or not model:
        raise ConfigError(f"{base}: no model named: write the server's model after a #, as http://host:8000/v1#name")
    if parts.username or parts.password:
        raise ConfigError(f"{parts.hostname}: no user or password in the URL: keys come from the environment")
    return base, model


def _key(base_url: str, variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key and urlsplit(base_url).hostname not in LOCAL_HOSTS:
        raise ConfigError(
            f"{base_url}: the environment holds no {variable}: put the key there, or name another key_env"
        )
    return key or "none"
