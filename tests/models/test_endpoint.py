"""A server may fail in every way: no answer is lost, none doubled, none invented, and the key is nowhere."""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections import Counter
from itertools import pairwise

import pytest
from pydantic import ValidationError

pytest.importorskip("openai", reason="openai is not installed (the endpoint extra)")

from tests.models.fault_server import FaultServer, completion

from charter.config import EndpointConfig, ModelConfig
from charter.errors import BudgetError, ConfigError, EndpointError
from charter.labelers.asking import AskSettings
from charter.labelers.plain import PlainLabeler
from charter.labelers.question import comparison
from charter.labelers.recorded import RecordedModel
from charter.models import calls
from charter.models.endpoint import EndpointModel, option_logprobs
from charter.models.protocol import Question
from charter.models.reach import check_key, unreachable
from charter.records import Abstention, Message, Prompt, ResponsePair
from charter.run_file import model_named
from charter.store.ledger import Ledger
from charter.yaml_io import YamlDocument, validate

KEY = "sk-canary-0123456789"
FAULTS = ("hang", "drip", "reset", "cut", "malformed", "empty", "html", "null_choices", "no_choices", "error_in_200", "null_content", "huge", 500, 502, 429, (429, {"retry-after": "0.2"}), (503, {"retry-after": "0"}))  # fmt: skip


