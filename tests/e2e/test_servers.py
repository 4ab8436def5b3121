"""What a server was asked and cost is told after a run: in summary.json, in the report and in the last lines."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tests.models.fault_server import FaultServer

from charter.cli import main as cli


@pytest.fixture(scope="module")
def by_server(tiny_world, whole, tmp_path_factory):
    """(run folder, requests, what the command printed): the finished run, labelled anew by a server that says A to all."""
    out = shutil.copytree(whole, tmp_path_factory.mktemp("server") / "run")
    with FaultServer(lambda number, body: "ok") as server, pytest.MonkeyPatch.context() as patch:
        model = f"{{source: '{server.url}#m', endpoint: {{price: [1000, 2000]}}}}"
        said: list[str] = []
        patch.setattr("charter.cli.run.say", lambda line="": said.append(line))
        settings = ["--set", f"label.labeler={{model: {model}}}"]
        patch.setattr(sys, "argv", ["charter", "run", str(tiny_world / "run.yaml"), "--out", str(out), *settings])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (0, None)
        return out, len(server.bodies), said


def test_the_summary_counts_every_call(by_server):
    out, requests, _ = by_server
    (server,) = json.loads((out / "summary.json").read_text())["servers"]
    assert server["calls"] == requests > 100
    assert (server["prompt_tokens"], server["completion_tokens"]) == (10 * requests, requests)  # as the server says
    assert server["money"] == pytest.approx(requests * 12_000 / 1e6) and server["reason"] is None


def test_the_last_lines_and_the_report_say_it(by_server):
    out, requests, said = by_server
    (line,) = [line for line in said if line.startswith("server:")]
    assert (
        f" {requests:,} calls, {10 * requests:,} tokens read, {requests:,} written, money {requests * 0.012:,.2f}"
        in line
    )
    page = (out / "report.html").read_text()
    assert 'aria-label="Servers"' in page and f'<td class="num">{requests * 0.012:,.2f}</td>' in page


def test_a_run_without_servers_has_none(whole: Path):
    assert json.loads((whole / "summary.json").read_text())["servers"] == []


def test_what_cannot_be_known_of_a_finished_run_says_why(by_server):
    """A labeler that says A in both orders gives ties alone: the reward model is there, and nothing tells how good it is."""
    page = (by_server[0] / "report.html").read_text()
    assert "The reward model is in 5-reward; how good isn’t known: no pair has a label on one side." in page
    assert "come to it" not in page and "fewer than 20" in page
