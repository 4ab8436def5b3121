"""A causal language model on this machine, behind the one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

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

    def _stop_ids(self) -> list[int]:
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        found = configured if isinstance(configured, list) else [configured]
        return sorted({i for i in [*found, self.tokenizer.eos_token_id] if i is not None})

    def encode_prompt(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation, up to where the assistant begins."""
        return self._chat.prompt(conversation)

    def encode_response(self, text: str) -> list[int]:
        """Token ids of an assistant turn, with the token that ends it."""
        end = [self.tokenizer.eos_token_id] if self.tokenizer.eos_token_id is not None else self.stop_ids[:1]
        return self._chat.text(text if self.has_chat_template else f" {text.strip()}") + end

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
        )
        made = [Generation("", "failed", len(prompt), 0) for prompt in prompts]
        for i, ids, stopped in zip(fits, sampled.ids, sampled.stopped, strict=True):
            made[i] = Generation(self.decode(ids), "stop" if stopped else "length", len(prompts[i]), len(ids))
        return made

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """See LanguageModel; a question that doesn't fit into the context gets no log-probabilities."""
        prompts, options, fits = [], [], []
        for i, question in enumerate(questions):
            prompt = self.encode_prompt(question.conversation) + self._chat.text(question.prefill)
            choices = [self._chat.text(option) for option in question.options]
            prompts.append(prompt)
            options.append(choices)
            if len(prompt) + max(map(len, choices)) <= self.context:
                fits.append(i)
        scored = option_logprobs(self.model, [prompts[i] for i in fits], [options[i] for i in fits])
        made = [Choice(None, len(prompt), "too_long") for prompt in prompts]
        for i, logprobs in zip(fits, scored, strict=True):
            made[i] = Choice(tuple(logprobs), len(prompts[i]))
        return made

    def free(self) -> None:
        """Give the memory back."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
