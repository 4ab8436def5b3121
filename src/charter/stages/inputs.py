"""What a run reads, gathered and checked as a whole before any work.

writes  run.yaml       the resolved run file, every default written out
        constitution.yaml   the constitution as it was read
        inputs.json    hashes of constitution, prompts and models
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import charter
from charter.config import AnyLabeler, CommitteeConfig, HumanConfig, ModelConfig, RunConfig, labeler_models
from charter.constitution.importers import write_constitution
from charter.constitution.load import Constitution, load_constitution
from charter.data.prompts import count_prompts
from charter.errors import ConfigError, ModelError, StoreError
from charter.labelers.human import HumanLabeler
from charter.labelers.make import check_wordings
from charter.models.load import check_folder, fingerprint
from charter.records import Prompt
from charter.run_file import resolved_yaml
from charter.sources import is_python, resolve_python
from charter.stages.readings import Gold
from charter.stages.rewards import check_routes
from charter.stages.wins import judge_settings
from charter.store.disk import atomic_write
from charter.store.hashing import hash_json
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
    hashes: dict[str, str | None]
    num_repeated: dict[str, int] = field(default_factory=dict)
    """Rows of ``prompts`` and ``evaluate.prompts`` that were left out, because their conversation had come before."""

    def seen(self) -> set[str]:
        """Ids of the held-out prompts that stand, word for word, among the training prompts."""
        training = {prompt.messages for prompt in self.prompts}
        return {prompt.id for prompt in self.held_out if prompt.messages in training}


def gather(config: RunConfig) -> Inputs:
    """Load and check everything that a run reads; nothing is written.

    Raises:
        CharterError: the first thing that is wrong.
    """
    constitution = constitution_of(config)
    gold = load_gold(config.evaluate.gold)
    check_wordings(config.label.labeler)
    judging = judge_settings(config.evaluate)
    if judging is not None:
        check_wordings(judging)
    prompts, num_repeated = count_prompts(config.prompts, Path(), config.seed)
    _check_reward(config, prompts)
    held_out, num_repeated_held_out = count_prompts(config.evaluate.prompts, Path(), config.seed)
    judge = config.evaluate.judge
    hashes = {
        "constitution": constitution.hash,
        "prompts": hash_prompts(prompts),
        "held_out_prompts": hash_prompts(held_out),
        "model": source_hash(config.model),
        "labeler": labeler_hash(config.label.labeler),
        "judge": source_hash(judge) if judge else None,
    }
    if hashes["judge"] is not None and hashes["judge"] in map(source_hash, labeler_models(config.label.labeler)):
        raise ConfigError(
            "evaluate.judge and label.labeler.model are the same model: name another judge, or leave it out"
        )
    repeated = {"prompts": num_repeated, "evaluate.prompts": num_repeated_held_out}
    return Inputs(constitution, prompts, held_out, gold, hashes, repeated)


def _check_reward(config: RunConfig, prompts: list[Prompt]) -> None:
    """What rewards the policy can be made, and has prompts."""
    for source in config.policy.reward_sources:
        if source.by != "reward-model":
            check_wordings(source.by)
    check_routes(config.policy.reward_sources, prompts)


def constitution_of(config: RunConfig) -> Constitution:
    """The constitution that a run file names. Raises ConstitutionError or ConfigError: it can't be read."""
    return load_constitution(_path_of(config.constitution, "constitution"))


def remember(config: RunConfig, inputs: Inputs, folder: Path) -> None:
    """Write the resolved run file and the hashes of what it reads into the run folder, before any work.

    Raises:
        StoreError: the folder was made with another constitution, or can't be written.
    """
    refuse_other_constitution(folder, inputs.constitution)
    with atomic_write(folder / "run.yaml") as file:
        file.write(resolved_yaml(config).encode())
    write_constitution(inputs.constitution, folder / "constitution.yaml")
    write_json(folder / INPUTS_FILE, {"charter": charter.__version__, **inputs.hashes})


def _path_of(source: str, key: str) -> Path:
    if not is_python(source):
        return Path(source)
    value = resolve_python(source)
    value = value() if callable(value) else value
    if not isinstance(value, (str, Path)):
        raise ConfigError(f"{key}: {source} gives {type(value).__name__}, not a path: name something that gives a path")
    return Path(value)


def load_gold(source: str | None) -> Gold | None:
    """The oracle that the run file names, if any.

    Raises:
        ConfigError: it isn't there, or isn't an oracle.
    """
    if source is None:
        return None
    gold = resolve_python(source)
    missing = [name for name in GOLD_MEMBERS if not hasattr(gold, name)]
    if missing:
        raise ConfigError(f"evaluate.gold: {source} has no {missing[0]!r}: an oracle has {', '.join(GOLD_MEMBERS)}")
    return gold


def labeler_hash(config: AnyLabeler) -> str | None:
    """What identifies a labeler beside its settings: its models, or the labels that people gave; None: neither.

    Raises:
        CharterError: a model or labels that aren't there.
    """
    members = config.members if isinstance(config, CommitteeConfig) else (config,)
    hashes: list[str] = []
    for member in members:
        if isinstance(member, HumanConfig):
            hashes.append(HumanLabeler.from_source(member.labels).content_hash)
        hashes += [source_hash(model) for model in labeler_models(member)]
    return hashes[0] if len(hashes) == 1 else hash_json(hashes) if hashes else None


def source_hash(model: ModelConfig) -> str:
    """What identifies a model before it is loaded: the content of its folder, or its name on the hub.

    Raises:
        ModelError: it looks like a path, and nothing is there.
    """
    path = _path_of(model.source, "model") if is_python(model.source) else Path(model.source)
    if path.is_dir():
        check_folder(path)
        return hash_json({"folder": fingerprint(path), "dtype": model.dtype})
    if path.is_absolute() or model.source.startswith((".", "~")):
        raise ModelError(f"{model.source}: no such model folder: check the path in the run file")
    return hash_json({"source": model.source, "dtype": model.dtype})


def hash_prompts(prompts: list[Prompt]) -> str:
    """SHA-256 over the prompts in their order."""
    return hash_json([prompt.to_json() for prompt in prompts])


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
