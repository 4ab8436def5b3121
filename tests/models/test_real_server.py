"""The endpoint client against llama.cpp's server: the same answers as the model here, and nothing lost when it dies."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest

pytest.importorskip("openai", reason="openai is not installed (the endpoint extra)")

from tests.models.fault_server import FaultServer
from tests.models.llama_server import NEEDS, LlamaServer, interpreter
from tests.models.tiny import WORDS, bpe_tokenizer, save_tiny_model

from charter.config import EndpointConfig, ModelConfig
from charter.labelers.asking import AskSettings
from charter.labelers.plain import PlainLabeler
from charter.labelers.question import comparison
from charter.models.endpoint import EndpointModel
from charter.models.load import load_model
from charter.models.protocol import Question
from charter.records import Message, Prompt, ResponsePair

PYTHON = interpreter()
pytestmark = pytest.mark.skipif(PYTHON is None, reason=f"no interpreter with {NEEDS} (name it in CHARTER_LLAMA_PYTHON)")
SPACED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("qwen3"), "qwen3", bpe_tokenizer(SPACED))


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    with LlamaServer(PYTHON, folder, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def local(folder):
    return load_model(ModelConfig(source=str(folder), device="cpu"))


def remote(source, **settings):
    return EndpointModel(ModelConfig(source=source, endpoint=EndpointConfig(**settings)))


def texts(count, words=WORDS):
    rng = random.Random(0)
    return [" ".join(rng.choices(words, k=8)) for _ in range(count)]


def test_answers_are_those_of_the_model_here(tmp_path):
    folder = save_tiny_model(tmp_path / "model", "qwen3")  # a word is a token, so that an option is one
    local = load_model(ModelConfig(source=str(folder), device="cpu"))
    small = [word for word in WORDS if word.islower()]  # the server's tokenizer of words knows no capitals
    conversations = [(Message("user", f"{text} ?"),) for text in texts(100, small)]
    questions = [Question(conversation, ("yes", "no")) for conversation in conversations]
    with LlamaServer(PYTHON, folder, tmp_path) as server:
        remotely = remote(server.source).choose(questions)
        replies = remote(server.source).generate(conversations, seeds=[0] * 100, max_new_tokens=1, temperature=0)
    here = local.choose(questions)
    seen = [
        (r.logprobs[i], h.logprobs[i])
        for r, h in zip(remotely, here, strict=True)
        for i in (0, 1)
        if r.logprobs and h.logprobs[i] > -2.5
    ]
    assert len(seen) >= 10 and max(abs(r - h) for r, h in seen) < 1e-2  # its cache is in half precision
    own = local.generate(conversations, seeds=[0] * 100, max_new_tokens=1, temperature=0)
    same = [r.text.strip() == h.text.strip() for r, h in zip(replies, own, strict=True)]
    assert sum(same) >= 97  # a near tie may fall either way in another engine's arithmetic


def pairs(count):
    said = texts(2 * count)
    return [
        ResponsePair(str(i), Prompt(str(i), (Message("user", "which ?"),)), said[2 * i], said[2 * i + 1])
        for i in range(count)
    ]


def test_labels_stay_whole_when_the_server_dies_and_comes_back(folder, tmp_path):
    with LlamaServer(PYTHON, folder, tmp_path) as server:
        asked = AskSettings(comparison)
        whole = PlainLabeler(remote(server.source), asked).label(pairs(60))
        again = threading.Timer(0.15, lambda: (server.kill(), time.sleep(1), server.start()))
        again.start()
        broken = PlainLabeler(remote(server.source, deadline_seconds=60, dead_seconds=30), asked).label(pairs(60))
        again.join()
    assert [[j.abstained for j in own] for own in broken] == [[j.abstained for j in own] for own in whole]
    for one, other in zip(broken, whole, strict=True):
        assert [j.p_a for j in one] == pytest.approx([j.p_a for j in other], abs=1e-3)


def test_faults_in_front_of_a_real_server_change_no_answer(server):
    faults = ["reset", "cut", "malformed", "empty", "html", "error_in_200", 500, 503, (429, {"retry-after": "0.1"})]
    rng = random.Random(1)
    plan = [rng.choice(faults) if rng.random() < 0.1 else "ok" for _ in range(1000)]
    questions = [Question((Message("user", text),), ("a", "b")) for text in texts(150)]
    straight = remote(server.source).choose(questions)
    answered = Counter()
    with FaultServer(lambda number, body: plan[number % 1000], behind=server.base_url) as proxy:
        endpoint = remote(f"{proxy.url}#model", deadline_seconds=60, dead_seconds=30)
        endpoint.on_answer = lambda row, answer: answered.update([row])
        found = endpoint.choose(questions)
    assert set(answered.values()) == {1} and len(answered) == 150
    assert [c.reason for c in found] == [c.reason for c in straight]
    for one, other in zip(found, straight, strict=True):
        if other.logprobs:
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
