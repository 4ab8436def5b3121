"""What a run knows about itself, for its cards.

reads   run.yaml, constitution.yaml, summary.json, 8-audit/audit.json; what isn't there is None, and the card says so
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from charter.config import RunConfig
from charter.constitution.load import Constitution, load_constitution
from charter.errors import StoreError
from charter.run_file import load_run
from charter.sources import public_name
from charter.store.jsonl import read_json

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "trl", "peft", "huggingface_hub")


@dataclass
class Evidence:
    """Everything that a card rests on."""

    config: RunConfig
    constitution: Constitution
    summary: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)

    def labelers(self) -> list[str]:
        """Who labelled: each kind with its model, local folders by their last part."""
        return sorted({public_name(name) for name in _sources(self.config.label.labeler.model_dump(mode="json"))})

    def base_model(self) -> str:
        return public_name(self.config.model.source)

    def simulated(self) -> str | None:
        """What was simulated, as a sentence; None where nothing was."""
        gold = self.summary.get("gold") or self.audit.get("gold")
        return gold["name"] if gold and gold.get("simulated") else None


def read_evidence(run: Path) -> Evidence:
    """Gather it from a run folder.

    Raises:
        StoreError: no run there. CharterError: a file of it is broken.
    """
    if not (run / "run.yaml").is_file() or not (run / "constitution.yaml").is_file():
        raise StoreError(f"{run}: no run there (run.yaml, constitution.yaml): check the path")
    summary, audit = (_object(run / name) for name in ("summary.json", "8-audit/audit.json"))
    return Evidence(
        load_run(run / "run.yaml", missing_ok=True), load_constitution(run / "constitution.yaml"), summary, audit
    )


def versions() -> dict[str, str]:
    """Versions of what is installed here, as the card is written."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def is_hub_id(source: str) -> bool:
    """Whether a source is ORG/NAME and no folder here."""
    return HUB_ID.fullmatch(source) is not None and not Path(source).exists()


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise StoreError(f"{path}: not a JSON object: delete it and run the same command again")
    return found


def _sources(labeler: dict[str, Any]) -> Iterator[str]:
    """Models and label files that a labeler's settings name, at any depth."""
    named = [value for key in ("source", "labels", "check") if isinstance(value := labeler.get(key), str)]
    yield from named
    for value in labeler.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _sources(inner)
