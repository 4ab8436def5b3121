"""Is a run folder as it was written? Hashes first, then what its files say twice, which must agree.

reads   files.json, */done.json and all that they name; run.yaml, constitution.yaml, inputs.json, summary.json

A run without ``files.json`` (unfinished, of an earlier version, or the list was taken away) can be checked in part: the
files of its stages by their manifests, the rest only by what it repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.constitution.load import load_constitution
from charter.errors import CharterError, ConfigError, StoreError
from charter.store import folder, whole
from charter.store.disk import store_errors
from charter.store.jsonl import read_json
from charter.yaml_io import parse_yaml

EVALUATE = "7-evaluate"
_NEEDS = {"2-sft": ("1-revise",), "4-label": ("3-sample",), "5-reward": ("3-sample", "4-label")}
_READS = {"dpo": ("3-sample", "4-label"), "reward model": ("3-sample", "4-label", "5-reward")}


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        num_stages: finished stages, whose files were hashed.
        faults: a line each.
        unverified: names of the files whose content nothing tells of.
        unknown: those of them that Charter doesn't write.
    """

    num_stages: int
    faults: list[str]
    unverified: list[str]
    unknown: list[str]


def verify_run(run: Path, unread: tuple[str, ...] = ()) -> Verified:
    """Verify a run folder.

    Args:
        unread: endings of the names of files that are not hashed, only looked for.

    Raises:
        StoreError: it is no run folder, or a file can't be read.
    """
    faults = folder.verify(run, unread)
    manifests = whole.manifests_of(run)
    if not manifests and not any((run / name).is_file() for name in ("run.yaml", "summary.json", whole.WHOLE)):
        raise StoreError(f"{run}: no run folder (neither run.yaml nor a finished stage is there): check the path")
    unverified = whole.unverified(run)
    if unverified:
        faults = list(dict.fromkeys([*faults, *_disagreements(run, manifests)]))
    return Verified(len(manifests), faults, unverified, whole.unknown(unverified))


def _disagreements(run: Path, manifests: list[Path]) -> list[str]:
    stages = {path.parent.name: told for path in manifests if (told := _object(path))}
    summary, inputs, config = _object(run / "summary.json"), _object(run / "inputs.json"), _config(run)
    return [*_missing(stages, summary, config), *_constitution(run, inputs, summary), *_repeated(summary, stages)]


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where it isn't there or is none (a broken manifest is told where it is hashed)."""
    try:
        found = read_json(path) if path.is_file() else None
    except CharterError:
        return {}
    return found if isinstance(found, dict) else {}


def _config(run: Path) -> dict[str, Any]:
    path = run / "run.yaml"
    try:
        with store_errors(path):
            found = parse_yaml(path.read_text("utf-8", "replace"), path, ConfigError).data
    except CharterError:
        return {}
    return found if isinstance(found, dict) else {}


def _missing(stages: dict[str, Any], summary: dict[str, Any], config: dict[str, Any]) -> Iterator[str]:
    """Stages that others were made from, or that the summary tells of, and that aren't there."""
    needed: dict[str, str] = {}
    for stage in stages:
        base = "2-sft" if stage.startswith("2-sft") else stage
        needed |= {name: stage for name in _NEEDS.get(base, ())}
        if stage in ("6-policy", EVALUATE):
            needed |= {name: stage for name in _of_phases(config, stage)}
    for name in _names(summary):
        needed.setdefault(name, "summary.json")
    for name, by in sorted(needed.items()):
        if name not in stages:
            yield f"{name}/{folder.MANIFEST}: missing, though {by} was made from this stage"


def _of_phases(config: dict[str, Any], stage: str) -> list[str]:
    """The stages that the policy, or the evaluation, is made from under these settings."""
    phases, policy = config.get("phases") or [], config.get("policy") or {}
    made = ["1-revise", "2-sft"] if "sl" in phases else []
    if "rl" in phases and isinstance(policy, dict):
        if policy.get("algorithm") == "dpo":
            made += _READS["dpo"]
        elif policy.get("reward") is None:
            made += _READS["reward model"]
        made += ["6-policy"] if stage == EVALUATE else []
    return made


def _names(summary: dict[str, Any]) -> list[str]:
    rows = summary.get("stages")
    return [str(row.get("name")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _constitution(run: Path, inputs: dict[str, Any], summary: dict[str, Any]) -> Iterator[str]:
    told = inputs.get("constitution")
    path = run / "constitution.yaml"
    if told is None:
        yield "inputs.json: missing, or without the hash of the constitution"
    elif not path.is_file():
        yield "constitution.yaml: missing"
    else:
        try:
            found = load_constitution(path).hash
        except CharterError as error:
            yield f"constitution.yaml: {error}"
        else:
            if found != told:
                yield f"constitution.yaml: its hash is {found[:12]}, in inputs.json {str(told)[:12]}"
    hashes = summary.get("hashes")
    if isinstance(hashes, dict) and told is not None and hashes.get("constitution") != told:
        yield "summary.json: hashes.constitution isn't that of inputs.json"


def _repeated(summary: dict[str, Any], stages: dict[str, Any]) -> Iterator[str]:
    """Figures of the summary that aren't those of the stages which it repeats."""
    told = {name: manifest.get("summary") or {} for name, manifest in stages.items()}
    evaluated = told.get(EVALUATE, {})
    parts: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("labeler", summary.get("labeler"), "4-label", told.get("4-label", {})),
        ("reward_model", summary.get("reward_model"), "5-reward", told.get("5-reward", {})),
        ("", {key: summary[key] for key in ("reader", "wins", "curves") if key in summary}, EVALUATE, evaluated),
    ]
    policies, own = summary.get("policies"), evaluated.get("policies") or {}
    if isinstance(policies, dict) and evaluated:
        parts += [(f"policies.{name}", figures, EVALUATE, own.get(name, {})) for name, figures in policies.items()]
        for name in own.keys() - policies.keys():
            yield f"summary.json: policies.{name} is left out"
        for name in sorted(policies.keys() - own.keys()):
            if any(isinstance(figure, dict) and figure.get("value") is not None for figure in _values(policies[name])):
                yield f"summary.json: policies.{name} isn't in {EVALUATE}/{folder.MANIFEST}"
    counts = summary.get("counts")
    if isinstance(counts, dict):
        parts += [(f"counts.{name}", figures, name, told.get(name, {})) for name, figures in counts.items()]
    rows = summary.get("stages")
    for row in rows if isinstance(rows, list) else []:
        name = str(row.get("name")) if isinstance(row, dict) else ""
        manifest = stages.get(name, {})
        expected = {**told.get(name, {}), "wall_seconds": manifest.get("wall_seconds")} if manifest else {}
        parts.append((f"stages.{name}", row, name, {k: expected[k] for k in expected if k != "name"}))
    for place, figures, stage, expected in parts:
        for key in figures if isinstance(figures, dict) else ():
            if key in expected and figures[key] != expected[key]:
                where = f"{place}.{key}" if place else key
                yield f"summary.json: {where} isn't what {stage}/{folder.MANIFEST} says"


def _values(figures: Any) -> list[Any]:
    return list(figures.values()) if isinstance(figures, dict) else []
