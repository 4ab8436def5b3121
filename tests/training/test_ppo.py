"""Proximal policy optimisation: the whole step against a plain loop, knobs, learning, resuming."""

import pytest
import torch

from charter.config import PolicyConfig
from charter.training.policy_loop import Callbacks
from charter.training.ppo import ActorCriticUpdate, train_ppo, value_model_from, values_of
from charter.training.reward import reward_model_from_policy
from charter.training.rollout import packed_groups, roll_out

from .test_grpo import PROMPTS, OneStep, likes_a_token, plain_logprobs
from .tiny import END, Tokens, assert_same, gradients, make_model, weights

CONFIG = PolicyConfig(
    algorithm="ppo", steps=4, prompts_per_step=3, group_size=4, max_new_tokens=6, learning_rate=3e-3, kl_coef=0.1,
    checkpoint_every=2, updates_per_rollout=2, gae_lambda=0.95,
)  # fmt: skip


def make_value_model(seed=0):
    model = reward_model_from_policy(make_model(seed), Tokens())
    torch.manual_seed(5)
    torch.nn.init.normal_(model.score.weight, std=0.2)
    return value_model_from(model)


@pytest.fixture
def step(policy):
    rollouts = roll_out(policy, PROMPTS[:3], CONFIG, seed=0, step=1, stop_ids=[END])
    rewards = [0.1 * len(r.response_ids) + 0.3 * (i % 3) for i, r in enumerate(rollouts)]
    rewards[5] = None
    return rollouts, rewards


def plain_values(model, rollout):
    """Before each token, one forward pass over what stands there (a sampled pad token counts, too)."""
    seen = [rollout.prompt_ids + rollout.response_ids[:t] for t in range(len(rollout.response_ids))]
    return torch.stack([model.score(model.model(input_ids=torch.tensor([ids]))[0][0, -1])[0] for ids in seen])


def test_values_are_those_of_the_plain_classifier(step):
    rollouts, _ = step
    model = make_value_model()
    values = values_of(model, packed_groups(rollouts, 4))
    for row, rollout in zip(values, rollouts, strict=True):
        expected = plain_values(model, rollout)
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=1e-4)
        assert (row[len(expected) :] == 0).all()


def plain_loss(policy, reference, value_model, rollouts, rewards, config):
    """Rewards, advantages by their definition as a sum, whitening and both clipped losses, token by token."""
    tokens = []
    for rollout, score in zip(rollouts, rewards, strict=True):
        if score is None:
            continue
        p, q = plain_logprobs(policy, rollout), plain_logprobs(reference, rollout).detach()
        v, old = plain_values(value_model, rollout), torch.tensor(rollout.logprobs)
        fixed = v.detach().tolist()
        pay = [-config.kl_coef * (old[t] - q[t]).item() for t in range(len(p))]
        pay[-1] += score
        errors = [pay[t] + (fixed[t + 1] if t + 1 < len(p) else 0.0) - fixed[t] for t in range(len(p))]
        for t in range(len(p)):
            advantage = sum(config.gae_lambda ** (k - t) * errors[k] for k in range(t, len(p)))
            tokens.append((p[t], old[t], v[t], advantage, advantage + fixed[t]))
    gains = torch.tensor([advantage for *_, advantage, _ in tokens])
    gains = (gains - gains.mean()) / gains.std()
    total = 0.0
    for gain, (p, old, v, _, target) in zip(gains.tolist(), tokens, strict=True):
        total = total - (p - old).exp() * gain + config.value_coef * 0.5 * (v - target) ** 2
    return total / len(tokens)


def test_the_first_update_has_the_gradient_of_the_plain_loop(policy, step):
    rollouts, rewards = step
    reference, value_model = make_model(seed=8), make_value_model()
    config = CONFIG.model_copy(update={"updates_per_rollout": 1})
    both = torch.nn.ModuleDict({"policy": policy, "value": value_model})
    recorder = OneStep(both)
    measured = ActorCriticUpdate(policy, reference, value_model, config)(recorder, rollouts, rewards)
    loss = plain_loss(policy, reference, value_model, rollouts, rewards, config)
    loss.backward()
    assert measured["loss"] == pytest.approx(loss.item(), abs=1e-4)
    assert_same(recorder.seen[0], gradients(both), atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("tokens_per_forward", [1, 60])
def test_the_size_of_a_forward_pass_changes_nothing(policy, reference, step, tokens_per_forward):
    value_model = make_value_model()
    both = torch.nn.ModuleDict({"policy": policy, "value": value_model})
    whole, pieces = OneStep(both), OneStep(both)
    first = ActorCriticUpdate(policy, reference, value_model, CONFIG)(whole, *step)
    second = ActorCriticUpdate(policy, reference, value_model, CONFIG, tokens_per_forward)(pieces, *step)
    assert_same(whole.seen[0], pieces.seen[0], atol=1e-5, rtol=1e-3)
    assert first == pytest.approx(second, abs=1e-4)


def train(policy, value_model, folder, config=CONFIG, **more):
    reference = make_model().requires_grad_(False)
    return train_ppo(
        policy, reference, value_model, likes_a_token, PROMPTS, config, seed=0, folder=folder, stop_ids=[END], **more
    )


def test_the_reward_rises_and_the_value_model_learns(policy, tmp_path):
    rows = []
    config = CONFIG.model_copy(
        update={"steps": 25, "kl_coef": 0.0, "group_size": 8, "value_clip": 5.0, "value_coef": 1.0}
    )
    train(policy, make_value_model(), tmp_path, config, callbacks=Callbacks(on_step=rows.append))
    early, late = (sum(row["reward_mean"] for row in part) for part in (rows[:5], rows[-5:]))
    assert late > early + 2.5
    assert rows[-1]["kl_k1"] > 0.1


def test_a_stopped_run_resumes_to_the_same_weights_of_both_models(tmp_path):
    whole, torn, resumed = ((make_model(), make_value_model()) for _ in range(3))
    train(*whole, tmp_path / "whole")

    def stop_at_three(row):
        if row["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*torn, tmp_path / "torn", callbacks=Callbacks(on_step=stop_at_three))
    train(*resumed, tmp_path / "torn")
    for first, second in zip(whole, resumed, strict=True):
        assert_same(weights(first), weights(second))


def test_one_response_to_a_prompt_is_enough_and_it_may_never_end(policy, tmp_path):
    rows, rolled = [], []
    config = CONFIG.model_copy(update={"group_size": 1, "steps": 2})
    callbacks = Callbacks(rows.append, on_rollouts=lambda step, rollouts, _: rolled.append(rollouts))
    before = weights(policy)
    train_ppo(
        policy, make_model(), make_value_model(), lambda rs: [float(r.response_ids[0]) for r in rs], PROMPTS, config,
        seed=0, folder=tmp_path, stop_ids=[], callbacks=callbacks,
    )  # fmt: skip
    assert [len(rollouts) for rollouts in rolled] == [3, 3]
    assert all(not r.stopped and len(r.response_ids) == 6 for r in rolled[0])
    assert all(row["stopped_fraction"] == 0 and row["grad_norm"] > 0 for row in rows)
    assert any(not torch.equal(before[name], value) for name, value in weights(policy).items())


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_a_group_of_one_is_refused_where_groups_are_compared(algorithm):
    with pytest.raises(ValueError, match=rf"group_size is 1: {algorithm} compares .* or choose ppo"):
        PolicyConfig(algorithm=algorithm, group_size=1)
    assert PolicyConfig(algorithm="ppo", group_size=1).group_size == 1
