"""``charter rate``: people label response pairs in a local web page."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charter.cli.say import say

if TYPE_CHECKING:
    from charter.store.labels import LabelStore

MIN_TOKEN_CHARACTERS = 16


def rate(
    pairs: Annotated[Path, typer.Argument(help="Response pairs, or preference pairs to label anew.", metavar="PAIRS")],
    constitution: Annotated[
        str | None, typer.Option(help="YAML file or shipped name: a principle of it is drawn for each pair.")
    ] = None,
    db: Annotated[
        str | None,
        typer.Option(
            envvar="CHARTER_RATE_DB",
            help="SQLite file or postgresql:// URL (default: beside PAIRS, or beside the run folder that they lie in).",
        ),
    ] = None,
    overlap: Annotated[float, typer.Option(min=0, max=1, help="Share of pairs that two raters label.")] = 0.2,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback it needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8017,
    token: Annotated[
        str | None, typer.Option(envvar="CHARTER_RATE_TOKEN", help="What the link must hold (default: random).")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the labels so far here as preference pairs, and don't serve.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --export: one JSON object.")] = False,
) -> None:
    """Let one or several people label pairs in a web page, or export what they said.

    \f
    JSON, of --export: preferences and judgments (files), num_pairs, num_judgments.
    """
    from charter.constitution.load import find_constitution, load_constitution
    from charter.rating.items import read_items
    from charter.store.labels import LabelStore, open_labels
    from charter.store.sql import open_database

    source = db or str(_database(pairs))
    if export:
        _export(open_labels(source), export, as_json)
        return
    secret = _token(token, host)
    loaded = load_constitution(find_constitution(constitution)) if constitution else None
    items = read_items(pairs, loaded)
    store = LabelStore(open_database(source))
    store.add_items(items, overlap)
    _serve(store, secret, host, port)


def _database(pairs: Path) -> Path:
    """Beside the pairs; but a stage's folder holds what the stage wrote and nothing else, or it doesn't verify."""
    own = pairs.with_name(f"{pairs.name}.labels.sqlite")
    stage = pairs.absolute().parent
    if own.exists() or not (stage.parent / "run.yaml").is_file():
        return own
    return stage.parent.with_name(f"{stage.parent.name}.{stage.name}.labels.sqlite")


def _token(token: str | None, host: str) -> str:
    import secrets

    from charter.errors import ConfigError
    from charter.rating.guard import is_loopback

    if token is None:
        if not is_loopback(host):
            raise ConfigError(f"--host {host} can be reached by others: give --token, or stay on 127.0.0.1")
        return secrets.token_urlsafe(24)
    if (
        len(token) < MIN_TOKEN_CHARACTERS
        or not token.isascii()
        or not token.replace("-", "").replace("_", "").isalnum()
    ):
        raise ConfigError(f"--token is too weak: use at least {MIN_TOKEN_CHARACTERS} letters and digits")
    return token


def _export(store: LabelStore, file: Path, as_json: bool) -> None:
    from charter.rating.export import export, judgments_file

    num_pairs, num_judgments = export(store, file)
    judgments = judgments_file(file)
    if as_json:
        counts = {"num_pairs": num_pairs, "num_judgments": num_judgments}
        say(json.dumps({"preferences": str(file), "judgments": str(judgments), **counts}))
        return
    say(f"{file}: {num_pairs} preference pairs; {judgments}: {num_judgments} judgments")


def _serve(store: LabelStore, token: str, host: str, port: int) -> None:
    from charter.errors import ConfigError
    from charter.rating.guard import Guard, is_loopback

    try:
        from charter.rating.server import RatingServer, listen, serve
    except ImportError as error:
        raise ConfigError("charter rate needs starlette and uvicorn: pip install 'charter[rate]'") from error
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    say(f"Open http://{shown}:{listener.getsockname()[1]}/?token={token}")
    if not is_loopback(host):
        say("Others can reach this address, and what they send is not encrypted: use it in a network that you trust.")
    say(f"Labels go to {store.name}. Stop with Ctrl-C; the same command goes on where you stopped.")
    # under load the interrupt may end the server without coming up to here
    with contextlib.suppress(KeyboardInterrupt):
        serve(RatingServer(store, Guard(token, host)).app(), listener)
    say("Stopped. Every label is stored.")
