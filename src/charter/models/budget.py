"""Chat templates are foreign code: what they may cost.

Transformers' sandbox stops a template from reaching into Python, not from taking all time or memory. Rendering gets some
seconds, and a template that multiplies large numbers or raises to a power isn't rendered: such an operation is one call in C,
which nothing interrupts. A template that makes huge texts in other ways is not stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

RENDER_SECONDS = 5.0
MAX_CHARACTERS, MAX_NUMBER = 1 << 20, 10**6  # of a template; written in it, or multiplied in it


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError in the block's Python code once the time is over; other threads go on."""
    until, before = time.monotonic() + RENDER_SECONDS, sys.gettrace()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if time.monotonic() > until:
            raise TimeoutError(f"it takes more than {RENDER_SECONDS:g} s")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def template_fault(text: str) -> str | None:
    """Why a template isn't rendered at all; None: nothing of the kind was found."""
    import jinja2

    if len(text) > MAX_CHARACTERS:
        return f"it has {len(text):,} characters"
    try:
        tokens = [token for token in jinja2.Environment().lex(text) if token[1] != "whitespace"]
    except jinja2.TemplateError:
        return None  # rendering it says what is wrong
    numbers = [_number(value) if kind == "integer" else None for _, kind, value in tokens]
    product = 1
    for place, (line, kind, value) in enumerate(tokens):
        number = numbers[place] or 0
        if kind == "operator" and value == "**":
            return f"line {line} raises to a power"
        if kind == "operator" and value == "*":
            product *= max([1, *(n for n in numbers[max(0, place - 1) : place + 2] if n)])
        if max(number, product) > MAX_NUMBER:
            return f"line {line} has a number over {MAX_NUMBER:,}"
    return None


def _number(text: str) -> int:
    try:
        return int(text.replace("_", ""), 0)
    except ValueError:
        return MAX_NUMBER + 1  # more digits than Python reads