PROBE_SECONDS = calls.PROBE_SECONDS


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(calls, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(calls, "PROBE_SECONDS", 0.1)


def model(server, **settings):
    config = ModelConfig(
        source=f"{server.url}#m", endpoint=EndpointConfig(**{"attempt_seconds": 0.5, "deadline_seconds": 8, **settings})
    )
    return EndpointModel(config)


def asked(text):
    return Question((Message("user", text),), ("A", "B"))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_each_fault_is_tried_again(fault):
    with FaultServer(lambda number, body: fault if number == 0 else "ok") as server:
        [choice] = model(server).choose([asked("x")])
    assert choice.logprobs == pytest.approx((-0.2, -1.8)) and len(server.bodies) == 2


@pytest.mark.parametrize("fault", ["hang", "drip", "malformed", "html", "null_content", "huge"])
def test_a_fault_that_stays_is_an_abstention_within_the_deadline(fault):
    began = time.monotonic()
    with FaultServer(lambda number, body: fault if "bad" in str(body["messages"]) else "ok") as server:
        bad, good = model(server, deadline_seconds=1.5).choose([asked("bad"), asked("good")])
    assert bad.logprobs is None and bad.reason == "endpoint_failed" and good.logprobs is not None
    assert time.monotonic() - began < 2.5


def test_ten_kinds_of_faults_at_once_lose_nothing():
    rng = random.Random(0)
    plan = [rng.choice(FAULTS[2:]) if rng.random() < 0.1 else "ok" for _ in range(2000)]
    answered = Counter()
    with FaultServer(lambda number, body: plan[number % 2000], latency=0.002) as server:
        endpoint = model(server, attempt_seconds=2, deadline_seconds=30)
        endpoint.on_answer = lambda row, answer: answered.update([row])
        choices = endpoint.choose([asked(f"{i}") for i in range(400)])
    assert all(choice.logprobs == pytest.approx((-0.2, -1.8)) for choice in choices)
    assert set(answered.values()) == {1} and len(answered) == 400
    assert len(server.bodies) <= 1.35 * 400  # one in ten fails


def test_a_server_that_ignores_log_probabilities_gives_no_verdict():
    with FaultServer(lambda number, body: completion("A")) as server:
        [choice] = model(server).choose([asked("x")])
    assert choice.logprobs is None and choice.reason == "no_logprobs"
    assert server.bodies[0]["logprobs"] is True and server.bodies[0]["top_logprobs"] == 20


def test_labels_of_a_labeler_behind_a_server(tmp_path):
    pairs = [ResponsePair(f"{i}", Prompt(f"{i}", (Message("user", "?"),)), f"a{i}", f"b{i}") for i in range(5)]

    def plan(number, body):
        return completion("A") if "a3" in str(body["messages"]) else "ok"

    with FaultServer(plan) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        told: list[str] = []
        labeler = PlainLabeler(RecordedModel(model(server), ledger, told.append), AskSettings(comparison))
        judged = labeler.label(pairs)
        assert [labeler.combine(own) for own in judged] == [0.5, 0.5, 0.5, Abstention.NO_LOGPROBS, 0.5]
        assert ledger.usage(model(server).fingerprint) == (10, 100, 10)
        assert told[-1] == "10 of 10 answers of this batch" and len(told) == 10
        before = len(server.bodies)
        again = PlainLabeler(RecordedModel(model(server), ledger), AskSettings(comparison)).label(pairs)
    assert len(server.bodies) == before and [[j.p_a for j in own] for own in again] == [
        [j.p_a for j in own] for own in judged
    ]


@pytest.mark.parametrize("finish, kept", [("stop", True), ("length", False), ("content_filter", False)])
def test_truncations_and_refusals_are_asked_again(finish, kept, tmp_path):
    with (
        FaultServer(lambda number, body: completion("some", finish)) as server,
        Ledger(tmp_path / "l.sqlite") as ledger,
    ):
        for _ in range(2):
            [said] = RecordedModel(model(server), ledger).generate(
                [(Message("user", "x"),)], seeds=[0], max_new_tokens=5
            )
    assert said.finish_reason == {"content_filter": "refused"}.get(finish, finish)
    assert len(server.bodies) == (1 if kept else 2)


def test_answers_are_kept_as_they_come(tmp_path):
    """A cap stops the batch in the middle: what was answered is in the ledger, and what was spent is counted over attempts."""
    with FaultServer(lambda number, body: "ok") as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        questions = [asked(f"{i}") for i in range(30)]
        capped = dict(concurrency=2, max_tokens=110)
        with pytest.raises(BudgetError, match="max_tokens is 110.*answers so far are kept"):
            RecordedModel(model(server, **capped), ledger).choose(questions)
        assert 10 <= ledger.count() <= 12 and ledger.count() == len(server.bodies)
        with pytest.raises(BudgetError):
            RecordedModel(model(server, **capped), ledger).choose(questions)
        assert len(server.bodies) <= 12
        found = RecordedModel(model(server), ledger).choose(questions)
    assert len(found) == 30 and len(server.bodies) == 30


def test_money():
    with FaultServer(lambda number, body: "ok") as server:
        endpoint = model(server, concurrency=1, price=[1000.0, 2000.0], max_spend=0.02)
        with pytest.raises(BudgetError, match="0.0240 spent"):  # 10 + 1 tokens: 0.012 a call
            endpoint.choose([asked(f"{i}") for i in range(5)])
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "status, said",
    [
        (401, "check the key in OPENAI_API_KEY, address and model name"),
        (404, "check key, address and model name"),
        ((302, {"location": "http://127.0.0.1:1/"}), "redirects"),
    ],
)
def test_what_no_retry_mends_stops_at_once_without_the_key(status, said, capfd):
    with FaultServer(lambda number, body: status) as server, pytest.raises(EndpointError, match=said) as error:
        model(server).choose([asked(f"{i}") for i in range(3)])
    assert KEY not in str(error.value) and "\n" not in str(error.value) and len(server.bodies) <= 3
    assert KEY in str(server.headers[0]) and KEY not in "".join(capfd.readouterr())


def test_a_refused_item_doesnt_stop_the_others():
    def plan(number, body):
        return (400, {}) if "long" in str(body["messages"]) else "ok"

    with FaultServer(plan) as server:
        bad, good = model(server).choose([asked("long"), asked("x")])
    assert bad.reason == "endpoint_failed" and good.logprobs and len(server.bodies) == 2


