"""Write docs/cli.md from the commands themselves: ``python docs/make_cli.py``. A test compares the two."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import typer
import typer.models

from charter.cli.main import app

HEAD = """# Commands

Made from the program by `python docs/make_cli.py`; change the help texts there, not here.

Exit codes: 0 done; 1 the command found what it looks for (a changed file, an unfit labeler, a problem); 2 something that you can
mend, said in one line on standard error; 3 nothing is wrong in what `charter verify` could check, but it couldn't check all;
130 interrupted. With `--json` standard output is one JSON document; what goes on is
shown on standard error. Shell completion: `charter --install-completion`.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_command(name, function) for name, function in _commands(app, "charter"))


def _commands(group: typer.Typer, name: str) -> Iterator[tuple[str, Callable[..., None]]]:
    for command in group.registered_commands:
        yield f"{name} {command.name}", command.callback
    for inner in group.registered_groups:
        yield from _commands(inner.typer_instance, f"{name} {inner.name}")


@dataclass(frozen=True)
class Parameter:
    """One argument or option, read from the function's signature."""

    name: str
    is_argument: bool
    is_flag: bool
    is_list: bool
    default: Any  # inspect.Parameter.empty: required
    info: Any
    choices: tuple[str, ...]

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def shown(self) -> str:
        metavar = self.info.metavar or self.name.upper().rstrip("_")
        if not self.is_argument:
            given = (
                [self.info.default] if isinstance(self.info.default, str) else []
            )  # Option("--json") inside Annotated
            given += self.info.param_decls or ()
            names = given or ["--" + self.name.replace("_", "-")]
            pair = [f"--no-{names[0][2:]}"] if self.is_flag and not given else []
            return "`" + "`, `".join([*names, *pair]) + "`" + (f" `{self.info.metavar}`" if self.info.metavar else "")
        metavar += "..." if self.is_list and not metavar.endswith("...") else ""
        return f"`{metavar}`" if self.required or metavar.startswith("[") else f"`[{metavar}]`"

    def says(self) -> str:
        text = " ".join((self.info.help or "").split()).replace("|", "\\|")
        text += f" One of: {', '.join(self.choices)}." if self.choices else ""
        if self.is_argument or self.required or self.default is None or self.default is False:
            return text.strip()
        return f"{text} Default: `{getattr(self.default, 'value', self.default)}`.".strip()


def _parameters(function: Callable[..., None]) -> list[Parameter]:
    hints, found = get_type_hints(function, include_extras=True), []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])[0], get_args(hints[name])[-1]
        choices = tuple(one.value for one in kind) if isinstance(kind, type) and issubclass(kind, Enum) else ()
        is_argument = isinstance(info, typer.models.ArgumentInfo)
        found.append(
            Parameter(name, is_argument, kind is bool, get_origin(kind) is list, parameter.default, info, choices)
        )
    return sorted(found, key=lambda parameter: not parameter.is_argument)


def _command(name: str, function: Callable[..., None]) -> str:
    says, _, json_keys = inspect.cleandoc(function.__doc__ or "").partition("\f")
    parameters = _parameters(function)
    arguments = [parameter.shown().strip("`") for parameter in parameters if parameter.is_argument]
    options = ["[OPTIONS]"] if len(arguments) < len(parameters) else []
    lines = [f"\n## {name}\n", f"```\n{' '.join([name, *arguments, *options])}\n```\n", _joined(says) + "\n"]
    if parameters:
        lines += ["| | |\n|---|---|", *(f"| {one.shown()} | {one.says()} |" for one in parameters), ""]
    if json_keys.strip():
        lines.append(_joined(json_keys) + "\n")
    return "\n".join(lines)


def _joined(text: str) -> str:
    """Paragraphs, each on one line."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n") if part.strip())


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page())
