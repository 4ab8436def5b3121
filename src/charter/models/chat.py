"""From conversations to token ids. Text inside a message never becomes a control token.

The chat template is rendered with a placeholder in each message's place; what stands between the placeholders is the
template's own text, tokenised with special tokens; each message's content is tokenised with special tokens split up.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from charter.errors import ModelError
from charter.records import Conversation

PLAIN_SPEAKERS = {"system": "\n\n", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
PLAIN_STOP = "\n\nHuman:"


class ChatEncoder:
    """Encodes conversations for one tokenizer; a base model without a chat template gets a plain transcript."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self._mark = f"charter{secrets.token_hex(8)}mark"
        self._frames: dict[tuple[str, ...], list[str]] = {}
        self._pieces: dict[str, list[int]] = {}

    def prompt(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation, up to where the assistant begins to speak."""
        roles = tuple(message.role for message in conversation)
        frame = self._frames.setdefault(roles, self._frame(roles)) if roles not in self._frames else self._frames[roles]
        ids = self._control(frame[0])
        for message, after in zip(conversation, frame[1:], strict=True):
            ids = ids + self.text(message.content) + self._control(after)
        return ids

    def text(self, content: str) -> list[int]:
        """Token ids of plain text; whatever looks like a special token is split up."""
        return list(self.tokenizer.encode(content, add_special_tokens=False, split_special_tokens=True))

    def _control(self, piece: str) -> list[int]:
        if piece not in self._pieces:
            self._pieces[piece] = list(self.tokenizer.encode(piece, add_special_tokens=False))
        return self._pieces[piece]

    def _frame(self, roles: Sequence[str]) -> list[str]:
        """The template's text before, between and after the contents."""
        if not self.has_template:
            bos = self.tokenizer.bos_token or ""
            starts = [PLAIN_SPEAKERS[role] for role in (*roles, "assistant")]
            return [bos + starts[0], *starts[1:-1], starts[-1].rstrip(" ")]
        messages = [{"role": role, "content": f"{self._mark}{i}."} for i, role in enumerate(roles)]
        try:
            rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is foreign code and may raise anything
            raise ModelError(f"the chat template refuses the roles {', '.join(roles)}: {error}; use another model") from error
        pieces: list[str] = []
        for i in range(len(roles)):
            before, found, rendered = rendered.partition(f"{self._mark}{i}.")
            if not found:
                raise ModelError(f"the chat template leaves out the {roles[i]} message; use another model or template")
            pieces.append(before)
        return [*pieces, rendered]
