"""Read a run file: check it as a whole, and make its paths absolute.

The run file in a run folder names its maker's paths. On another machine, what is not there is looked for where it can be
known to be the same: the constitution in the run folder itself, by its hash, and what the package ships in this package.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from charter.config import ModelConfig, RunConfig
from charter.constitution.load import load_constitution
from charter.errors import CharterError, ConfigError
from charter.sources import is_python
from charter.store.jsonl import read_json
from charter.suggest import did_you_mean
from charter.yaml_io import OVERRIDE, Location, YamlDocument, dotted, dump_yaml, load_yaml, parse_yaml, validate

_SOURCE_KEYS = {"source", "constitution", "helpful_data", "labels", "pairs"}
_URLS = ("http://", "https://", "postgresql://", "postgres://")
_CONSTITUTION: Location = ("constitution",)
PACKAGE = Path(__file__).parent
_MODEL_KEYS = {"model", "judge", "critic", "debater"}  # their source may be a name or a hub id as well


def load_run(path: Path, overrides: Sequence[str] = (), *, missing_ok: bool = False) -> RunConfig:
    """Read and check a run file; paths in it count from its folder, paths in overrides from the working folder.

    Args:
        overrides: ``key.path=value`` each, the value in YAML; they win over the file.
        missing_ok: whether its paths may lead nowhere, for those who want its settings alone.

    Raises:
        ConfigError: one line with file:line, key path, and what to do.
        StoreError: the file can't be read.
    """
    document = apply_overrides(load_yaml(path, ConfigError), overrides)
    config = validate(RunConfig, document, ConfigError)
    resolved = _resolve(document.data, (), document, missing_ok)
    # the check comes first, so that only a file of the right form is searched for paths
    return RunConfig.model_validate(resolved) if resolved != document.data else config


def apply_overrides(document: YamlDocument, overrides: Sequence[str]) -> YamlDocument:
    """The document with ``key.path=value`` settings put in.

    Raises:
        ConfigError: a setting without ``=``, with a value that is no YAML, or inside something that has no keys.
    """
    data, places = copy.deepcopy(document.data), dict(document.places)
    for override in overrides:
        key, equals, text = override.partition("=")
        location: Location = tuple(key.strip().split("."))
        if not equals or not all(location):
            raise ConfigError(f"{OVERRIDE}{override}: expected key.path=value, as policy.steps=3")
        value = parse_yaml(text, Path(f"{OVERRIDE}{key}"), ConfigError).data
        section = data
        for depth, part in enumerate(location[:-1]):
            if isinstance(section, dict) and section.get(part) is None:
                section[part] = {}
                places.setdefault(location[: depth + 1], f"{OVERRIDE}{key.strip()}")
            section = section[part] if isinstance(section, dict) else None
        if not isinstance(section, dict):
            where = dotted(location[:-1]) or str(document.path)
            raise ConfigError(f"{OVERRIDE}{override}: {where} holds no keys: name a key of the run file")
        section[location[-1]] = value
        places[location] = f"{OVERRIDE}{key.strip()}"
    return YamlDocument(document.path, data, places)


def _resolve(value: Any, location: Location, document: YamlDocument, missing_ok: bool) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(item, (*location, key), document, missing_ok) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, (*location, index), document, missing_ok) for index, item in enumerate(value)]
    if isinstance(value, str) and location[-1] in _SOURCE_KEYS:
        return _resolve_source(value, location, document, missing_ok)
    return value


def _resolve_source(source: str, location: Location, document: YamlDocument, missing_ok: bool) -> str:
    """A source with its path made absolute; names, hub ids, endpoints and Python sources stay as they are."""
    if is_python(source) or source.startswith(_URLS):
        return source
    place = document.place(location)
    base = Path.cwd() if place.startswith(OVERRIDE) else document.path.absolute().parent
    path = Path(source).expanduser()
    path = (base / path).resolve()
    if path.exists():
        return str(path)
    looks_like_path = source.startswith((".", "/", "~"))
    if len(location) > 1 and location[-2] in _MODEL_KEYS and not looks_like_path:
        return source
    again = _shipped(path) or (
        _own_constitution(document.path.absolute().parent) if location == _CONSTITUTION else None
    )
    if again is not None or missing_ok:
        return str(again or path)
    raise ConfigError(f"{place}: {dotted(location)}: {path} is not there: {_suggest(path, place)}")


def _shipped(path: Path) -> Path | None:
    """What another installation of this package shipped at a path, in this one."""
    if PACKAGE.name not in path.parts[:-2]:
        return None
    after = len(path.parts) - path.parts[::-1].index(PACKAGE.name)
    found = PACKAGE.joinpath(*path.parts[after:])
    return found if after < len(path.parts) - 1 and found.exists() else None


def _own_constitution(folder: Path) -> Path | None:
    """The constitution that a run folder holds, where it is the one that the run was made with."""
    path, inputs = folder / "constitution.yaml", folder / "inputs.json"
    if not path.is_file() or not inputs.is_file():
        return None
    try:
        told, found = read_json(inputs), load_constitution(path).hash
    except CharterError:
        return None
    return path if isinstance(told, dict) and told.get("constitution") == found else None


def _suggest(path: Path, place: str) -> str:
    siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    guess = did_you_mean(path.name, siblings)
    begins = "the folder you are in" if place.startswith(OVERRIDE) else "the run file's folder"
    return guess if guess.startswith("did") else f"check the path; it counts from {begins}"


def model_named(source: str) -> ModelConfig:
    """A model as people name it outside a run file: a folder, a hub id or a server.

    Raises:
        ConfigError: a server without a model, or with a password.
    """
    try:
        return ModelConfig(source=str(Path(source).resolve()) if Path(source).exists() else source)
    except ValidationError as error:
        raise ConfigError(str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")) from error


def resolved_yaml(config: RunConfig) -> str:
    """The whole configuration as YAML, every default written out; ``load_run`` reads it back."""
    return dump_yaml(config.model_dump(mode="json"))
