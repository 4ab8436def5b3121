"""What the campaign's scripts share: their arguments, and a result that decides the exit status."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def arguments(doc: str | None, **sizes: tuple[int, int]) -> argparse.Namespace:
    """``--long``, ``--seed``, and a number for each of ``sizes`` (long, short)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the sizes that docs/reliability.md states")
    parser.add_argument("--seed", type=int, default=0)
    for name, (long, short) in sizes.items():
        parser.add_argument(f"--{name}", type=int, help=f"default {short}, with --long {long}")
    found = parser.parse_args()
    for name, (long, short) in sizes.items():
        if getattr(found, name) is None:
            setattr(found, name, long if found.long else short)
    return found


def result(told: dict[str, Any]) -> None:
    """Print it as one line of JSON; exit status 1 where ``violations`` isn't 0."""
    print(json.dumps(told), flush=True)
    sys.exit(1 if told["violations"] else 0)
