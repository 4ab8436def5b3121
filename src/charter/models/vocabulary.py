"""Words that a model can't read: those that its tokenizer turns into its unknown token.

Only a tokenizer with a closed vocabulary has such words; one of bytes or pieces of bytes knows every text. Its file is read,
and no model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from charter.constitution.load import Constitution
from charter.errors import CharterError
from charter.models.load import model_folder
from charter.sources import is_python
from charter.store.disk import store_errors

FILE = "tokenizer.json"
MOST_NAMED = 8


def unknown_words(source: str, texts: Iterable[str]) -> list[str]:
    """Words of the texts that the model's tokenizer doesn't know, in their order; empty too where that can't be told.

    Args:
        source: as in the run file. A model behind a server, or one on the Hub, isn't asked for.
    """
    words = list(dict.fromkeys(word for text in texts for word in text.split()))
    path = _file(source)
    unknown = _unknown_token(path) if path else None
    if path is None or unknown is None:
        return []
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    read, mark = tokenizer.encode_batch(words, add_special_tokens=False), tokenizer.token_to_id(unknown)
    return [word for word, tokens in zip(words, read, strict=True) if mark in tokens.ids and word != unknown]


def unknown_in(source: str, constitution: Constitution, *, judges: bool = False) -> list[str]:
    """Of a constitution those that the model is given: by which it revises, or with ``judges`` by which it judges."""
    if judges:
        return unknown_words(source, (principle.comparison for principle in constitution.principles))
    principles = constitution.principles
    return unknown_words(source, (t for p in principles for t in (p.text, p.critique_request, p.revision_request)))


def named(words: list[str]) -> str:
    """``animal, environment and 3 more``."""
    more = f" and {len(words) - MOST_NAMED:,} more" if len(words) > MOST_NAMED else ""
    return ", ".join(words[:MOST_NAMED]) + more


def _file(source: str) -> Path | None:
    if not is_python(source) and not Path(source).expanduser().is_dir():
        return None
    try:
        path = model_folder(source) / FILE
    except CharterError:  # told where the model is loaded
        return None
    return path if path.is_file() else None


def _unknown_token(path: Path) -> str | None:
    """As the file names it; None: it has none."""
    with store_errors(path):
        try:
            model = json.loads(path.read_text("utf-8"))["model"]
            if isinstance(model.get("unk_token"), str):
                return str(model["unk_token"])
            return None if model.get("unk_id") is None else str(model["vocab"][model["unk_id"]][0])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):  # damaged: told where the model is loaded
            return None
