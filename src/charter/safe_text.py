"""Text from models and data, made safe for a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls but newline and tab, DEL, line and paragraph separators, and the marks that reorder text
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def safe_text(text: str) -> str:
    """Replace each character that could move the cursor, hide text or reorder it by U+FFFD."""
    return _UNSAFE.sub("\ufffd", text)
