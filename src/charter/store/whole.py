"""``files.json``: the hash of every file of a finished run that no stage's manifest holds, manifests and ledger included.

It is written last, and removed when work on the run goes on. A command that writes a file anew notes that file alone: what
was changed beside it stays found. Hidden files count as well, but for those that say who works on the run, and links never do.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charter.errors import CharterError
from charter.store.disk import store_errors
from charter.store.hashing import hash_file, hash_json
from charter.store.jsonl import read_json, write_json

WHOLE = "files.json"
MANIFEST, ATTEMPTS, KEY_FILE = "done.json", "attempts.jsonl", ".key"
EXPORTS = "export/"  # which may be deleted
_HOLDERS = (".lock", ".holder.json")
_PASSING = ("-wal", "-shm", "-journal")  # of a database that somebody has open
_OF_RUNS = re.compile(  # what Charter writes beside the files of stages
    r"(run|constitution)\.yaml|(inputs|summary)\.json|report\.html|ledger\.sqlite|preferences\.jsonl|8-audit/audit(\.before)?\.json"
    r"|[1-7]-[a-z0-9-]+/.*|(export|tensorboard|trackio|wandb|mlflow)/.*"
)


def reopen(run: Path) -> None:
    """Work on the run goes on: what stands beside its stages may change."""
    with store_errors(run):
        (run / WHOLE).unlink(missing_ok=True)


def close(run: Path) -> None:
    """The run is finished: write down the hash of all that stands beside the files of its stages."""
    _write(run, {name: hash_file(run / name) for name in _beside(run) if not name.endswith(_PASSING)})


def note(run: Path, names: Iterable[str]) -> None:
    """Files were written anew in a finished run; does nothing where the run isn't closed, or its list is damaged."""
    if not (run / WHOLE).is_file():
        return
    files, fault = _read(run)
    if fault is None:
        _write(run, {**files, **{name: hash_file(run / name) for name in names}})


def note_export(run: Path, folder: Path) -> None:
    """A folder of exports was written; what of it lies in the run is noted, and may be deleted later."""
    if run.resolve() in folder.resolve().parents:
        place = folder.resolve().relative_to(run.resolve()).as_posix()
        note(run, [f"{place}/{name}" for name in plain_files(folder)])


@contextmanager
def rewriting(run: Path, name: str) -> Iterator[None]:
    """A file of a finished run changes in this block: it is noted afterwards, unless it wasn't as it ought to be before."""
    closed = (run / WHOLE).is_file()
    sound = closed and _read(run)[0].get(name) == hash_file(run / name)
    yield
    if sound:
        note(run, [name])


def renamed(run: Path, before: str, after: str) -> None:
    """A file got another name in a finished run: the hash that it ought to have goes along with it."""
    if not (run / WHOLE).is_file():
        return
    files, fault = _read(run)
    if fault is None and before in files:
        _write(run, {**{name: digest for name, digest in files.items() if name != before}, after: files[before]})


def faults_beside_stages(run: Path, unread: tuple[str, ...] = ()) -> list[str]:
    """One line per file that isn't as it was when the run was closed; none where it isn't closed.

    Args:
        unread: endings of the names of files that are not hashed.
    """
    if not (run / WHOLE).is_file():
        return []
    files, fault = _read(run)
    if fault is not None:
        return [fault]
    faults = []
    for name, digest in sorted(files.items()):
        path = run / name
        if not path.is_file():
            faults += [] if name.startswith(EXPORTS) else [f"{name}: missing"]
        elif not name.endswith(unread) and not path.is_symlink() and hash_file(path) != digest:
            faults.append(f"{name}: content changed since the run was finished")
    added = [name for name in _beside(run) if name not in files and not name.endswith(_PASSING)]
    return faults + [f"{name}: not there when the run was finished" for name in added]


def unverified(run: Path) -> list[str]:
    """Names of the files that nothing tells of: without ``files.json`` all that stand beside the files of stages."""
    closed = (run / WHOLE).is_file() and _read(run)[1] is None
    manifests = {path.relative_to(run).as_posix() for path in manifests_of(run)}  # which hold their own hash
    return [
        name
        for name in _beside(run)
        if (name.endswith(_PASSING) and (run / name).stat().st_size) or not (closed or name in manifests)
    ]


def unknown(names: Iterable[str]) -> list[str]:
    """Those of the files beside stages that Charter doesn't write."""
    return [name for name in names if not _OF_RUNS.fullmatch(name) and not name.endswith(_PASSING)]


def links(run: Path) -> list[str]:
    """One line per link or other thing that is no plain file. Trackers link within their own folder, which is harmless."""
    faults = []
    for name, path in _entries(run):
        top = run / name.split("/")[0]
        if path.is_symlink():
            target = Path(os.readlink(path))
            inside = not target.is_absolute() and top.is_dir() and top.resolve() in path.resolve().parents
            if not inside or top.name[0].isdigit():
                faults.append(f"{name}: a link to {target}, no file of the run")
        elif not path.is_file():
            faults.append(f"{name}: no plain file")
    return faults


def left_by_training(name: str) -> bool:
    """Whether it is of a checkpoint that a killed process had no time to remove from a finished stage."""
    return ".checkpoint" in name.split("/")


def plain_files(folder: Path) -> dict[str, Path]:
    """Relative posix name -> path of every file under a folder, hidden ones too; no link is followed, and none is here."""
    return {name: path for name, path in _entries(folder) if path.is_file() and not path.is_symlink()}


def manifests_of(run: Path) -> list[Path]:
    """The manifests of the finished stages, those behind links left out."""
    return [p for p in sorted(run.glob(f"*/{MANIFEST}")) if not p.is_symlink() and not p.parent.is_symlink()]


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """All that lies under a folder but folders; a link to a folder is an entry."""
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        found += [here / name for name in files] + [here / name for name in folders if (here / name).is_symlink()]
    for path in sorted(found):
        yield path.relative_to(folder).as_posix(), path


def _beside(run: Path) -> list[str]:
    """Every file that no stage's manifest holds, without ``files.json`` and what says who works here."""
    covered = {WHOLE, *_HOLDERS}
    finished = set()
    for path in manifests_of(run):
        stage = path.parent.name
        finished.add(stage)
        try:
            manifest = read_json(path)
        except CharterError:  # told where the stage is looked at
            continue
        files = manifest.get("files") if isinstance(manifest, dict) else None
        covered |= {f"{stage}/{name}" for name in files or ()}
    return [name for name in plain_files(run) if name not in covered and not _is_of_stage(name, finished)]


def _is_of_stage(name: str, finished: set[str]) -> bool:
    """Whether the stage itself is asked for this file: its key, or a file that its manifest doesn't hold."""
    stage, _, rest = name.partition("/")
    return rest == KEY_FILE or (stage in finished and rest not in (MANIFEST, ATTEMPTS) and not left_by_training(rest))


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
