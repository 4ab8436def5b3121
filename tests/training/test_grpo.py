"""Policy optimisation: the formula on a whole step, rollouts, abstentions, budgets, and kill -9."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from charter.config import PolicyConfig
from charter.errors import TrainingError
from charter.objectives.kl import adaptive_kl_coef
from charter.training.grpo import GroupUpdate, advantages_of, train_grpo
from charter.training.policy_loop import Callbacks
from charter.training.rollout import EncodedPrompt, draw_prompts, roll_out, sampling_logprobs

from .tiny import END, VOCAB, assert_same, gradients, make_model, weights

PROMPTS = [EncodedPrompt(f"p{i}", list(range(2 + i, 5 + 2 * i))) for i in range(5)]
CONFIG = PolicyConfig(
    steps=4, prompts_per_step=3, group_size=4, max_new_tokens=6, learning_rate=3e-3, kl_coef=0.1, checkpoint_every=2
)
WANTED = 7


def likes_a_token(rollouts):
    """How often the response says token 7."""
    return [float(rollout.response_ids.count(WANTED)) for rollout in rollouts]


def train(policy, reference, folder, config=CONFIG, reward=likes_a_token, **more):
    return train_grpo(policy, reference, reward, PROMPTS, config, seed=0, folder=folder, stop_ids=[END], **more)


class OneStep:
    """Stands where the optimiser stands and keeps the gradients of each update."""

    def __init__(self, model, change=None):
        self.model, self.change, self.seen = model, change, []

    def update(self, loss):
        self.seen.append(gradients(self.model))
        self.model.zero_grad()
        if self.change:
            with torch.no_grad():
                self.change(self.model)
        return 1.0


def plain_grpo_loss(policy, reference, rollouts, rewards, config, old):
    """The paper's loss in a plain loop over responses and tokens."""
    total, count = 0.0, 0
    for start in range(0, len(rollouts), config.group_size):
        known = [r for r in rewards[start : start + config.group_size] if r is not None]
        mean, spread = sum(known) / len(known), torch.tensor(known).std().item()
        for k in range(start, start + config.group_size):
            if rewards[k] is None:
                continue
            advantage = (rewards[k] - mean) / (spread + 1e-4)
            p = plain_logprobs(policy, rollouts[k])
            q = plain_logprobs(reference, rollouts[k]).detach()
            for t in range(len(p)):
                ratio = (p[t] - old[k][t]).exp()
                gain = torch.min(ratio * advantage, ratio.clamp(1 - config.clip, 1 + config.clip) * advantage)
                kl = ratio * ((q[t] - p[t]).exp() - 1 - (q[t] - p[t]))
                total, count = total - gain + config.kl_coef * kl, count + 1
    return total / count


def plain_logprobs(model, rollout):
    logits = model(input_ids=torch.tensor([rollout.prompt_ids + rollout.response_ids])).logits[0]
    logprobs = logits[len(rollout.prompt_ids) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(rollout.response_ids)[:, None])[:, 0]


@pytest.fixture
def step(policy):
    """A rollout of the policy, with rewards of which one is missing."""
    rollouts = roll_out(policy, PROMPTS[:3], CONFIG, seed=0, step=1, stop_ids=[END])
    rewards = [0.1 * len(r.response_ids) + 0.3 * (i % 3) for i, r in enumerate(rollouts)]
    rewards[5] = None
    return rollouts, rewards


def test_both_updates_have_the_gradient_of_the_plain_loop(policy, step):
    rollouts, rewards = step
    reference = make_model(seed=8)
    config = CONFIG.model_copy(update={"updates_per_rollout": 2, "clip": 0.05})
    old = [torch.tensor(r.logprobs) for r in rollouts]
    moved = make_model(seed=8)

    def change(model):  # as an optimiser would: towards another model
        for p, other in zip(model.parameters(), moved.parameters(), strict=True):
            p.lerp_(other, 0.05)

    recorder = OneStep(policy, change)
    measured = GroupUpdate(policy, reference, config)(recorder, rollouts, rewards)
    twin = make_model()
    for seen in recorder.seen:
        twin.zero_grad()
        plain_grpo_loss(twin, reference, rollouts, rewards, config, old).backward()
        assert_same(seen, gradients(twin), atol=2e-4, rtol=1e-3)
        with torch.no_grad():
            change(twin)
    assert len(recorder.seen) == 2 and measured["clip_fraction"] > 0


