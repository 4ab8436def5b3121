"""Printing for people: every line passes through ``safe_text``."""

from __future__ import annotations

from typing import Any

import typer

from charter.safe_text import safe_text

MAX_SEED = 2**32 - 1  # what every generator takes


def say(line: str = "") -> None:
    """Print to standard output."""
    typer.echo(safe_text(line))


def warn(line: str) -> None:
    """Print one line to standard error; the command goes on."""
    typer.echo("charter: warning: " + " ".join(safe_text(line).split()), err=True)


def figure(estimate: dict[str, Any] | None) -> str:
    """An estimate as JSON, in a few characters: ``0.12 (0.08-0.17)``; a dash where it can't be known."""
    if not estimate or estimate["value"] is None:
        return "-"
    text = f"{estimate['value']:.2f}"
    if estimate["low"] is None or estimate["high"] is None:
        return text
    return f"{text} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of a table as lines, the cells of a column under each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def counted(num: int, noun: str) -> str:
    """``1 change``, ``2 changes``."""
    return f"{num:,} {noun}" + ("" if num == 1 else "s")
