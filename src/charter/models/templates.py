"""Chat templates of a run's models: a trained model must have its base's, for a changed one can change every answer.

Files alone are read: no tokenizer is loaded, no template is rendered.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Any

from charter.store.disk import store_errors
from charter.store.jsonl import read_json


def chat_templates(folder: Path) -> dict[str, str]:
    """Name -> text of each chat template in a model folder; a folder without any has none."""
    found: dict[str, str] = {}
    config = folder / "tokenizer_config.json"
    if config.is_file():
        loaded = read_json(config)
        told: Any = loaded.get("chat_template") if isinstance(loaded, dict) else None
        if isinstance(told, str):
            found["default"] = told
        elif isinstance(told, list):
            found.update((str(row.get("name")), str(row.get("template"))) for row in told if isinstance(row, dict))
    files = [folder / "chat_template.jinja", *sorted(folder.glob("additional_chat_templates/*.jinja"))]
    for path in files:
        if path.is_file():
            name = "default" if path.parent == folder else path.stem
            with store_errors(path):
                found[name] = path.read_bytes().decode("utf-8", "backslashreplace")
    return found


def template_faults(run: Path, base: Path | None) -> list[str]:
    """One line per model of a run whose templates aren't those of ``base`` (None: of the first model), each with its diff."""
    models = [path for path in sorted(run.glob("*/model")) if path.is_dir()]
    if base is not None and base.is_dir():
        models.insert(0, base)
    if not models:
        return []
    first, expected = models[0], chat_templates(models[0])
    faults = []
    for model in models[1:]:
        own = chat_templates(model)
        for name in sorted(own.keys() | expected.keys()):
            before, after = expected.get(name), own.get(name)
            if before != after:
                place = model.relative_to(run).as_posix()
                faults.append(
                    f"{place}: chat template {name!r} ({_digest(after)}) isn't that of {first} ({_digest(before)})"
                )
                faults += difflib.unified_diff(
                    (before or "").splitlines(),
                    (after or "").splitlines(),
                    lineterm="",
                    n=1,
                    fromfile="base",
                    tofile=place,
                )
    return faults


def _digest(text: str | None) -> str:
    return "none" if text is None else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"