@pytest.mark.parametrize("tokens_per_forward", [1, 40, 90])
def test_the_size_of_a_forward_pass_changes_nothing(policy, reference, step, tokens_per_forward):
    whole, pieces = OneStep(policy), OneStep(policy)
    first = GroupUpdate(policy, reference, CONFIG)(whole, *step)
    second = GroupUpdate(policy, reference, CONFIG, tokens_per_forward)(pieces, *step)
    assert_same(whole.seen[0], pieces.seen[0], atol=1e-5, rtol=1e-4)
    assert first == pytest.approx(second, abs=1e-5)


def test_a_response_without_a_reward_has_no_influence(policy, reference, step):
    rollouts, rewards = step
    recorder, other = OneStep(policy), OneStep(policy)
    before = GroupUpdate(policy, reference, CONFIG)(recorder, rollouts, rewards)
    spoilt = list(rollouts)
    spoilt[5] = replace(rollouts[5], response_ids=[3] * len(rollouts[5].response_ids))
    after = GroupUpdate(policy, reference, CONFIG)(other, spoilt, rewards)
    assert before == pytest.approx(after, abs=1e-6)
    assert_same(recorder.seen[0], other.seen[0], atol=1e-6, rtol=1e-4)


def test_sampling_logprobs_are_those_of_the_training_pass(policy, step):
    rollouts, _ = step
    sampled = sampling_logprobs(rollouts, "cpu")
    for row, rollout in zip(sampled, rollouts, strict=True):
        plain = plain_logprobs(policy, rollout).detach()
        torch.testing.assert_close(row[: len(plain)], plain, atol=1e-5, rtol=1e-5)
        assert (row[len(plain) :] == 0).all()


def test_advantages_by_algorithm():
    rewards = [1.0, 0.0, None, 0.0]
    grpo, valid = advantages_of(rewards, CONFIG)
    rloo, _ = advantages_of(rewards, CONFIG.model_copy(update={"algorithm": "rloo"}))
    plain, _ = advantages_of(rewards, CONFIG.model_copy(update={"scale_advantages": "none"}))
    assert valid.tolist() == [True, True, False, True]
    assert rloo.tolist() == pytest.approx([1, -0.5, 0, -0.5])
    assert plain.tolist() == pytest.approx([2 / 3, -1 / 3, 0, -1 / 3])
    assert grpo[0].item() == pytest.approx(2 / 3 / (0.5773503 + 1e-4))


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_the_reward_rises(policy, reference, tmp_path, algorithm):
    config = CONFIG.model_copy(
        update={"algorithm": algorithm, "steps": 25, "kl_coef": 0.0, "group_size": 8, "updates_per_rollout": 2}
    )
    rows = []
    train(policy, reference, tmp_path, config, callbacks=Callbacks(on_step=rows.append))
    early, late = (sum(r["reward_mean"] for r in part) for part in (rows[:5], rows[-5:]))
    assert late > early + 2.5
    assert rows[0]["kl_k1"] == pytest.approx(0, abs=1e-5) and rows[-1]["kl_k1"] > 0.1


def test_a_strong_penalty_keeps_the_policy_at_its_reference(policy, reference, tmp_path):
    free, held = make_model(), policy
    base = {"steps": 8, "learning_rate": 1e-2}
    loose = train(free, reference, tmp_path / "free", CONFIG.model_copy(update=base | {"kl_coef": 0.0}))
    tight = train(held, reference, tmp_path / "held", CONFIG.model_copy(update=base | {"kl_coef": 10.0}))
    assert tight["kl"] < loose["kl"] / 3


