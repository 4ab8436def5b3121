"""``charter push``: a run's model or data to the Hugging Face Hub."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from charter.cli.say import say


class What(StrEnum):
    """What of a run."""

    POLICY = "policy"
    REWARD = "reward"
    SL_CAI = "sl-cai"
    DATASET = "dataset"


def push(
    run: Annotated[Path, typer.Argument(help="Run folder.", metavar="RUN")],
    repo: Annotated[str, typer.Argument(help="Repository on the Hub.", metavar="ORG/NAME")],
    what: Annotated[What, typer.Option(help="What to send.")] = What.POLICY,
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it (default: private).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing: list files, sizes and hashes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Send a model or the data of a run to the Hub with its card. Private, and through your own Hugging Face login."""
    from charter.export.hub import check_repo, repository_files
    from charter.export.hub import push as send

    check_repo(repo)
    files = repository_files(run, what.value)
    sent = None if dry_run else send(files, repo, what.value, public)
    if as_json:
        told = {"repo": repo, "what": what.value, "private": not public, "sent": sent is not None}
        say(json.dumps({**told, **(sent or {}), "files": [file.to_json() for file in files]}))
        return
    for file in files:
        say(f"{file.sha256[:16]}  {file.size:>14,}  {file.name}")
    sight = "private" if (sent["private"] if sent else not public) else "public"
    if sent is None:
        say(f"dry run: {len(files)} files would go to {repo} ({sight}); nothing was sent")
    else:
        say(f"sent {len(files)} files to {sent['url']} ({sight}), commit {sent['commit'][:12]}")
