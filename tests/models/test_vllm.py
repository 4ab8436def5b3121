"""What we save, served by vLLM: the same answers and log-probabilities as here; and vLLM as labeler and as sampler of rollouts.

The models: a Llama that our own SFT trained, and, where CHARTER_VLLM_RUN names a run folder, the policy of that run.
"""

from __future__ import annotations

import json
import os
import random
import urllib.request
from pathlib import Path

import pytest
import torch

pytest.importorskip("openai", reason="openai is not installed (the endpoint extra)")

from tests.models.tiny import CHATML, WORDS, bpe_tokenizer
from tests.models.vllm_server import PYTHON, VllmServer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from charter.config import EndpointConfig, ModelConfig, PolicyConfig, SftConfig
from charter.errors import TrainingError
from charter.labelers.asking import AskSettings
from charter.labelers.plain import PlainLabeler
from charter.labelers.question import comparison
from charter.models.endpoint import EndpointModel
from charter.models.load import load_model
from charter.models.served import TokenServer
from charter.records import Message, Prompt, ResponsePair
from charter.stages.saved import save_model
from charter.store.jsonl import read_jsonl, read_rows
from charter.training.grpo import Callbacks, EncodedPrompt, train_grpo
from charter.training.served import ServedPolicy
from charter.training.sft import train_sft
from charter.village.skills import question

pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="no vLLM (name an interpreter that has it in CHARTER_VLLM_PYTHON)"
)
RUN = os.environ.get("CHARTER_VLLM_RUN")
LENGTH = 40


def trained_here(folder: Path) -> Path:
    """A Llama with random weights, after some of our SFT, saved by our own code."""
    tokenizer = bpe_tokenizer(CHATML)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, initializer_range=0.2, bos_token_id=None, eos_token_id=2,
        pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")
    model = load_model(ModelConfig(source=str(folder / "start"), device="cpu"))
    rng = random.Random(1)
    examples = [(model.encode_prompt(prompt), model.encode_response(text)) for prompt, text in exercises(rng)]
    train_sft(
        model.model, examples, SftConfig(batch_size=16, epochs=4, learning_rate=3e-3), seed=0, folder=folder / "sft"
    )
    save_model(model.model, model.tokenizer, folder / "model")
    return folder / "model"


def exercises(rng):
    """Some talk, and which of two texts is better."""
    for _ in range(64):
        yield (Message("user", " ".join(rng.choices(WORDS, k=5))),), " ".join(rng.choices(WORDS, k=rng.randint(2, 12)))
        texts = [" ".join(rng.choices(WORDS, k=5)) for _ in range(3)]
        asked = comparison((Message("user", texts[0]),), texts[1], texts[2], None, False)
        yield (Message("user", asked),), rng.choice("AB")


def questions_of(folder: Path, count: int) -> list[str]:
    if RUN and folder.is_relative_to(RUN):
        rows = [row for _, row in read_rows(Path(RUN) / "7-evaluate" / "sl-cai.jsonl")][:count]
        return [row["prompt"]["messages"][0]["content"] for row in rows]
    rng = random.Random(2)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(count)]


@pytest.fixture(scope="module", params=["trained here", *(["run"] if RUN else [])])
def served(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("served")
    folder = Path(RUN) / "6-policy" / "model" if request.param == "run" else trained_here(place)
    with VllmServer(folder, place) as server:
        yield folder, server


def post(server: VllmServer, body: dict) -> dict:
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_greedy_answers_and_logprobs_are_those_of_transformers_and_ours(served):
    folder, server = served
    here = load_model(ModelConfig(source=str(folder), device="cpu"))
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = questions_of(folder, 100)
    ours = here.generate(
        [(Message("user", text),) for text in asked], seeds=[0] * 100, max_new_tokens=LENGTH, temperature=0
    )
    worst, num_tokens, num_other = 0.0, 0, 0
    for text, own in zip(asked, ours, strict=True):
        messages = [{"role": "user", "content": text}]
        body = {"model": "model", "messages": messages, "max_tokens": LENGTH, "temperature": 0, "logprobs": True}
        choice = (answer := post(server, {**body, "return_token_ids": True, "repetition_penalty": 1.0}))["choices"][0]
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        assert answer["prompt_token_ids"] == prompt[0].tolist() == here.encode_prompt((Message("user", text),))
        with torch.no_grad():
            said = plain.generate(prompt, do_sample=False, max_new_tokens=LENGTH)
            logits = plain(said).logits[0, prompt.shape[1] - 1 : -1]
        ids = said[0, prompt.shape[1] :]
        expected = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0].tolist()
        assert here.decode(ids.tolist()) == own.text
        if choice["token_ids"] != ids.tolist():  # a near tie falls either way in another engine's arithmetic
            num_other += 1
            continue
        assert choice["finish_reason"] == own.finish_reason
        assert choice["message"]["content"].strip() == own.text.rstrip("\ufffd")  # vLLM leaves half a character out
        found = [entry["logprob"] for entry in choice["logprobs"]["content"]]
        worst = max(worst, *(abs(a - b) for a, b in zip(found, expected, strict=True)))
        num_tokens += len(ids)
    print(f"{folder}: {num_tokens} tokens, worst difference {worst:.1e} nats, {num_other} of 100 answers differ")
    assert num_other <= 2 and num_tokens > 100 and worst < 1e-4