def paid_by_the_plain_loop(policy, reference, rollouts, rewards, config):
    """Rewards less kl_coef times the response's KL, by one forward pass per response."""
    paid = []
    for rollout, reward in zip(rollouts, rewards, strict=True):
        p, q = (plain_logprobs(model, rollout).detach() for model in (policy, reference))
        cost = {"k1": p - q, "k3": (q - p).exp() - 1 - (q - p)}[config.kl_estimator].sum().item()
        paid.append(None if reward is None else reward - config.kl_coef * cost)
    return paid


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_a_penalty_in_the_reward_is_that_of_the_plain_loop(policy, step, estimator):
    rollouts, rewards = step
    reference = make_model(seed=8)
    config = CONFIG.model_copy(update={"kl_in": "reward", "kl_estimator": estimator})
    recorder, twin = OneStep(policy), make_model()
    GroupUpdate(policy, reference, config)(recorder, rollouts, rewards)
    paid = paid_by_the_plain_loop(twin, reference, rollouts, rewards, config)
    old = [torch.tensor(r.logprobs) for r in rollouts]
    free = config.model_copy(update={"kl_coef": 0.0})
    plain_grpo_loss(twin, reference, rollouts, paid, free, old).backward()
    assert_same(recorder.seen[0], gradients(twin), atol=2e-4, rtol=1e-3)


def test_the_coefficient_adapts_and_a_resumed_run_goes_on_with_it(reference, tmp_path):
    config = CONFIG.model_copy(update={"kl_target": 0.01, "learning_rate": 1e-2, "steps": 6})
    whole, torn, resumed = make_model(), make_model(), make_model()
    train(whole, reference, tmp_path / "whole", config)

    def stop_at_five(row):
        if row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(torn, reference, tmp_path / "torn", config, callbacks=Callbacks(on_step=stop_at_five))
    train(resumed, reference, tmp_path / "torn", config)
    assert_same(weights(whole), weights(resumed))
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["kl_coef"] == config.kl_coef and rows[-1]["kl_coef"] > config.kl_coef
    assert all(
        b["kl_coef"] == pytest.approx(adaptive_kl_coef(a["kl_coef"], a["kl_k1"], 0.01)) for a, b in pairwise(rows)
    )


def test_damaged_weights_stop_with_the_last_good_state(policy, reference, tmp_path):
    def damage(row):
        if row["step"] == 3:
            with torch.no_grad():
                policy.model.norm.weight[0] = float("nan")

    with pytest.raises(TrainingError, match="the last good state is in .*raise policy.kl_coef"):
        train(policy, reference, tmp_path, callbacks=Callbacks(on_step=damage))
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == ["step-00000002"]


def test_kl_budget_stops(policy, reference, tmp_path):
    config = CONFIG.model_copy(update={"steps": 30, "kl_coef": 0.0, "learning_rate": 1e-2, "kl_budget": 0.05})
    summary = train(policy, reference, tmp_path, config)
    assert summary["stopped_by"] == "kl_budget" and summary["num_steps"] < 30 and summary["kl"] > 0.05


def test_no_reward_at_all_and_nan_stop_with_a_reason(policy, reference, tmp_path):
    with pytest.raises(TrainingError, match="no rollout got a reward"):
        train(policy, reference, tmp_path, reward=lambda rollouts: [None] * len(rollouts))
    with pytest.raises(TrainingError, match="not finite"):
        train(policy, reference, tmp_path, reward=lambda rollouts: [float("nan")] * len(rollouts))


