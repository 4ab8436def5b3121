"""Rollouts by a server: it gets each step's weights, what it samples trains the policy, and what is wrong is said."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

pytest.importorskip("openai", reason="openai is not installed (the endpoint extra)")

from charter.config import EndpointConfig, ModelConfig, PolicyConfig
from charter.errors import EndpointError, TrainingError
from charter.models.served import TokenServer
from charter.training.grpo import Callbacks, EncodedPrompt, train_grpo
from charter.training.ppo import train_ppo
from charter.training.reward import reward_model_from_policy
from charter.training.served import ServedPolicy

from .tiny import END, Tokens, make_model
from .token_server import TokenServerHere

PROMPTS = [EncodedPrompt(f"p{i}", list(range(2 + i, 5 + 2 * i))) for i in range(5)]
CONFIG = PolicyConfig(
    steps=4, prompts_per_step=3, group_size=4, max_new_tokens=6, updates_per_rollout=2, learning_rate=1e-2
)
ASKED = {"seeds": [1], "max_new_tokens": 4, "temperature": 1.0, "stop_ids": [END]}


def likes_a_token(rollouts):
    return [float(rollout.response_ids.count(7)) for rollout in rollouts]


def sampler_of(source, policy, folder, save=None):
    settings = EndpointConfig(attempt_seconds=5, deadline_seconds=5)
    return ServedPolicy(
        TokenServer(ModelConfig(source=source, endpoint=settings)), folder, save or policy.save_pretrained
    )


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_each_step_is_sampled_with_its_own_weights(algorithm, tmp_path):
    policy, rows, rolled = make_model(), [], []
    policy.save_pretrained(tmp_path / "first")
    callbacks = Callbacks(rows.append, on_rollouts=lambda step, rollouts, _: rolled.append(rollouts))
    common = {"seed": 0, "folder": tmp_path / "run", "stop_ids": [END], "callbacks": callbacks}
    with TokenServerHere(tmp_path / "first") as server:
        common["sampler"] = sampler = sampler_of(server.source, policy, tmp_path)
        if algorithm == "grpo":
            train_grpo(policy, make_model(), likes_a_token, PROMPTS, CONFIG, **common)
        else:
            value = reward_model_from_policy(make_model(3), Tokens())
            config = CONFIG.model_copy(update={"algorithm": "ppo"})
            train_ppo(policy, make_model(), value, likes_a_token, PROMPTS, config, **common)
    assert len(server.read) == server.resets == 4 and len(server.bodies) == 4 * 12
    assert all(body["top_p"] == 1 and body["top_k"] == 0 and body["repetition_penalty"] == 1 for body in server.bodies)
    assert len({(body["seed"], tuple(body["prompt"])) for body in server.bodies}) == 48
    assert max(row["drift_max"] for row in rows) < 1e-4 and abs(rows[-1]["kl_k1"]) > 0.01
    assert all(r.stopped == (r.response_ids[-1] == END) for step in rolled for r in step)
    assert (tmp_path / ".served").is_dir()
    sampler.close()
    assert not (tmp_path / ".served").exists()


def test_a_policy_that_sampled_elsewhere_is_the_old_one(tmp_path):
    """Also in the first update: the ratio to the server's log-probabilities weighs each token."""
    from charter.training.grpo import GroupUpdate
    from charter.training.rollout import Rollout

    policy = make_model()
    config = CONFIG.model_copy(
        update={"updates_per_rollout": 1, "prompts_per_step": 1, "group_size": 2, "kl_coef": 0.0}
    )
    rollouts = [
        Rollout("p", [3, 4], [5, 6, END], True, [-1.0, -2.0, -3.0]),
        Rollout("p", [3, 4], [7, END], True, [-2.0, -2.0]),
    ]
    for elsewhere in (False, True):
        update = GroupUpdate(policy, make_model(), config, 10_000, elsewhere)
        (piece,) = update._pieces(rollouts, [1.0, 0.0])
        assert (piece.old_RT is not None) == elsewhere
    torch.testing.assert_close(piece.old_RT[0], torch.tensor([-1.0, -2.0, -3.0]))


def test_a_server_that_keeps_its_weights_is_found_out(tmp_path):
    policy = make_model()
    policy.save_pretrained(tmp_path / "first")
    with TokenServerHere(tmp_path / "first", deaf=True) as server:
        sampler = sampler_of(server.source, policy, tmp_path)
        assert len(sampler(policy, [[3, 4]], **ASKED).ids) == 1
        with pytest.raises(
            TrainingError, match=r"nats per token from the policy's .*: start it with this run's model in"
        ):
            sampler(make_model(seed=5), [[3, 4]], **ASKED)


def test_what_is_wrong_with_a_server_is_said(tmp_path):
    policy = make_model()
    policy.save_pretrained(tmp_path / "first")
    with (
        TokenServerHere(tmp_path / "first", routes=False) as server,
        pytest.raises(EndpointError, match=r"no such route: start vLLM with VLLM_SERVER_DEV_MODE=1"),
    ):
        sampler_of(server.source, policy, tmp_path)(policy, [[3, 4]], **ASKED)
    with TokenServerHere(tmp_path / "first") as server:
        with pytest.raises(EndpointError, match=r"it answers 500: does it see the folder"):
            sampler_of(server.source, policy, tmp_path / "elsewhere", lambda place: None)(policy, [[3, 4]], **ASKED)
        server.complete = lambda body: {"choices": [{"token_ids": [3], "logprobs": None, "finish_reason": "stop"}]}
        with pytest.raises(EndpointError, match=r"1 of 1 rollouts got no answer"):
            sampler_of(server.source, policy, tmp_path)(policy, [[3, 4]], **ASKED)
    with pytest.raises(EndpointError, match=r"no answer .*: is it running\?"):
        sampler_of(server.source, policy, tmp_path)(policy, [[3, 4]], **ASKED)
    with pytest.raises(ValueError, match="is no server"):
        PolicyConfig(rollouts=ModelConfig(source="here"))


def test_a_redirect_gets_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARTER_TEST_KEY", "canary-key")
    asked = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.headers["authorization"])
            target = f"http://127.0.0.1:{self.server.server_port}/taken"
            self.send_response(302)
            self.send_header("location", target)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = f"http://127.0.0.1:{server.server_port}/v1#model"
    endpoint = EndpointConfig(key_env="CHARTER_TEST_KEY")
    with pytest.raises(EndpointError, match="it answers 302"):
        TokenServer(ModelConfig(source=source, endpoint=endpoint)).take_weights(tmp_path)
    server.shutdown()
    server.server_close()
    assert asked == ["Bearer canary-key"]
