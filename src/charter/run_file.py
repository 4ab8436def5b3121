"""Read a run file: check it as a whole, and make its paths absolute."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import RunConfig
from charter.errors import ConfigError
from charter.sources import is_python
from charter.suggest import did_you_mean
from charter.yaml_io import OVERRIDE, Location, YamlDocument, dotted, dump_yaml, load_yaml, parse_yaml, validate

_SOURCE_KEYS = {"source", "constitution", "helpful_data", "labels", "pairs"}
_URLS = ("http://", "https://", "postgresql://", "postgres://")
_MODEL_KEYS = {"model", "judge", "critic", "debater"}  # their source may be a name or a hub id as well


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a run file; paths in it count from its folder, paths in overrides from the working folder.

    Args:
        overrides: ``key.path=value`` each, the value in YAML; they win over the file.

    Raises:
        ConfigError: one line with file:line, key path, and what to do.
        StoreError: the file can't be read.
    """
    document = apply_overrides(load_yaml(path, ConfigError), overrides)
    config = validate(RunConfig, document, ConfigError)
    resolved = _resolve(document.data, (), document)
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


def _resolve(value: Any, location: Location, document: YamlDocument) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(item, (*location, key), document) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, (*location, index), document) for index, item in enumerate(value)]
    if isinstance(value, str) and location[-1] in _SOURCE_KEYS:
        return _resolve_source(value, location, document)
    return value


def _resolve_source(source: str, location: Location, document: YamlDocument) -> str:
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
    raise ConfigError(f"{place}: {dotted(location)}: {path} is not there: {_suggest(path)}")


def _suggest(path: Path) -> str:
    siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    guess = did_you_mean(path.name, siblings)
    return guess if guess.startswith("did") else "check the path; it counts from the run file's folder"


def resolved_yaml(config: RunConfig) -> str:
    """The whole configuration as YAML, every default written out; ``load_run`` reads it back."""
    return dump_yaml(config.model_dump(mode="json"))