def test_a_dead_server_is_waited_for():
    began = time.monotonic()
    with FaultServer(lambda number, body: 500 if time.monotonic() - began < 1.5 else "ok") as server:
        notices = []
        endpoint = EndpointModel(
            ModelConfig(source=f"{server.url}#m", endpoint=EndpointConfig(deadline_seconds=3)), notices.append
        )
        found = endpoint.choose([asked(f"{i}") for i in range(40)])
    assert all(choice.logprobs for choice in found)
    assert (
        "waiting until it is back" in notices[0]
        and notices[-1].endswith("answers again")
        and KEY not in "".join(notices)
    )
    assert server.done["500"] < 60


def test_a_dead_server_gets_one_probe_at_a_time(monkeypatch):
    assert PROBE_SECONDS >= 15
    monkeypatch.setattr(calls, "PROBE_SECONDS", 0.4)
    asked_at: list[float] = []

    def plan(number, body):
        asked_at.append(time.monotonic())
        return (
            "reset" if number < calls.DEAD_AFTER + 4 + 3 else "ok"
        )  # what is in flight when it dies, and three probes

    with FaultServer(plan) as server:
        found = model(server, concurrency=4).choose([asked(f"{i}") for i in range(12)])
    assert all(choice.logprobs for choice in found)
    gaps = [later - earlier for earlier, later in pairwise(asked_at[calls.DEAD_AFTER + 3 : calls.DEAD_AFTER + 7])]
    assert len(gaps) == 3 and min(gaps) >= 0.38, gaps


def test_items_that_a_living_server_cannot_do_end_at_their_deadline():
    """They may be the last ones of a batch, so that everything fails: the server isn't dead for that."""
    began = time.monotonic()
    with FaultServer(lambda number, body: 500 if "bad" in str(body["messages"]) else "ok") as server:
        found = model(server, deadline_seconds=1).choose(
            [asked(f"{'bad' if i < 3 else 'good'} {i}") for i in range(30)]
        )
    assert [choice.reason for choice in found] == ["endpoint_failed"] * 3 + [None] * 27
    assert time.monotonic() - began < 6


def test_nobody_listens(unused_port=9):
    endpoint = EndpointModel(
        ModelConfig(source=f"http://127.0.0.1:{unused_port}/v1#m", endpoint=EndpointConfig(dead_seconds=0.5))
    )
    with pytest.raises(EndpointError, match="dead for .* start it"):
        endpoint.choose([asked(f"{i}") for i in range(20)])


def test_retry_after_as_a_date_holds_for_all():
    until = time.time() + 2

    def plan(number, body):
        return (429, {"retry-after": email.utils.formatdate(until, usegmt=True)}) if time.time() < until - 1 else "ok"

    with FaultServer(plan) as server:
        found = model(server, concurrency=4).choose([asked(f"{i}") for i in range(8)])
    assert all(choice.logprobs for choice in found) and server.done["(429, {'ret"] <= 4


def test_concurrency_is_bounded_and_used():
    with FaultServer(lambda number, body: "ok", latency=0.05) as server:
        model(server, concurrency=5).choose([asked(f"{i}") for i in range(40)])
    assert server.most_in_flight == 5


class TestOptions:
    def test_all_tokens_that_spell_an_option_count(self):
        found = option_logprobs([("A", -1.0), (" A", -2.0), ("B", -3.0), ("Answer", -0.5)], ("A", "B"))
        assert found == pytest.approx((-0.6867383124, -3.0))

    def test_an_option_out_of_sight_has_at_most_the_least(self):
        assert option_logprobs([(" A", -0.1), ("x", -4.0)], ("A", "B")) == pytest.approx((-0.1, -4.0))

    def test_no_option_is_no_verdict(self):
        assert option_logprobs([("The", -0.1), ("I", -2.0)], ("A", "B")) is None

    def test_a_token_that_begins_two_options_counts_for_none(self):
        assert option_logprobs(
            [(" keep", -0.1), (" br", -2.0), (" b", -3.0)], (" keeps", " breaks", " bends")
        ) == pytest.approx((-0.1, -2.0, -3.0))


