"""What one run file needs of this machine: extras, keys, servers that answer, models that are here or on the Hub.

Nothing is sent but a request for a server's list of models, without a key, and one for a hub model's config.json.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from charter.config import EndpointConfig, LoraConfig, ModelConfig, RunConfig
from charter.doctor import Finding, hub_url, status_of
from charter.run_file import load_run
from charter.sources import is_python, resolve_python

PACKAGES = {"endpoint": "openai", "lora": "peft", "trl": "trl", "ray": "ray"}
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def examine_run(path: Path, overrides: list[str]) -> list[Finding]:
    """Findings about what the run file names.

    Raises:
        CharterError: the run file is wrong.
    """
    config = load_run(path, overrides)
    models = {model.source: model for model in _sections(config, ModelConfig)}
    found = [Finding("run file", "ok", str(path))]
    found += [_extra(name) for name in _extras(config, models)]
    for source, model in models.items():
        is_server = source.startswith(("http://", "https://"))
        found += _server(source, model.endpoint or EndpointConfig()) if is_server else [_model(source)]
    return found


def _sections(value: Any, kind: type[BaseModel]) -> Iterator[Any]:
    """Every section of a kind, at any depth."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, BaseModel):
        for _, inner in value:
            yield from _sections(inner, kind)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _sections(inner, kind)


def _extras(config: RunConfig, models: dict[str, ModelConfig]) -> list[str]:
    needed = {
        "endpoint": any(source.startswith(("http://", "https://")) for source in models),
        "lora": next(_sections(config, LoraConfig), None) is not None,
        "trl": config.engine == "trl",
        "ray": config.scale.fan_out == "ray",
    }
    return [*(name for name, is_needed in needed.items() if is_needed), *([config.tracker] if config.tracker else [])]


def _extra(name: str) -> Finding:
    if importlib.util.find_spec(PACKAGES.get(name, name)) is not None:
        return Finding(f"needs {name}", "ok", "installed")
    return Finding(
        f"needs {name}", "problem", "not installed, and this run asks for it", f"pip install 'charter[{name}]'"
    )


def _server(source: str, settings: EndpointConfig) -> list[Finding]:
    url = source.partition("#")[0].rstrip("/")
    found = []
    if os.environ.get(settings.key_env):
        found.append(Finding(f"key {settings.key_env}", "ok", f"set; for {url}"))
    elif urlsplit(url).hostname in LOCAL_HOSTS:
        found.append(
            Finding(
                f"key {settings.key_env}", "note", f"not set; {url} is local and may need none", "export it if it does"
            )
        )
    else:
        says = f"not set, and {url} is asked with it"
        found.append(Finding(f"key {settings.key_env}", "problem", says, f"export {settings.key_env}=..."))
    status = status_of(f"{url}/models")
    if status is None:
        fix = "start the server, or mend the address in the run file"
        return [*found, Finding("server", "problem", f"{url} doesn't answer within 2 s", fix)]
    return [*found, Finding("server", "ok", f"{url} answers (status {status}, asked without a key)")]


def _model(source: str) -> Finding:
    if is_python(source):
        resolve_python(source)
        return Finding("model", "ok", f"{source} is there")
    if Path(source).is_dir():
        return Finding("model", "ok", f"{source} is there")
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        return Finding("model", "problem", f"{source}: no such folder", "give a model folder or a hub id like org/name")
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(source, "config.json"), str):
        return Finding("model", "ok", f"{source} is in the Hub's cache")
    status = status_of(f"{hub_url()}/{source}/resolve/main/config.json")
    if status == 200:
        return Finding("model", "ok", f"{source} is on the Hub, and is downloaded when the run starts")
    if status is None:
        fix = "connect, or give a model folder"
        return Finding("model", "problem", f"{source} is not in the Hub's cache, and the Hub is unreachable", fix)
    fix = "check the name; for a gated or private model accept its terms and run hf auth login"
    return Finding("model", "problem", f"{source}: the Hub says {status} to a visitor without login", fix)
