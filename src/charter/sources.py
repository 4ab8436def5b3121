"""Sources: ``package.module:attribute`` for what an installed package provides; and what a source is called in public."""

from __future__ import annotations

import importlib
import re
from pathlib import PureWindowsPath
from typing import Any

from charter.errors import ConfigError
from charter.suggest import did_you_mean

_PYTHON = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PATH_VALUE = re.compile(r"""(?m)((?:: |- )["']?)((?:/|~|[A-Za-z]:\\)[^\n"']*)""")


def is_python(source: str) -> bool:
    """Whether a source names something in Python rather than a path, hub id or endpoint."""
    return _PYTHON.fullmatch(source) is not None


def resolve_python(source: str) -> Any:
    """Import what ``package.module:attribute`` names.

    Raises:
        ConfigError: not of that form, no such module, or no such attribute.
    """
    if not is_python(source):
        raise ConfigError(
            f"{source!r} is not of the form package.module:attribute: name a module and what to take from it"
        )
    module_name, _, attribute = source.partition(":")
    try:
        value = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{source}: {error}: install the package, or put its folder on PYTHONPATH") from error
    for name in attribute.split("."):
        if not hasattr(value, name):
            public = [known for known in dir(value) if not known.startswith("_")]
            raise ConfigError(f"{source}: there is no {name!r}: {did_you_mean(name, public)}")
        value = getattr(value, name)
    return value


def public_name(source: str) -> str:
    """A model's name without the folders of this machine that lead to it."""
    return PureWindowsPath(source).name if is_local(source) else source


def is_local(source: str) -> bool:
    """Whether a source is a path, of this system or another."""
    return bool(source.startswith(("/", ".", "~")) or PureWindowsPath(source).drive or "\\" in source)


def without_folders(text: str) -> str:
    """YAML whose values that are paths are cut to their last part: a run file, to be shown."""
    return _PATH_VALUE.sub(lambda found: f"{found[1]}…/{public_name(found[2])}", text)
