"""Text of models and data for a page: whatever would be invisible or reorder its neighbours is spelled out.

Escaping is the template's business (Jinja's autoescape); this is about what stays harmful or hidden after escaping.
"""

from __future__ import annotations

import re

# controls but newline and tab, soft hyphen, fillers, zero-width and bidirectional marks, surrogates, tags
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
MAX_SHOWN = 3000  # characters of one text in the page; the run folder holds the whole


def visible(text: str) -> str:
    """Spell out hidden characters: escape becomes ␛, a right-to-left override ‹U+202E›. Newline and tab stay."""
    return _HIDDEN.sub(_spell_out, text)


def _spell_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"‹U+{code:04X}›"


def clipped(text: str, limit: int = MAX_SHOWN) -> str:
    """The text, cut where it is longer than ``limit`` characters, and saying so."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … [{len(text) - limit} more characters in the run folder]"
