"""From conversations to token ids. Text inside a message never becomes a control token.

The chat template is rendered once per sequence of roles, with a mark in each message's place, so it never sees what the
messages say. A message that spells a control token ("<|im_end|>") has it cut in two, and both halves are read as text.
"""

from __future__ import annotations

import copy
import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from charter.errors import ModelError
from charter.models.budget import limited, template_fault
from charter.records import Conversation

PLAIN_SPEAKERS = {"system": "\n\n", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
PLAIN_STOP = "\n\nHuman:"
TEMPLATE_SETTINGS = {"enable_thinking": False, "date_string": "26 Jul 2024"}  # the same prompt on every day
_SPEAKER = re.compile(r"\n\n(?=(Human|Assistant):)")


class ChatEncoder:
    """Encodes conversations for one tokenizer; a base model without a chat template gets a plain transcript.

    Attributes:
        has_template: whether the tokenizer has a chat template.
        end_id: the token that ends an assistant's turn.
        closing_ids: all that stands behind the last turn of a conversation that is over: ``end_id``, and where the template
            goes on after it, that too ("<|im_end|>" and a line break). Nobody says it, but a classifier reads its score there.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self._check_templates()
        self._mark = f"charter{secrets.token_hex(8)}mark"
        self._frames: dict[tuple[str, ...], list[str]] = {}
        self._control_ids, self._control = _control_tokens(tokenizer)
        self._control_set = set(self._control_ids.values())
        self.end_id, self.closing_ids = self._ending()

    def _check_templates(self) -> None:
        told = getattr(self.tokenizer, "chat_template", None)
        for text in told.values() if isinstance(told, dict) else [told]:
            fault = template_fault(text) if isinstance(text, str) else None
            if fault is not None:
                raise ModelError(f"the chat template isn't rendered: {fault}; use another model or template")

    def prompt(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation, up to where the assistant begins to speak.

        Raises:
            ModelError: the chat template refuses these roles.
        """
        roles = tuple(message.role for message in conversation)
        if roles not in self._frames:
            self._frames[roles] = self._frame(roles)
        frame, contents = self._frames[roles], [self._plain(message.content) for message in conversation]
        if not any(self._control.search(content) for content in contents):
            # all at once, so that what a template joins to a message is tokenised as in any other library
            ids = self._encode(
                frame[0] + "".join(text for pair in zip(contents, frame[1:], strict=True) for text in pair)
            )
            if self._controls_in(ids) == sum(len(self._control.findall(piece)) for piece in frame):
                return ids
        pieces: list[str | int] = list(self._template_pieces(frame[0]))
        for content, after in zip(contents, frame[1:], strict=True):
            pieces += [*self._halves(content), *self._template_pieces(after)]
        return self._encode_pieces(pieces)

    def text(self, content: str) -> list[int]:
        """Token ids of plain text; what spells a control token is cut in two."""
        return self._encode_pieces(self._halves(self._plain(content)))

    def said(self, content: str) -> list[int]:
        """Token ids of what an assistant says, without the end of its turn."""
        return self.text(content if self.has_template else f" {content.strip()}")

    def _plain(self, content: str) -> str:
        """In a plain transcript a message must not speak in another's name."""
        return content if self.has_template else _SPEAKER.sub("\n\n ", content)

    def _controls_in(self, ids: list[int]) -> int:
        unknown = self.tokenizer.unk_token_id  # also stands for words that no vocabulary holds
        return sum(i in self._control_set and i != unknown for i in ids)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _encode_pieces(self, pieces: Iterable[str | int]) -> list[int]:
        return [i for piece in pieces for i in ([piece] if isinstance(piece, int) else self._encode(piece))]

    def _halves(self, content: str) -> list[str | int]:
        cuts = [0, *(match.start() + 1 for match in self._control.finditer(content)), len(content)]
        parts = [content[start:end] for start, end in zip(cuts, cuts[1:], strict=False) if end > start]
        # cutting may bring another control token to light: "<<|end|>" and its like are cut until nothing is left
        return [half for part in parts for half in (self._halves(part) if self._control.search(part) else [part])]

    def _template_pieces(self, text: str) -> Iterable[str | int]:
        start = 0
        for match in self._control.finditer(text):
            if text[start : match.start()]:
                yield text[start : match.start()]
            yield self._control_ids[match.group()]
            start = match.end()
        if text[start:]:
            yield text[start:]

    def _frame(self, roles: Sequence[str]) -> list[str]:
        """The template's text before, between and after the contents."""
        if not self.has_template:
            bos = self.tokenizer.bos_token or ""
            starts = [PLAIN_SPEAKERS[role] for role in (*roles, "assistant")]
            return [bos + starts[0], *starts[1:-1], starts[-1].rstrip(" ")]
        return self._render(roles, add_generation_prompt=True)

    def _render(self, roles: Sequence[str], *, add_generation_prompt: bool) -> list[str]:
        messages = [{"role": role, "content": f"{self._mark}{i}."} for i, role in enumerate(roles)]
        try:
            with limited():
                rendered = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=add_generation_prompt, **TEMPLATE_SETTINGS
                )
        except Exception as error:  # a template is foreign code and may raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelError(
                f"the chat template refuses the roles {', '.join(roles)}: {reason}; use another model"
            ) from error
        pieces: list[str] = []
        for i, role in enumerate(roles):
            before, found, rendered = rendered.partition(f"{self._mark}{i}.")
            if not found or f"{self._mark}{i}." in rendered:
                raise ModelError(
                    f"the chat template doesn't show the {role} message exactly once; use another model or template"
                )
            pieces.append(before)
        return [*pieces, rendered]

    def _ending(self) -> tuple[int, list[int]]:
        """The first control token that the template puts after an assistant's turn, and all from there on; else the end of
        the text."""
        if self.has_template:
            after = self._render(("user", "assistant"), add_generation_prompt=False)[-1]
            pieces = list(self._template_pieces(after.lstrip()))
            if pieces and isinstance(pieces[0], int):
                return pieces[0], self._encode_pieces(pieces)
        if self.tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer names no token that ends a turn; set eos_token in tokenizer_config.json")
        end = int(self.tokenizer.eos_token_id)
        return end, [end]


def padded_apart(tokenizer: Any, last: int) -> Any | None:
    """A copy whose padding is another token than ``last``, with which conversations end; None: no special token is left.

    A classifier finds where a text ends by what isn't padding, and would read its score before an end that looks like it.
    """
    specials = sorted(i for i, token in tokenizer.added_tokens_decoder.items() if token.special and i != last)
    named = [i for i in specials if "pad" in tokenizer.convert_ids_to_tokens(i).lower()]
    first = [tokenizer.pad_token_id, *named, tokenizer.unk_token_id, tokenizer.bos_token_id, *specials]
    found = next((i for i in first if i is not None and i != last), None)
    if found is None:
        return None
    own = copy.deepcopy(tokenizer)
    own.pad_token = tokenizer.convert_ids_to_tokens(found)
    return own


def _control_tokens(tokenizer: Any) -> tuple[dict[str, int], re.Pattern[str]]:
    """Special tokens, and added ones that look like markup ("<think>", "[TOOL]"), longest first in the pattern."""
    added = tokenizer.added_tokens_decoder
    found = {
        token.content: i
        for i, token in added.items()
        if token.content and (token.special or token.content[0] in "<[" or i in tokenizer.all_special_ids)
    }
    names = sorted(found, key=len, reverse=True)
    return found, re.compile("|".join(map(re.escape, names)) if names else r"(?!)")
