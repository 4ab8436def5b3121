"""Supervised fine-tuning: the plain loss, only on responses; no knob changes its gradient; resumable."""

import pytest
import torch

from charter.config import SftConfig
from charter.errors import TrainingError
from charter.training.packing import PackedRow
from charter.training.sft import accumulate_sft, train_sft

from .tiny import assert_same, gradients, make_model, weights


def rows_of(examples):
    return [PackedRow(prompt, [response]) for prompt, response in examples]


def test_gradient_is_that_of_transformers_own_loss(policy, examples):
    measured = accumulate_sft(policy, rows_of(examples), 10_000)
    ours = gradients(policy)
    policy.zero_grad()
    num_tokens = sum(len(response) for _, response in examples)
    total = 0.0
    for prompt, response in examples:
        ids = torch.tensor([prompt + response])
        labels = torch.tensor([[-100] * len(prompt) + response])
        total = total + policy(input_ids=ids, labels=labels).loss * len(response)
    (total / num_tokens).backward()
    assert measured["loss"] == pytest.approx(total.item() / num_tokens, abs=1e-5)
    assert_same(ours, gradients(policy), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens_per_forward", [1, 20, 60])
def test_the_size_of_a_forward_pass_changes_nothing(policy, examples, tokens_per_forward):
    accumulate_sft(policy, rows_of(examples), 10_000)
    whole = gradients(policy)
    policy.zero_grad()
    accumulate_sft(policy, rows_of(examples), tokens_per_forward)
    assert_same(whole, gradients(policy), atol=1e-6, rtol=1e-4)


def test_learns_and_reports(policy, examples, tmp_path):
    seen = []
    config = SftConfig(epochs=10, batch_size=6, learning_rate=3e-3)
    summary = train_sft(policy, examples, config, seed=0, folder=tmp_path, on_step=seen.append)
    assert summary["num_steps"] == len(seen) == 40
    assert summary["num_tokens"] == 10 * sum(len(p) + len(r) for p, r in examples)
    assert summary["loss"] < seen[0]["loss"] / 3
    # the last state stays until what was made of it is safe: the stage removes it
    assert (tmp_path / "checkpoint" / "step-00000040").is_dir()
    assert all(row.keys() >= {"step", "loss", "grad_norm", "num_tokens", "seconds"} for row in seen)


def test_a_killed_run_resumes_to_the_same_weights(examples, tmp_path):
    config = SftConfig(epochs=2, batch_size=6, learning_rate=1e-3, checkpoint_every=3)
    whole, torn, resumed = make_model(), make_model(), make_model()
    train_sft(whole, examples, config, seed=1, folder=tmp_path / "whole")

    def stop_at_five(row):
        if row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sft(torn, examples, config, seed=1, folder=tmp_path / "torn", on_step=stop_at_five)
    summary = train_sft(resumed, examples, config, seed=1, folder=tmp_path / "torn")
    assert summary["num_steps"] == 8
    assert_same(weights(whole), weights(resumed))


def test_other_data_is_not_resumed(examples, tmp_path):
    config = SftConfig(batch_size=6, checkpoint_every=1)

    def stop(row):
        if row["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sft(make_model(), examples, config, seed=1, folder=tmp_path, on_step=stop)
    with pytest.raises(TrainingError, match="other settings, data"):
        train_sft(make_model(), examples[1:], config, seed=1, folder=tmp_path)


def test_the_saved_model_is_plain_transformers(policy, examples, tmp_path):
    from transformers import AutoModelForCausalLM

    train_sft(policy, examples, SftConfig(batch_size=8, learning_rate=1e-3), seed=0, folder=tmp_path)
    policy.save_pretrained(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=False).eval()
    ids = torch.tensor([examples[0][0]])
    torch.testing.assert_close(loaded(input_ids=ids).logits, policy(input_ids=ids).logits)
    torch.testing.assert_close(
        loaded.generate(ids, max_new_tokens=5, do_sample=False), policy.generate(ids, max_new_tokens=5, do_sample=False)
    )
