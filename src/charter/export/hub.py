"""A run's models and data as Hugging Face repositories: what goes into each, written to a folder or sent to the Hub.

A file of a model goes only if its stage's manifest names it and its content is still what the manifest says. Nothing is
sent before that is known, nor to a public repository unless asked to. The token is the one of HF's own login or
environment; it is never written anywhere, and cut out of messages.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.errors import CharterError, ConfigError, EndpointError, StoreError
from charter.export.cards import dataset_card, model_card
from charter.export.evidence import read_evidence
from charter.export.rows import read_run
from charter.sources import public_name
from charter.store.disk import atomic_write, store_errors
from charter.store.hashing import hash_file
from charter.store.jsonl import read_json, rows_to_bytes

ADAPTER_FILES = ("adapter/adapter_config.json", "adapter/base.json", "adapter/README.md")
RUN_BASE, EXPORTED_BASE = (
    "../../2-sft/model",
    "../../sl-cai",
)  # from an adapter's folder, in the run and among the exported
STAGES = {"sl-cai": "2-sft", "reward": "5-reward", "policy": "6-policy"}


@dataclass(frozen=True)
class HubFile:
    """One file of a repository: where it lies here, or its bytes."""

    name: str
    content: Path | bytes
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"path": self.name, "size": self.size, "sha256": self.sha256}


def model_files(run: Path, what: str) -> list[HubFile]:
    """The card and files of a model (``sl-cai``, ``reward`` or ``policy``).

    Raises:
        StoreError: that stage isn't finished, or a file changed since.
    """
    stage = run / STAGES[what]
    evidence = read_evidence(run)
    if not (stage / "done.json").is_file() or not (stage / "model").is_dir():
        raise StoreError(f"{stage}: no finished model there: run it first, or choose another --what")
    named = read_json(stage / "done.json")["files"]
    files = []
    for name, told in named.items():
        if not name.startswith(("model/", "adapter/")):
            continue
        path = stage / name
        if not path.is_file() or hash_file(path) != told["sha256"]:
            raise StoreError(f"{path}: changed or missing since the stage was finished: see charter verify {run}")
        if name in ADAPTER_FILES:
            files.append(_of_bytes(name, _with_exported_base(path)))
        else:
            files.append(HubFile(name.removeprefix("model/"), path, told["size"], told["sha256"]))
    return [_of_bytes("README.md", model_card(evidence, what).encode()), *files]


def _with_exported_base(path: Path) -> bytes:
    """A small file of an adapter: its base is called by the folder beside, never by a place on this machine."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        told = json.loads(text)
        for key in ("base_model_name_or_path", "source"):
            if isinstance(told.get(key), str):
                of_sl_cai = Path(told[key]).parts[-2:] == ("2-sft", "model")
                told[key] = EXPORTED_BASE if of_sl_cai else public_name(told[key])
        return (json.dumps(told, indent=2) + "\n").encode()
    return text.replace(RUN_BASE, EXPORTED_BASE).replace("`../model`", "The model in the folder above").encode()


def dataset_files(run: Path) -> list[HubFile]:
    """The card and tables of a run's data, as JSON Lines.

    Raises:
        StoreError: nothing to export there.
    """
    rows = read_run(run)
    tables = rows.tables()
    left_out = (
        f"{rows.num_ties:,} ties, which have no chosen side, are left out; {rows.num_replaced:,} texts with half "
        "characters or NUL were mended."
    )
    files = [_of_bytes(f"{name}.jsonl", rows_to_bytes(table)) for name, table in tables.items()]
    counts = {f"{name}.jsonl": len(table) for name, table in tables.items()}
    card = dataset_card(read_evidence(run), counts, {file.name: file.sha256 for file in files}, left_out)
    return [_of_bytes("README.md", card.encode()), *files]


def repository_files(run: Path, what: str) -> list[HubFile]:
    return dataset_files(run) if what == "dataset" else model_files(run, what)


def _of_bytes(name: str, content: bytes) -> HubFile:
    return HubFile(name, content, len(content), hashlib.sha256(content).hexdigest())


def write_folders(run: Path, folder: Path) -> dict[str, list[HubFile]]:
    """Write a folder for each thing that the run has: ``dataset``, ``sl-cai``, ``reward``, ``policy``.

    Raises:
        StoreError: the folder has something in it, or nothing is finished.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder}: is not empty: delete it or choose another --out")
    finished = [what for what, stage in STAGES.items() if (run / stage / "done.json").is_file()]
    found = {what: repository_files(run, what) for what in ("dataset", *finished)}
    for what, files in found.items():
        for file in files:
            path = folder / what / file.name
            with store_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(file.content, Path):
                    shutil.copyfile(file.content, path)
                else:
                    with atomic_write(path) as out:
                        out.write(file.content)
    return found


def push(files: list[HubFile], repo: str, what: str, public: bool) -> dict[str, Any]:
    """Send a repository to the Hub in one commit; it is created where needed, private unless ``public``.

    Raises:
        ConfigError: a bad ORG/NAME, no login, or a repository that is public already.
        EndpointError: the Hub refuses or can't be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    check_repo(repo)
    token = get_token()
    if token is None:
        raise ConfigError("no Hugging Face login: run hf auth login, or set HF_TOKEN")
    kind = "dataset" if what == "dataset" else "model"
    adds = [
        CommitOperationAdd(file.name, str(file.content) if isinstance(file.content, Path) else file.content)
        for file in files
    ]
    api = HfApi(library_name="charter")
    with _hub_errors(repo, token):
        api.create_repo(repo, repo_type=kind, private=not public, exist_ok=True)
        private = bool(api.repo_info(repo, repo_type=kind).private)
        if not private and not public:
            raise ConfigError(f"{repo}: is a public repository: make it private, choose another, or say --public")
        commit = api.create_commit(repo, adds, commit_message="Add files with Charter", repo_type=kind)
    return {"private": private, "commit": commit.oid, "url": str(commit.repo_url)}


def check_repo(repo: str) -> None:
    """Refuse what is no ORG/NAME.

    Raises:
        ConfigError: it isn't one.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        good = repo.count("/") == 1
    except HFValidationError:
        good = False
    if not good:
        raise ConfigError(f"{repo[:100]!r} is no repository: write ORG/NAME, with letters, digits, - _ and . only")


@contextmanager
def _hub_errors(repo: str, token: str) -> Iterator[None]:
    """One line for whatever huggingface_hub raises, without the token."""
    try:
        yield
    except CharterError:
        raise
    except Exception as error:  # it raises its own, httpx's, OSError, ValueError and RuntimeError
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        reason = " ".join(str(cause).split()).replace(token, "***")[:300] or type(cause).__name__
        raise EndpointError(f"{repo}: the Hub did not take it: {reason}: mend that and push again") from None
