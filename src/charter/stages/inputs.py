"""What a run reads, gathered and checked as a whole before any work.

writes  run.yaml       the resolved run file, every default written out
        inputs.json    hashes of constitution, prompts and models
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from charter.config import RunConfig
from charter.constitution.load import Constitution, load_constitution
from charter.errors import ConfigError, DataError, StoreError
from charter.labelers.question import Wording, comparison
from charter.records import Prompt
from charter.stages.readings import Gold
from charter.store.hashing import hash_json
from charter.store.jsonl import read_json, write_json

INPUTS_FILE = "inputs.json"


@dataclass(frozen=True)
class Inputs:
    """All that a run reads but the models, and the hashes of all of it (None: the run has no such thing)."""

    constitution: Constitution
    prompts: list[Prompt]
    held_out: list[Prompt]
    gold: Gold | None
    wording: Wording
    hashes: dict[str, str | None]
