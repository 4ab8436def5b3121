"""The run folder: one sub-folder per stage, each closed by a manifest when its stage is done.

run/
  .lock                     held while a process works here
  files.json                hashes of all that no stage's manifest holds, once the run is finished (whole.py)
  1-revise/
    revisions.jsonl         what the stage wrote
    attempts.jsonl          when it was worked on, and by whom
    done.json               written last: key, summary, seconds, SHA-256 and size of each file
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock

from charter.errors import CharterError, StoreError
from charter.store.disk import store_errors
from charter.store.hashing import content_files, hash_file, hash_json
from charter.store.jsonl import JsonlAppender, read_json, read_rows, write_json
from charter.store.whole import (
    ATTEMPTS,
    KEY_FILE,
    MANIFEST,
    faults_beside_stages,
    left_by_training,
    links,
    manifests_of,
    plain_files,
)

_HOLDER_TRIES, _HOLDER_SECONDS = 25, 0.02  # how long a new holder may take to write its name
_TEMPORARY = re.compile(r"\..+\.([0-9]{1,9})\.tmp")
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunFolder:
    """A run folder that this process alone works in, until the ``with`` block ends."""

    def __init__(self, path: Path, lock: filelock.BaseFileLock | None) -> None:
        """``lock`` is None in a process that works for the one that has it."""
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create the folder where needed and lock it.

        The lock is the kernel's: it goes when the process ends, however it ends.

        Raises:
            StoreError: another process works in it (host and PID are named), or it can't be written.
        """
        with store_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path / ".lock")
            holder = path / ".holder.json"
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout as error:
                raise StoreError(
                    f"{path}: {_describe(holder)} works in this run folder: wait until it ends, or choose another "
                    "folder with --out"
                ) from error
            holder.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
            _sweep(path)
        return cls(path, lock)

    def stage(self, name: str) -> StageFolder:
        """The sub-folder of a stage, as ``1-revise``; created where needed."""
        if not _STAGE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no stage name")
        return StageFolder(self.path / name)

    def close(self) -> None:
        """Let another process work here."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed had half written (``atomic_write``): a stage with it in doesn't verify."""
    for path in folder.rglob(".*.tmp"):
        made = _TEMPORARY.fullmatch(path.name)
        if made and path.is_file() and not path.is_symlink() and not is_alive(int(made[1])):
            path.unlink(missing_ok=True)


