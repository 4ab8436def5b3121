"""``files.json``: the hash of every file of a finished run that no stage's manifest holds, manifests and ledger included.

It is written last, and removed when work on the run goes on. A command that writes a file anew notes that file alone: what
was changed beside it stays found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from charter.errors import CharterError
from charter.store.disk import store_errors
from charter.store.hashing import content_files, hash_file, hash_json
from charter.store.jsonl import read_json, write_json

WHOLE = "files.json"
_PASSING = ("-wal", "-shm", "-journal")  # of a database that somebody has open


def reopen(run: Path) -> None:
    """Work on the run goes on: what stands beside its stages may change."""
    with store_errors(run):
        (run / WHOLE).unlink(missing_ok=True)


def close(run: Path) -> None:
    """The run is finished: write down the hash of all that stands beside the files of its stages."""
    covered = _of_stages(run)
    names = [name for name in content_files(run) if name not in covered and name != WHOLE]
    _write(run, {name: hash_file(run / name) for name in names if not name.endswith(_PASSING)})


def note(run: Path, names: Iterable[str]) -> None:
    """Files were written anew in a finished run; does nothing where the run isn't closed, or its list is damaged."""
    if not (run / WHOLE).is_file():
        return
    files, fault = _read(run)
    if fault is None:
        _write(run, {**files, **{name: hash_file(run / name) for name in names}})


def faults_beside_stages(run: Path) -> list[str]:
    """One line per file that isn't as it was when the run was closed; none where it isn't closed."""
    if not (run / WHOLE).is_file():
        return []
    files, fault = _read(run)
    if fault is not None:
        return [fault]
    faults = []
    for name, digest in sorted(files.items()):
        path = run / name
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif hash_file(path) != digest:
            faults.append(f"{name}: content changed since the run was finished")
    return faults


def _of_stages(run: Path) -> set[str]:
    """What the manifests of stages hold."""
    return {
        f"{path.parent.name}/{name}" for path in run.glob("*/done.json") for name in read_json(path).get("files", {})
    }


def _write(run: Path, files: dict[str, str]) -> None:
    write_json(run / WHOLE, {"files": dict(sorted(files.items())), "sha256": hash_json(files)})


def _read(run: Path) -> tuple[dict[str, str], str | None]:
    """The hashes by name, or why they can't be believed: the list is believed only byte for byte as it is written."""
    path = run / WHOLE
    fault = f"{WHOLE}: the list itself was changed"
    try:
        found: Any = read_json(path)
    except CharterError:
        return {}, fault
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(files, dict) or found.get("sha256") != hash_json(files):
        return {}, fault
    with store_errors(path):
        written = path.read_bytes()
    same = json.dumps(found, ensure_ascii=True, allow_nan=False, indent=2).encode("ascii") + b"\n" == written
    return files, None if same else fault