def test_prompts_come_once_per_epoch_in_an_order_of_their_own():
    drawn = [[p.id for p in draw_prompts(PROMPTS, 3, seed=4, step=s)] for s in range(5)]
    flat = [id for step in drawn for id in step]
    epochs = [flat[i : i + 5] for i in range(0, 15, 5)]
    assert all(sorted(epoch) == [f"p{i}" for i in range(5)] for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert drawn[2] == [p.id for p in draw_prompts(PROMPTS, 3, seed=4, step=2)]


def test_rollouts_are_fixed_by_their_place(policy):
    whole = roll_out(policy, PROMPTS[:3], CONFIG, seed=0, step=1, stop_ids=[END])
    again = roll_out(policy, PROMPTS[:3], CONFIG, seed=0, step=1, stop_ids=[END])
    later = roll_out(policy, PROMPTS[:3], CONFIG, seed=0, step=2, stop_ids=[END])
    assert whole == again
    assert [r.response_ids for r in whole] != [r.response_ids for r in later]
    assert len({tuple(r.response_ids) for r in whole[:4]}) > 1
    for rollout in whole:
        assert rollout.stopped == (rollout.response_ids[-1] == END)
        assert all(0 <= token < VOCAB for token in rollout.response_ids)


def test_callbacks_and_metrics(policy, reference, tmp_path):
    saved, rolled = [], []
    callbacks = Callbacks(on_checkpoint=saved.append, on_rollouts=lambda step, *rest: rolled.append((step, *rest)))
    config = CONFIG.model_copy(update={"updates_per_rollout": 2})
    summary = train(policy, reference, tmp_path, config, callbacks=callbacks)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert saved == [2, 4] and [step for step, _, _ in rolled] == [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["num_updates"] for row in rows] == [2, 4, 6, 8]
    assert summary == {"num_steps": 4, "num_tokens": sum(r["num_tokens"] for r in rows), "kl": rows[-1]["kl_k1"],
                       "stopped_by": "steps"}  # fmt: skip
    assert rows[0].keys() >= {
        "reward_mean", "reward_std", "kl_k1", "kl_k3", "entropy", "response_length", "clip_fraction", "grad_norm", "seconds",
    }  # fmt: skip


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from charter.training.policy_loop import Callbacks
from tests.training.test_grpo import CONFIG, train
from tests.training.tiny import make_model

def run(folder, kill_at):
    def kill(row):
        if row["step"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    policy = make_model()
    config = CONFIG.model_copy(update=dict(steps=6, updates_per_rollout=2))
    train(policy, make_model(), Path(folder), config, callbacks=Callbacks(on_step=kill))
    policy.save_pretrained(folder + "/model")

for folder, kill_at in {runs!r}:
    run(folder, kill_at)
"""


def run_process(*runs):
    code = SCRIPT.format(root=str(Path(__file__).parents[2]), runs=runs)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode


def test_kill_9_and_resume_give_the_same_weights_bit_for_bit(tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert run_process((str(whole), 0), (str(torn), 5)) == -signal.SIGKILL
    assert run_process((str(torn), 0)) == 0
    assert (whole / "model/model.safetensors").read_bytes() == (torn / "model/model.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (torn / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_dropout_is_off_in_policy_and_reference(reference, tmp_path):
    policy = make_model()
    policy.config.attention_dropout = 0.5
    for layer in policy.model.layers:
        layer.self_attn.attention_dropout = 0.5
    trained = make_model()
    train(policy, reference, tmp_path / "noisy")
    train(trained, reference, tmp_path / "plain")
    assert_same(weights(policy), weights(trained))


def test_bfloat16_trains(tmp_path):
    policy, reference = make_model(dtype=torch.bfloat16), make_model(dtype=torch.bfloat16).requires_grad_(False)
    before = weights(policy)
    summary = train(policy, reference, tmp_path)
    assert summary["num_steps"] == 4
    assert any(not torch.equal(before[name], value) for name, value in weights(policy).items())
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    assert isinstance(summary["kl"], float)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_groups_of_equal_rewards_teach_nothing(policy, reference, tmp_path, algorithm):
    rows, before = [], weights(policy)
    config = CONFIG.model_copy(update={"algorithm": algorithm, "kl_coef": 0.0, "steps": 2, "group_size": 7})
    train_grpo(
        policy, reference, lambda rollouts: [0.1] * len(rollouts), PROMPTS, config, seed=0, folder=tmp_path, stop_ids=[],
        callbacks=Callbacks(on_step=rows.append),
    )  # fmt: skip
    assert all(row["grad_norm"] < 1e-9 and row["reward_std"] < 1e-6 and row["stopped_fraction"] == 0 for row in rows)
    assert_same(weights(policy), before, atol=1e-6, rtol=0)  # rounding of a mean must not become a step of Adam's
