"""A causal language model on this machine, behind the one protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from charter.errors import ModelError
from charter.models.chat import PLAIN_STOP, ChatEncoder
from charter.models.choose import option_logprobs
from charter.models.decode import sample_tokens
from charter.models.protocol import Choice, Generation, Question
from charter.records import Conversation


class LocalModel:
    """Implements LanguageModel over a Transformers causal LM.

    Attributes:
        model, tokenizer: the Transformers objects.
        has_chat_template: False for a base model, which gets a plain "Human: / Assistant:" transcript.
        context: tokens that a prompt and its response may have together.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, fingerprint: str) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.name, self.fingerprint = name, fingerprint
        self._chat = ChatEncoder(tokenizer)
        self.has_chat_template = self._chat.has_template
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 1_000_000)
        self.stop_ids = self._stop_ids()
        if self.model.generation_config and len(self.stop_ids) > 1:
            self.model.generation_config.eos_token_id = self.stop_ids  # once saved, every library stops where we do
        self._known_spellings: dict[str, list[list[int]]] = {}

    def _stop_ids(self) -> list[int]:
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        found = configured if isinstance(configured, list) else [configured]
        return sorted({i for i in [*found, self.tokenizer.eos_token_id, self._chat.end_id] if i is not None})

    def encode_prompt(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation, up to where the assistant begins."""
        return self._chat.prompt(conversation)

    def encode_response(self, text: str) -> list[int]:
        """Token ids of an assistant turn, with the token that ends it."""
        return [*self._chat.said(text), self._chat.end_id]

    @property
    def closing_ids(self) -> list[int]:
        """What stands behind the last response of a conversation that is over: there a reward is read."""
        return self._chat.closing_ids

    def encode_scored(self, text: str) -> list[int]:
        """Token ids of an assistant turn, up to where a reward is read."""
        return [*self._chat.said(text), *self._chat.closing_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of response tokens, without the stop token and what a base model says in the user's name."""
        text = self.tokenizer.decode([i for i in ids if i not in self.stop_ids], skip_special_tokens=True)
        return str(text if self.has_chat_template else text.split(PLAIN_STOP)[0]).strip()

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        """See LanguageModel. A prompt that leaves no room in the context gives a "failed" generation."""
        prompts = [self.encode_prompt(conversation) for conversation in conversations]
        fits = [i for i, prompt in enumerate(prompts) if len(prompt) + max_new_tokens <= self.context]
        sampled = sample_tokens(
            self.model,
            [prompts[i] for i in fits],
            seeds=[seeds[i] for i in fits],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_ids=self.stop_ids,
            stops_early=None if self.has_chat_template else self._speaks_for_the_user,
        )
        made = [Generation("", "failed", len(prompt), 0) for prompt in prompts]
        for i, ids, stopped in zip(fits, sampled.ids, sampled.stopped, strict=True):
            made[i] = Generation(self.decode(ids), "stop" if stopped else "length", len(prompts[i]), len(ids))
        return made

    def _speaks_for_the_user(self, ids: list[int]) -> bool:
        return PLAIN_STOP in self.tokenizer.decode(ids[-16:])

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """See LanguageModel. With or without a space before it, a one-token option is the same word: both count.

        A question that doesn't fit into the context gets no log-probabilities ("too_long").
        """
        made: list[Choice | None] = []
        prompts, spellings = [], []
        for question in questions:
            prompt, ways = self._encode_question(question)
            fits = len(prompt) + max(len(way) for option in ways for way in option) <= self.context
            made.append(None if fits else Choice(None, len(prompt), "too_long"))
            if fits:
                prompts.append(prompt)
                spellings.append(ways)
        scored = iter(
            option_logprobs(self.model, prompts, [[way for option in ways for way in option] for ways in spellings])
        )
        asked = iter(zip(prompts, spellings, strict=True))
        return [choice or self._choice(*next(asked), next(scored)) for choice in made]

    def _encode_question(self, question: Question) -> tuple[list[int], list[list[list[int]]]]:
        """Token ids of the prompt with what the answer begins with, and of each option's spellings.

        Raises:
            ModelError: two options have the same tokens.
        """
        prompt = self.encode_prompt(question.conversation)
        prefill = question.prefill.rstrip(" ")  # a space before the option belongs to its first token
        spaced = len(prefill) < len(question.prefill) or not (self.has_chat_template or prefill)
        if prefill:
            prompt = prompt + self._chat.text(prefill if self.has_chat_template else f" {prefill.lstrip()}")
        spellings = [self._spellings(option, spaced) for option in question.options]
        ways = [tuple(way) for option in spellings for way in option]
        if () in ways or len(set(ways)) < len(ways):
            raise ModelError(
                f"model {self.name!r}: its tokenizer can't tell the options {', '.join(map(repr, question.options))} "
                "apart; use another model, or options that it knows"
            )
        return prompt, spellings

    def _spellings(self, option: str, spaced: bool) -> list[list[int]]:
        option = f" {option}" if spaced and not option.startswith(" ") else option
        if option not in self._known_spellings:
            self._known_spellings[option] = self._spell(option)
        return self._known_spellings[option]

    def _spell(self, option: str) -> list[list[int]]:
        written = self._chat.text(option)
        other = self._chat.text(option.removeprefix(" ") if option.startswith(" ") else f" {option}")
        both = len(written) == len(other) == 1 and written != other
        return [written, other] if both else [written]

    def _choice(self, prompt: list[int], spellings: list[list[list[int]]], values: list[float]) -> Choice:
        given = iter(values)
        logprobs = tuple(_log_sum_exp([next(given) for _ in ways]) for ways in spellings)
        return Choice(logprobs, len(prompt))

    def free(self) -> None:
        """Give the memory back."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _log_sum_exp(values: list[float]) -> float:
    top = max(values)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(value - top) for value in values))