def test_labels_by_the_server_are_those_of_the_model_here(served):
    folder, server = served
    if RUN and folder.is_relative_to(RUN):
        pairs = list(read_jsonl(Path(RUN) / "3-sample" / "pairs.jsonl", ResponsePair))[:50]
        asked = AskSettings(question)
    else:
        texts = questions_of(folder, 100)
        pairs = [
            ResponsePair(str(i), Prompt(str(i), (Message("user", texts[i]),)), texts[99 - i], texts[(i + 7) % 100])
            for i in range(50)
        ]
        asked = AskSettings(comparison)
    remote = EndpointModel(ModelConfig(source=server.source, endpoint=EndpointConfig(continues_answers=True)))
    theirs = PlainLabeler(remote, asked).label(pairs)
    ours = PlainLabeler(load_model(ModelConfig(source=str(folder), device="cpu")), asked).label(pairs)
    both = [
        (a.p_a, b.p_a)
        for one, other in zip(theirs, ours, strict=True)
        for a, b in zip(one, other, strict=True)
        if a.abstained is None and b.abstained is None
    ]
    print(f"{folder}: {len(both)} of {sum(map(len, ours))} labels, worst {max(abs(a - b) for a, b in both):.1e}")
    # a spelling of an option that is none of the 20 likeliest tokens is lost
    assert len(both) >= 90 and max(abs(a - b) for a, b in both) < 5e-3


def grown(rollouts):
    """Many different tokens are good."""
    return [float(len(set(r.response_ids))) for r in rollouts]


def test_rollouts_follow_the_weights(served, tmp_path):
    folder, server = served
    policy, reference = (load_model(ModelConfig(source=str(folder), device="cpu")) for _ in range(2))
    prompts = [
        EncodedPrompt(str(i), policy.encode_prompt((Message("user", text),)))
        for i, text in enumerate(questions_of(folder, 8))
    ]
    config = PolicyConfig(
        steps=6,
        prompts_per_step=4,
        group_size=8,
        max_new_tokens=16,
        learning_rate=3e-3,
        kl_coef=0.0,
    )
    sampler = ServedPolicy(
        TokenServer(ModelConfig(source=server.source)), tmp_path,
        lambda place: save_model(policy.model, policy.tokenizer, place),
    )  # fmt: skip
    rows = []
    if policy.model.config.tie_word_embeddings:  # vLLM on CPUs keeps such a head as it was packed at the start
        with pytest.raises(TrainingError, match="whose embeddings are tied"):
            train_grpo(
                policy.model, reference.model, grown, prompts, config, seed=0, folder=tmp_path, stop_ids=policy.stop_ids,
                callbacks=Callbacks(on_step=rows.append), sampler=sampler,
            )  # fmt: skip
        assert len(rows) == 1 and rows[0]["drift_max"] < 1e-3
        return
    train_grpo(
        policy.model, reference.model, grown, prompts, config, seed=0, folder=tmp_path, stop_ids=policy.stop_ids,
        callbacks=Callbacks(on_step=rows.append), sampler=sampler,
    )  # fmt: skip
    print([(round(row["reward_mean"], 2), round(row["kl_k1"], 3), row["drift_max"]) for row in rows])
    assert max(row["drift_max"] for row in rows) < 1e-3, "each step was sampled with the weights of that step"
    assert rows[-1]["kl_k1"] > 0.05, "and the weights moved"
    assert rows[-1]["reward_mean"] > rows[0]["reward_mean"]
    with pytest.raises(TrainingError, match=r"at a temperature that isn't 1 with --logprobs-mode processed_logprobs"):
        sampler(
            policy.model, [prompts[0].ids] * 4, seeds=[1, 2, 3, 4], max_new_tokens=8, temperature=0.5,
            stop_ids=policy.stop_ids,
        )  # fmt: skip
    sampler.close()
    assert not (tmp_path / ".served").exists()

    stale = ServedPolicy(TokenServer(ModelConfig(source=server.source)), tmp_path, lambda place: None)
    stale._server.take_weights = lambda folder: None
    for parameter in policy.model.parameters():
        parameter.data.mul_(1.5)
    with pytest.raises(TrainingError, match="nats per token from the policy's"):
        stale(
            policy.model, [prompts[0].ids] * 4, seeds=[1, 2, 3, 4], max_new_tokens=8, temperature=1.0,
            stop_ids=policy.stop_ids,
        )  # fmt: skip
    ServedPolicy(TokenServer(ModelConfig(source=server.source)), tmp_path, lambda place: None)._server.take_weights(
        folder
    )