def _describe(holder: Path) -> str:
    """Who holds the lock. The file may still tell of a holder before, or be half written: it is given a moment."""
    for _ in range(_HOLDER_TRIES):
        try:
            row = json.loads(holder.read_text())
            host, pid = str(row["host"]), int(row["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(_HOLDER_SECONDS)
            continue
        if host != socket.gethostname() or is_alive(pid):
            return f"process {pid} on {host}"
        time.sleep(_HOLDER_SECONDS)
    return "another process"


def is_alive(pid: int) -> bool:
    """Is there such a process on this machine?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


class StageFolder:
    """What one stage writes. It is done when its manifest stands, and the manifest is written last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin()
        with store_errors(path):
            path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Work on the stage in this block: its time counts, also where the process is killed in it."""
        self._close_cut_off()
        self._begin()
        self._note(self._began, None)
        try:
            yield
        finally:
            if self.path.is_dir():
                self._note(self._began, self._began + self._seconds())

    def done_key(self) -> str | None:
        """The key under which the stage was finished; None where it wasn't."""
        return self._manifest()["key"] if self._is_finished() else None

    def is_done(self, key: str) -> bool:
        """Whether the stage was finished under this key.

        Raises:
            StoreError: it was, but a file is missing or has another size since.
        """
        if self.done_key() != key:
            return False
        for name, entry in self._manifest()["files"].items():
            path = self.path / name
            if not path.is_file() or path.stat().st_size != entry["size"]:
                raise StoreError(
                    f"{path}: changed or missing since the stage was finished: delete {self.path} to do it again"
                )
        return True

    def summary(self) -> dict[str, Any]:
        """The summary that ``finish`` was given, with ``wall_seconds`` over all attempts.

        Raises:
            StoreError: the stage isn't finished.
        """
        if not self._is_finished():
            raise StoreError(f"{self.path}: this stage isn't finished: run the same command again")
        manifest = self._manifest()
        return {**manifest["summary"], "wall_seconds": manifest["wall_seconds"]}

    def finish(self, key: str, summary: dict[str, Any]) -> None:
        """Close the stage: write the manifest of everything in the folder.

        Args:
            key: content key of the stage's inputs; another key later means that it is stale.
            summary: JSON object of figures about the stage.
        """
        manifest = {
            "key": key,
            "summary": summary,
            "wall_seconds": round(self._seconds_before() + self._seconds(), 3),
            "files": {
                name: {"sha256": hash_file(path), "size": path.stat().st_size}
                for name, path in content_files(self.path).items()
                if name not in (MANIFEST, ATTEMPTS)
            },
        }
        write_json(self.path / MANIFEST, {**manifest, "sha256": hash_json(manifest)})

    def clear(self) -> None:
        """Remove everything in it, an unfinished or stale stage, to begin anew."""
        with store_errors(self.path):
            (self.path / MANIFEST).unlink(missing_ok=True)  # first, lest a crash leave a manifest without its files
            shutil.rmtree(self.path)
            self.path.mkdir()

    def _is_finished(self) -> bool:
        return (self.path / MANIFEST).is_file()

    def _manifest(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        manifest = read_json(path)
        if not isinstance(manifest, dict) or not {"key", "summary", "wall_seconds", "files"} <= manifest.keys():
            raise StoreError(f"{path}: not a manifest: delete {self.path} to do the stage again")
        return manifest

    def _begin(self) -> None:
        self._began, self._clock = time.time(), time.monotonic()

    def _seconds(self) -> float:
        """Of the present attempt; the clock on the wall may be set meanwhile."""
        return time.monotonic() - self._clock

    def _note(self, start: float, end: float | None) -> None:
        with JsonlAppender(self.path / ATTEMPTS) as file:
            file.append([{"start": start, "end": end, "host": socket.gethostname(), "pid": os.getpid()}])

    def _attempts(self) -> dict[float, float | None]:
        """Start -> end of each attempt, in seconds since the epoch; end is None where it was cut off."""
        path = self.path / ATTEMPTS
        rows = [row for _, row in read_rows(path)] if path.exists() else []
        return {row["start"]: row["end"] for row in rows}

    def _close_cut_off(self) -> None:
        """Give an attempt that was killed the time of its last sign of life as its end."""
        last_sign = max((path.stat().st_mtime for path in content_files(self.path).values()), default=0.0)
        for start, end in self._attempts().items():
            if end is None:
                self._note(start, max(start, last_sign))

    def _seconds_before(self) -> float:
        """Seconds of all attempts but the present one."""
        return sum(max(0.0, (end or start) - start) for start, end in self._attempts().items() if start != self._began)


def verify(run_path: Path, unread: tuple[str, ...] = ()) -> list[str]:
    """Hash every file of a finished run, or of its finished stages, again; one line per file that isn't as it was written.

    Args:
        unread: endings of the names of files that are not hashed, only looked for.

    Raises:
        StoreError: there is no run there, or a file can't be read.
    """
    if not run_path.is_dir():
        raise StoreError(f"{run_path}: no run folder there: check the path")
    stages = [line for path in manifests_of(run_path) for line in _verify_stage(path.parent, unread)]
    return links(run_path) + stages + faults_beside_stages(run_path, unread)


def _verify_stage(folder: Path, unread: tuple[str, ...]) -> list[str]:
    try:
        manifest = StageFolder(folder)._manifest()
    except CharterError as error:
        return [str(error)]
    told = manifest.pop("sha256", None)
    name = folder.name
    if told != hash_json(manifest):
        return [f"{name}/{MANIFEST}: the manifest itself was changed"]
    key_file = folder / KEY_FILE
    faults = []
    if key_file.is_file() and key_file.read_bytes() != str(manifest["key"]).encode():
        faults.append(f"{name}/{KEY_FILE}: not the key under which the stage was finished")
    present = {
        key: path
        for key, path in plain_files(folder).items()
        if key not in (MANIFEST, ATTEMPTS, KEY_FILE) and not left_by_training(key)
    }
    missing = [key for key in sorted(manifest["files"].keys() - present.keys()) if not (folder / key).is_file()]
    faults += [f"{name}/{key}: missing" for key in missing]
    faults += [
        f"{name}/{key}: not there when the stage was finished"
        for key in sorted(present.keys() - manifest["files"].keys())
    ]
    for key in sorted(manifest["files"].keys() & present.keys()):
        if not key.endswith(unread) and hash_file(present[key]) != manifest["files"][key]["sha256"]:
            faults.append(f"{name}/{key}: content changed since the stage was finished")
    return faults