class TestSource:
    def test_a_model_must_be_named(self):
        with pytest.raises(ConfigError, match="write the server's model after a #"):
            model_named("http://127.0.0.1:1/v1")
        with pytest.raises(ValidationError, match="write the server's model after a #"):
            ModelConfig(source="http://127.0.0.1:1/v1#")

    def test_settings_of_a_server_need_a_server(self):
        with pytest.raises(ValidationError, match="endpoint is set and source 'org/model' is no server"):
            ModelConfig(source="org/model", endpoint=EndpointConfig())

    @pytest.mark.parametrize("key", ["hf_abcDEF123", "sk_live_1", "sk-FAKE-1", "A" * 65, "9KEY", "A KEY", "zzz\n", ""])
    def test_a_key_in_place_of_its_variable_is_refused_and_not_echoed(self, key, tmp_path):
        document = YamlDocument(tmp_path / "run.yaml", {"key_env": key}, {})
        with pytest.raises(ConfigError, match="key_env is the NAME of an environment variable") as fault:
            validate(EndpointConfig, document, ConfigError)
        assert not key or key.strip() not in str(fault.value)
        assert EndpointConfig(key_env="HF_TOKEN").key_env == "HF_TOKEN"

    def test_a_far_server_needs_a_key(self, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(ConfigError, match="holds no OPENAI_API_KEY"):
            EndpointModel(ModelConfig(source="https://example.invalid/v1#m"))


class TestBeforeTheWork:
    def test_the_key(self, monkeypatch):
        far, near = (
            ModelConfig(source=f"{base}/v1#m", endpoint=EndpointConfig(key_env="MY_KEY"))
            for base in ("https://example.invalid", "http://127.0.0.1:9")
        )
        monkeypatch.setenv("MY_KEY", KEY)
        assert check_key(far) is check_key(near) is None
        monkeypatch.delenv("MY_KEY")
        with pytest.raises(ConfigError, match="https://example.invalid/v1: the environment holds no MY_KEY"):
            check_key(far)
        assert "asked without a key" in (check_key(near) or "")

    @pytest.mark.parametrize(
        ("status", "said"),
        [(200, None), (404, None), (401, "refuses the key now (401): look at what the environment holds in OPENAI_API_KEY"),
         (503, "answers 503 now"), (302, "answers 302 now")],
    )  # fmt: skip
    def test_one_cheap_request(self, status, said):
        with FaultServer(lambda number, body: "ok", models=status) as server:
            told = unreachable(ModelConfig(source=f"{server.url}#m"))
            assert told is None if said is None else told is not None and said in told
        assert not server.bodies, "nothing is generated"

    def test_nobody_there(self, monkeypatch):
        told = unreachable(ModelConfig(source="http://127.0.0.1:9/v1#m"))
        assert told == (
            "http://127.0.0.1:9/v1: no answer now (ConnectError): start it, or mend the address; the run begins all the same"
        )
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nx")  # no header can hold it
        told = unreachable(ModelConfig(source="http://127.0.0.1:9/v1#m"))
        assert told is not None and KEY not in told


@pytest.mark.parametrize("address", ["http://user:pw-canary@127.0.0.1:9/v1#m", "https://pw-canary@127.0.0.1:9/v1#m"])
def test_a_password_in_an_address_is_refused_before_anything_is_written(address, tmp_path, monkeypatch, capsys):
    from charter.cli.main import main

    out = tmp_path / "run"
    given = json.dumps({"source": address})
    monkeypatch.setattr("sys.argv", ["charter", "run", "--out", str(out), "--set", f"label.labeler.model={given}"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 2 and "no user or password" in said.err and "pw-canary" not in said.err + said.out
    assert said.err.count("\n") == 1 and not out.exists()
