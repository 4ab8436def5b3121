"""Sources of the form ``package.module:attribute``: things that an installed package provides."""

from __future__ import annotations

import importlib
import re
from typing import Any

from charter.errors import ConfigError
from charter.suggest import did_you_mean

_PYTHON = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


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
