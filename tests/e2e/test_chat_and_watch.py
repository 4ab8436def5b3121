"""``charter chat`` with the models of a finished run, and ``charter watch`` on one at every point of its life."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from charter.chat import Talk, chosen, examples_of, models_of
from charter.errors import ConfigError, StoreError
from charter.models.protocol import Generation
from charter.store.folder import RunFolder
from charter.watch import look


def test_the_models_of_a_run(whole):
    names = list(models_of(whole))
    assert names[0] == "initial" and names[-1] == "rl-cai" and {"sl-cai", "sl-cai-round-1"} < set(names)
    assert list(chosen(whole, [None, None])) == ["rl-cai"]
    with pytest.raises(ConfigError, match="did you mean 'sl-cai'"):
        chosen(whole, ["sl-ca", None])
    with pytest.raises(StoreError, match="no run folder"):
        models_of(whole / "2-sft")


def test_one_turn_a_line_side_by_side(charter, whole):
    typed = "help me ?\n\nyes .\n/new\nhelp me ?\n"
    arguments = ["chat", whole, "--stage", "sl-cai", "--against", "rl-cai", "--max-new-tokens", 6, "--temperature", 0]
    code, out, _ = charter(*arguments, "--json", typed=typed)
    told = json.loads(out)
    assert code == 0 and told["models"] == ["sl-cai", "rl-cai"]
    assert [turn["user"] for turn in told["turns"]] == ["help me ?", "yes .", "help me ?"]
    # greedy, and /new has made it forget what was said before
    assert told["turns"][0]["replies"] == told["turns"][2]["replies"]
    code, out, _ = charter(*arguments, typed="help me ?\n")
    assert code == 0 and [line.split(">")[0] for line in out.splitlines()] == ["sl-cai", "rl-cai"]
    assert charter("chat", whole, "--stage", "none")[0] == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_at_a_terminal_it_says_who_answers_and_what_to_try(charter, whole, monkeypatch, capfd):
    from charter.cli.chat import _lines

    monkeypatch.setattr(sys, "stdin", Terminal("/help\nhelp me ?\n/quit\n"))
    examples = examples_of(whole)
    assert list(_lines(chosen(whole, ["rl-cai"]), examples, quiet=False)) == ["help me ?"]
    told = capfd.readouterr().out
    assert (
        told.count(f"rl-cai answers: {whole / '6-policy' / 'model'}") == 2 and told.count("/help says this again") == 2
    )
    held_out = [
        json.loads(line)["prompt"] for line in (whole / "7-evaluate" / "initial.jsonl").read_text().splitlines()
    ]
    assert examples == [prompt["messages"][0]["content"] for prompt in held_out[:3]] and len(set(examples)) == 3
    assert all(f"  {example}\n" in told for example in examples)
    assert examples_of(whole / "2-sft") == []


def test_an_interrupt_ends_the_conversation(charter, whole, monkeypatch):
    monkeypatch.setattr(Talk, "say", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    code, out, err = charter("chat", whole, typed="help me ?\n")
    assert (code, out) == (130, "") and err == "loading rl-cai…\n"


class Parrot:
    """Says how many turns it heard, and something that a terminal must not see."""

    def generate(self, conversations, **settings):
        return [Generation(f"{len(conversation)} \x1b[31m", "stop", 1, 1) for conversation in conversations]


def test_a_conversation_is_remembered_and_forgotten():
    talk = Talk({"a": Parrot(), "b": Parrot()}, 8, 1.0, 0)
    heard = [talk.say("x")["a"]["text"].split()[0] for _ in range(3)]
    talk.forget()
    assert heard == ["1", "3", "5"] and talk.say("x")["b"]["text"].startswith("1 ")


def test_what_models_say_cannot_move_the_cursor(charter, whole, monkeypatch):
    monkeypatch.setattr(
        "charter.chat.Talk.say", lambda self, text: {"x": {"text": "\x1b[2J hi", "finish_reason": "length"}}
    )
    _, out, _ = charter("chat", whole, "--stage", "sl-cai", typed="hello\n")
    assert "\x1b" not in out and "hi (cut off at the token limit)" in out


def by_name(found):
    return {stage["name"]: stage for stage in found["stages"]}


def test_watching_a_finished_run(charter, whole):
    code, out, _ = charter("watch", whole, "--json")
    found = json.loads(out)
    assert code == 0 and found["state"] == "finished"
    assert all(stage["state"] == "done" for stage in found["stages"])
    stages = by_name(found)
    assert (stages["1-revise"]["rows"], stages["1-revise"]["total"]) == (12, 12)
    assert (stages["6-policy"]["rows"], stages["6-policy"]["total"]) == (4, 4) and "kl_k1" in stages["6-policy"][
        "metrics"
    ]
    assert stages["2-sft"]["rows"] == stages["2-sft"]["total"]
    assert list(stages) == sorted(path.parent.name for path in whole.glob("[1-7]-*/done.json"))
    code, out, _ = charter("watch", whole)
    assert code == 0 and out.splitlines()[-1].endswith(": finished")
    assert charter("watch", whole / "2-sft")[0] == 2


@pytest.fixture
def halfway(whole, tmp_path):
    """A run that is four revisions into its first stage."""
    run = tmp_path / "run"
    (run / "1-revise").mkdir(parents=True)
    shutil.copy(whole / "run.yaml", run)
    rows = (whole / "1-revise" / "revisions.jsonl").read_text().splitlines(keepends=True)
    (run / "1-revise" / "revisions.jsonl").write_text("".join(rows[:4]) + rows[4][:20])  # the fifth is being written
    (run / "1-revise" / "attempts.jsonl").write_text(
        json.dumps({"start": 1000.0, "end": None, "host": "h", "pid": 1}) + "\n"
    )
    return run


def test_rate_and_time_left(halfway):
    (halfway / ".holder.json").write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
    found = look(halfway, now=1002.0)
    revise = by_name(found)["1-revise"]
    assert found["state"] == revise["state"] == "working"
    assert (revise["rows"], revise["per_second"], revise["seconds_left"]) == (4, 2.0, 4.0)
    assert by_name(found)["3-sample"] == {**by_name(found)["3-sample"], "state": "waiting", "rows": None, "total": None}


def test_a_run_whose_process_is_gone(charter, halfway):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (halfway / ".holder.json").write_text(json.dumps({"host": socket.gethostname(), "pid": ended.pid}))
    assert look(halfway)["state"] == by_name(look(halfway))["1-revise"]["state"] == "stopped"
    code, out, _ = charter("watch", halfway)
    assert code == 0 and "stopped before its end" in out.splitlines()[-1]


def test_it_ends_with_the_run_and_touches_nothing(halfway):
    with RunFolder.open(halfway):  # the watcher must not want the lock
        before = {path: path.stat().st_mtime_ns for path in halfway.rglob("*")}
        holder = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        (halfway / ".holder.json").write_text(json.dumps({"host": socket.gethostname(), "pid": holder.pid}))
        before[halfway / ".holder.json"] = (halfway / ".holder.json").stat().st_mtime_ns
        command = [sys.executable, "-m", "charter", "watch", str(halfway), "--every", "0.1"]
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watcher.stdout is not None
        first = watcher.stdout.readline()
        assert first.startswith("stage") and watcher.poll() is None
        time.sleep(0.3)
        assert watcher.poll() is None  # the run is alive, so it goes on
        holder.communicate()
        rest, _ = watcher.communicate(timeout=60)
    assert rest.splitlines()[-1].endswith("stopped before its end: the same charter run goes on")
    assert {path: path.stat().st_mtime_ns for path in halfway.rglob("*")} == before
