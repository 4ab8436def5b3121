"""What lies in a run folder, read as far as it is there: a run may be unfinished, or leave out a phase, or have no gold.

reads   run.yaml, inputs.json, summary.json, */done.json, 1-revise/revisions.jsonl, 3-sample/pairs.jsonl,
        4-label/{judgments,preferences}.jsonl, 5-reward/metrics.jsonl, 6-policy/metrics.jsonl, 7-evaluate/*.jsonl
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.constitution.load import Constitution, load_constitution
from charter.errors import CharterError, DataError
from charter.store.disk import store_errors
from charter.store.jsonl import parse_object, read_json

STAGES = ("1-revise", "2-sft", "3-sample", "4-label", "5-reward", "6-policy", "7-evaluate")
UNFINISHED = "the run isn't finished"


@dataclass(frozen=True)
class Artifacts:
    """A run folder; ``summary`` is put together from the finished stages where ``summary.json`` isn't there yet."""

    folder: Path
    summary: dict[str, Any]
    finished: bool
    run_yaml: str
    config: dict[str, Any]
    constitution: Constitution | None
    why_no_constitution: str

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The rows of a JSON lines file; none where the file isn't there, and no half-written last one."""
        yield from rows_of(self.folder / name)

    def stage(self, name: str) -> dict[str, Any]:
        """What a finished stage says of itself; empty where it isn't finished."""
        path = self.folder / name / "done.json"
        return _object(_object(read_json(path)).get("summary")) if path.is_file() else {}

    def section(self, *path: str) -> Any:
        """A setting of the run file, None where it isn't there."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON lines file, a half-written last line left out.

    Raises:
        DataError: another line is no JSON object.
    """
    if not path.is_file():
        return
    with store_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip() and line.endswith(b"\n"):
                yield parse_object(line, f"{path}:{number}")


def read_run(folder: Path) -> Artifacts:
    """Read a run folder.

    Raises:
        DataError: it is no run folder, or a file in it is broken.
        StoreError: a file can't be read.
    """
    if not any((folder / name).is_file() for name in ("run.yaml", "summary.json")):
        raise DataError(f"{folder}: no run folder (neither run.yaml nor summary.json is there): check the path")
    run_yaml = _text(folder / "run.yaml")
    config = _object(_yaml(run_yaml))
    inputs = _object(read_json(folder / "inputs.json") if (folder / "inputs.json").is_file() else {})
    finished = (folder / "summary.json").is_file()
    summary = _object(read_json(folder / "summary.json")) if finished else _partial(folder, config, inputs)
    expected = _object(summary.get("hashes")).get("constitution") or inputs.get("constitution")
    constitution, reason = _constitution(folder, config, expected)
    return Artifacts(folder, summary, finished, run_yaml, config, constitution, reason)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with store_errors(path):
        return path.read_text(encoding="utf-8", errors="replace")


def _yaml(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:  # the page shows the file as it is; only the settings that it quotes are lost
        return {}


def _partial(folder: Path, config: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """What the finished stages of an unfinished run say, in the form of ``summary.json``."""
    manifests = {path.parent.name: _object(read_json(path)) for path in sorted(folder.glob("*/done.json"))}
    stages = {name: _object(manifest.get("summary")) for name, manifest in manifests.items()}
    evaluated = stages.get("7-evaluate", {})
    curve = [row for row in rows_of(folder / "6-policy" / "metrics.jsonl")]
    return {
        "name": config.get("name", folder.name),
        "charter": inputs.get("charter"),
        "seed": config.get("seed"),
        "phases": config.get("phases", []),
        "hashes": {key: value for key, value in inputs.items() if key != "charter"},
        "policies": evaluated.get("policies", {}),
        "labeler": stages.get("4-label", {}),
        "reward_model": stages.get("5-reward", {}),
        "curves": {"rl": curve, **_object(evaluated.get("curves"))},
        "counts": {name: {k: v for k, v in stage.items() if k.startswith("num_")} for name, stage in stages.items()},
        "stages": [
            {"name": name, "wall_seconds": manifest.get("wall_seconds"), "num_tokens": stages[name].get("num_tokens")}
            for name, manifest in manifests.items()
        ],
    }


def _constitution(folder: Path, config: dict[str, Any], expected: Any) -> tuple[Constitution | None, str]:
    """The constitution in the run folder, or the file that the run file names where it is still the same by its hash."""
    own, named = folder / "constitution.yaml", Path(str(config.get("constitution") or ""))
    path = own if own.is_file() else named
    if not path.is_file():
        return None, "no constitution.yaml is in the run folder"
    try:
        found = load_constitution(path)
    except CharterError as error:
        return None, f"it can't be read ({error})"
    if expected and found.hash != expected:
        return None, "the file was changed since this run: its hash is another one"
    return found, ""
