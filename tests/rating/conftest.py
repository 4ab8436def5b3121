"""Pairs to label, and both databases: a SQLite file, and PostgreSQL where its server programs are installed."""

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from charter.records import Message, Prompt, ResponsePair
from charter.store.jsonl import write_jsonl
from charter.store.labels import HumanLabel, Item, LabelStore
from charter.store.sql import open_database

TOKEN = "a-token-of-the-tests"
COMMAND = [sys.executable, "-c", "from charter.cli.main import main; main()", "rate"]


@pytest.fixture
def make_items():
    def make(count: int) -> list[Item]:
        prompts = [Prompt(f"prompt-{i}", (Message("user", f"question {i}"),)) for i in range(count)]
        pairs = [ResponsePair(f"pair-{i}", prompt, f"A{i}", f"B{i}") for i, prompt in enumerate(prompts)]
        return [Item(pair, "honesty", "Say nothing false.") for pair in pairs]

    return make


@pytest.fixture
def make_label():
    def make(pair_id: str, rater: str, verdict: str = "a", **more) -> HumanLabel:
        return HumanLabel(secrets.token_hex(16), pair_id, rater, verdict, more.pop("shown", "ab"), **more)

    return make


@pytest.fixture(scope="session")
def postgres_server():
    """The folder of the socket of a PostgreSQL server that only these tests use."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the postgres extra)")
    found = shutil.which("pg_ctl") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None)
    if found is None:
        pytest.skip("PostgreSQL's server programs are not installed (Debian: postgresql)")
    user: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="charter-pg-"))
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = ["runuser", "-u", "postgres", "--"]
    control = [*user, str(found), "-D", str(folder / "data")]
    try:
        _quietly([*control, "initdb", "-o", "--auth=trust --username=charter --no-sync"])
        _quietly([*control, "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses= -F", "start"])
        try:
            yield folder
        finally:
            _quietly([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


@pytest.fixture
def postgres_url(postgres_server):
    import psycopg

    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(f"postgresql://charter@/postgres?host={postgres_server}", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql://charter@/{name}?host={postgres_server}"


@pytest.fixture(params=["sqlite", "postgres"])
def source(request, tmp_path):
    """Where labels go: a path or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "labels.sqlite")
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def clock():
    """A clock that tests set: ``clock.now``."""

    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            self.now += 0.001  # labels follow each other
            return self.now

    return Clock()


@pytest.fixture
def store(source, clock):
    return LabelStore(open_database(source), clock)


class Server:
    """``charter rate`` in its own process, which can be killed and started again on the same port."""

    def __init__(self, pairs: Path, source: str, *options: str) -> None:
        self._command = [*COMMAND, str(pairs), "--db", source, "--token", TOKEN, *options]
        self.port = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self._command, "--port", str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.printed = self.process.stdout.readline()
        found = re.fullmatch(rf"Open (http://127\.0\.0\.1:(\d+)/\?token={TOKEN})\n", self.printed)
        assert found, self.printed + self.process.stderr.read()
        self.url, self.port = found[1], int(found[2])

    def stop(self, how: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture
def serve(tmp_path, source):
    """Start ``charter rate`` on some items; ends the processes after the test."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (the rate extra)")
    started: list[Server] = []

    def start(items: list[Item], *options: str) -> Server:
        pairs = tmp_path / "pairs.jsonl"
        write_jsonl(pairs, [item.pair for item in items])
        started.append(Server(pairs, source, *options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()
