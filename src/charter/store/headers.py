"""Headers of safetensors files: names and shapes of the weights in a model folder, without reading a weight."""

from __future__ import annotations

import json
from pathlib import Path

MAX_HEADER = 100_000_000  # bytes, as in safetensors itself


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes by name over all files of a folder (8 bytes of length, then JSON).

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError: a file isn't as it should be, or there is none.
    """
    found: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > MAX_HEADER:
                raise ValueError(f"{path.name} has a header of {size:,} bytes")
            header = json.loads(file.read(size))
        found |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    if not found:
        raise ValueError("no safetensors")
    return found
