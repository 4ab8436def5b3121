"""What a run reads, gathered and checked as a whole before any work.

writes  run.yaml       the resolved run file, every default written out
        inputs.json    hashes of constitution, prompts and models
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.config import ModelConfig, RunConfig
from charter.constitution.load import Constitution, load_constitution
from charter.errors import ConfigError, DataError, ModelError, StoreError
from charter.labelers.question import Wording, comparison
from charter.records import Prompt
from charter.stages.readings import Gold
from charter.store.hashing import hash_folder, hash_json
from charter.store.jsonl import read_json, write_json

INPUTS_FILE = "inputs.json"
GOLD_MEMBERS = ("name", "simulated", "read", "keeps")


@dataclass(frozen=True)
class Inputs:
    """All that a run reads but the models, and the hashes of all of it (None: the run has no such thing)."""

    constitution: Constitution
    prompts: list[Prompt]
    held_out: list[Prompt]
    gold: Gold | None
    wording: Wording
    hashes: dict[str, str | None]


def load_attribute(source: str, key: str) -> Any:
    """What ``package.module:attribute`` names.

    Raises:
        ConfigError: there is no such module or attribute; ``key`` says where in the run file it stands.
    """
    module_name, _, attribute = source.partition(":")
    if not attribute:
        raise ConfigError(f"{key}: {source!r} names no Python object: write package.module:attribute")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{key}: can't import {module_name!r} ({error}): install it or mend the name") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{key}: {module_name} has no {attribute!r}: mend the name")
    return getattr(module, attribute)


def load_gold(source: str | None) -> Gold | None:
    """The oracle that the run file names, if any.

    Raises:
        ConfigError: it isn't there, or isn't an oracle.
    """
    if source is None:
        return None
    gold = load_attribute(source, "evaluate.gold")
    missing = [name for name in GOLD_MEMBERS if not hasattr(gold, name)]
    if missing:
        raise ConfigError(f"evaluate.gold: {source} has no {missing[0]!r}: an oracle has {', '.join(GOLD_MEMBERS)}")
    return gold


def load_wording(source: str | None) -> Wording:
    """The wording of labelling questions: Charter's, or the callable that the run file names."""
    if source is None:
        return comparison
    wording = load_attribute(source, "label.labeler.question")
    if not callable(wording):
        raise ConfigError(f"label.labeler.question: {source} can't be called: name a function")
    return wording


def source_hash(model: ModelConfig) -> str:
    """What identifies a model before it is loaded: the content of its folder, or its name on the hub.

    Raises:
        ModelError: it looks like a path, and nothing is there.
    """
    path = Path(model.source)
    if path.is_dir():
        return hash_json({"folder": hash_folder(path), "dtype": model.dtype})
    if path.is_absolute() or model.source.startswith((".", "~")):
        raise ModelError(f"{model.source}: no such model folder: check the path in the run file")
    return hash_json({"source": model.source, "dtype": model.dtype})


def hash_prompts(prompts: list[Prompt]) -> str:
    """SHA-256 over the prompts in their order."""
    return hash_json([prompt.to_json() for prompt in prompts])


def check_prompts(prompts: list[Prompt], key: str) -> None:
    """Prompts are there, and their ids differ.

    Raises:
        DataError: none, or an id that comes twice.
    """
    if not prompts:
        raise DataError(f"{key}: no prompts: name a source that has some")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(f"{key}: the id {prompt.id!r} comes twice: give every prompt an id of its own")
        seen.add(prompt.id)


def refuse_other_constitution(folder: Path, constitution: Constitution) -> None:
    """A run folder belongs to one constitution.

    Raises:
        StoreError: the folder was made with another one.
    """
    path = folder / INPUTS_FILE
    if not path.is_file():
        return
    before = read_json(path).get("constitution")
    if before != constitution.hash:
        raise StoreError(
            f"{folder}: made with another constitution ({str(before)[:12]}, now {constitution.hash[:12]}): choose another "
            f"folder with --out, or delete {path} to redo here what the change touches"
        )
