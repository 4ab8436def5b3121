"""Markdown around text that can't be trusted: whatever a text holds, it stays text.

Names, principles and findings come from models, data and files of others. On one line they stand in code spans, over
several lines in fenced blocks: neither reads HTML, links, images, tables or front matter. Control characters, marks that
reorder text and half characters become U+FFFD (``safe_text``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from charter.safe_text import safe_text


def code(text: object) -> str:
    """Text as a code span on one line, for sentences and table cells."""
    line = " ".join(safe_text(str(text)).split()) or "(empty)"
    fence = "`" * (_longest_run(line) + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{_cell(line)}{padding}{fence}"


def block(text: str) -> str:
    """Text as a fenced block of several lines."""
    plain = safe_text(text)
    fence = "`" * max(3, _longest_run(plain) + 1)
    return f"{fence}text\n{plain.rstrip()}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are ours, or went through ``code``."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def figure(found: dict[str, Any] | None) -> str:
    """An estimate with its interval and n, or why it can't be known."""
    if not found or found.get("value") is None:
        return f"not known ({code(found['reason'])})" if found and found.get("reason") else "not known"
    text = f"{found['value']:.3f}"
    if found.get("low") is not None and found.get("high") is not None:
        text += f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{text}, n {found['n']:,}" if found.get("n") else text


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _cell(line: str) -> str:
    r"""A bar would end the cell, and GitHub's and the Hub's Markdown read ``\|`` as a bar also inside of code."""
    return line.replace("|", "\u2502")
