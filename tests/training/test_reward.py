"""The reward model: learns, scores as plain Transformers does, and no knob changes its gradient."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from charter.config import RewardConfig
from charter.errors import ModelError
from charter.training.reward import EncodedPair, accumulate_reward, reward_model_from_policy, score, train_reward

from .tiny import END, Tokens, assert_same, gradients, make_model, weights


@pytest.fixture
def reward_model(policy):
    """With a head that has opinions."""
    model = reward_model_from_policy(policy, Tokens())
    torch.manual_seed(5)
    torch.nn.init.normal_(model.score.weight, std=0.5)
    return model


def plain_scores(model, pairs):
    rewards = []
    for pair in pairs:
        for response in (pair.a_ids, pair.b_ids):
            ids = torch.tensor([pair.prompt_ids + response])
            rewards.append(model(input_ids=ids).logits.item())
    return rewards


def test_starts_with_no_opinion(policy, pairs):
    model = reward_model_from_policy(policy, Tokens())
    assert (
        score(model, [pair.prompt_ids for pair in pairs], [[pair.a_ids, pair.b_ids] for pair in pairs]) == [[0, 0]] * 24
    )


def test_scores_are_those_of_plain_transformers(reward_model, pairs, tmp_path):
    ours = score(reward_model, [p.prompt_ids for p in pairs], [[p.a_ids, p.b_ids] for p in pairs])
    reward_model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=False)
    assert torch.tensor(ours).flatten().tolist() == pytest.approx(plain_scores(loaded, pairs), abs=1e-5)
    # and in a padded batch, where Transformers finds the last token by the pad token
    rows = [pair.prompt_ids + pair.a_ids for pair in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    batch = loaded(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, 0]
    assert batch.tolist() == pytest.approx([a for a, _ in ours], abs=1e-5)


def test_gradient_is_that_of_the_plain_loss(reward_model, pairs):
    measured = accumulate_reward(reward_model, pairs, 0.02, 10_000)
    packed = gradients(reward_model)
    reward_model.zero_grad()
    total = 0.0
    for pair in pairs:
        a, b = (
            reward_model(input_ids=torch.tensor([pair.prompt_ids + r])).logits[0, 0] for r in (pair.a_ids, pair.b_ids)
        )
        p_a = torch.sigmoid(a.double() - b.double())
        total = total - pair.p_a * p_a.log() - (1 - pair.p_a) * (1 - p_a).log() + 0.02 * (a + b) ** 2
    (total / len(pairs)).backward()
    assert measured["loss"] == pytest.approx(total.item() / len(pairs), abs=1e-5)
    assert_same(packed, gradients(reward_model), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens_per_forward", [1, 30, 100])
def test_the_size_of_a_forward_pass_changes_nothing(reward_model, pairs, tokens_per_forward):
    accumulate_reward(reward_model, pairs, 0.01, 10_000)
    whole = gradients(reward_model)
    reward_model.zero_grad()
    accumulate_reward(reward_model, pairs, 0.01, tokens_per_forward)
    assert_same(whole, gradients(reward_model), atol=1e-6, rtol=1e-4)


def test_learns_and_agrees_with_its_labels(policy, pairs, tmp_path):
    shorter = [EncodedPair(p.prompt_ids, p.a_ids, p.b_ids, float(len(p.a_ids) < len(p.b_ids))) for p in pairs]
    model = reward_model_from_policy(policy, Tokens())
    config = RewardConfig(epochs=12, batch_size=8, learning_rate=3e-3)
    summary = train_reward(model, shorter, config, seed=0, folder=tmp_path)
    assert summary["num_steps"] == 36 and summary["loss"] < 0.3
    scored = score(model, [p.prompt_ids for p in shorter], [[p.a_ids, p.b_ids] for p in shorter])
    sided = [(a > b) == (p.p_a == 1) for (a, b), p in zip(scored, shorter, strict=True) if len(p.a_ids) != len(p.b_ids)]
    assert sum(sided) / len(sided) > 0.9


def test_soft_labels_of_one_half_teach_nothing(reward_model, pairs):
    ties = [EncodedPair(p.prompt_ids, p.a_ids, p.a_ids, 0.5) for p in pairs]
    accumulate_reward(reward_model, ties, 0.0, 10_000)
    assert max(g.abs().max().item() for g in gradients(reward_model).values()) < 1e-6


def test_same_seed_same_model_and_resuming(policy, pairs, tmp_path):
    config = RewardConfig(epochs=2, batch_size=8, learning_rate=1e-3, checkpoint_every=2)
    whole, stopped = (reward_model_from_policy(make_model(), Tokens()) for _ in range(2))
    train_reward(whole, pairs, config, seed=3, folder=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_at_five(row):
        if row["step"] == 5:
            raise Stop

    with pytest.raises(Stop):
        train_reward(stopped, pairs, config, seed=3, folder=tmp_path / "torn", on_step=stop_at_five)
    resumed = reward_model_from_policy(make_model(), Tokens())
    seen = []
    train_reward(resumed, pairs, config, seed=3, folder=tmp_path / "torn", on_step=lambda row: seen.append(row["step"]))
    assert seen == [5, 6]
    assert_same(weights(whole), weights(resumed))


def test_an_architecture_without_a_classifier_is_named():
    from transformers import CodeGenConfig, CodeGenForCausalLM

    model = CodeGenForCausalLM(CodeGenConfig(vocab_size=20, n_embd=8, n_layer=1, n_head=1, rotary_dim=4))
    with pytest.raises(ModelError, match="codegen"):
        reward_model_from_policy(model, Tokens())


def test_end_is_where_the_reward_is_read(reward_model):
    (with_end,), (without,) = (score(reward_model, [[5, 6]], [[ids]]) for ids in ([7, END], [7]))
    assert with_end != without
