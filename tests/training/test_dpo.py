"""Direct preference optimisation: the plain loss, no knob changes its gradient, it learns and resumes."""

import pytest
import torch

from charter.config import DpoConfig
from charter.training.dpo import accumulate_dpo, pair_logprobs, reference_logprobs, train_dpo
from charter.training.reward import EncodedPair

from .tiny import assert_same, gradients, make_model, weights


def whole_logprob(model, prompt, response):
    logprobs = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(response)[:, None]).sum()


@pytest.mark.parametrize("tokens_per_forward", [1, 50, 10_000])
def test_gradient_is_that_of_the_plain_loss(policy, pairs, tokens_per_forward):
    reference = make_model(seed=8)
    reference_B2 = reference_logprobs(reference, [pair.row for pair in pairs], tokens_per_forward)
    measured = accumulate_dpo(policy, pairs, reference_B2, 0.1, tokens_per_forward)
    ours = gradients(policy)
    policy.zero_grad()
    total = 0.0
    for pair in pairs:
        a, b = (
            whole_logprob(policy, pair.prompt_ids, ids) - whole_logprob(reference, pair.prompt_ids, ids).detach()
            for ids in (pair.a_ids, pair.b_ids)
        )
        p_a = torch.sigmoid(0.1 * (a - b))
        total = total - pair.p_a * p_a.log() - (1 - pair.p_a) * (1 - p_a).log()
    (total / len(pairs)).backward()
    assert measured["loss"] == pytest.approx(total.item() / len(pairs), abs=1e-5)
    assert_same(ours, gradients(policy), atol=1e-5, rtol=1e-3)


def test_prefers_what_it_was_taught(policy, reference, pairs, tmp_path):
    sure = [EncodedPair(p.prompt_ids, p.a_ids, p.b_ids, float(i % 2)) for i, p in enumerate(pairs)]
    config = DpoConfig(epochs=8, batch_size=8, learning_rate=1e-3)
    summary = train_dpo(policy, reference, sure, config, seed=0, folder=tmp_path)
    assert summary["num_steps"] == 24 and summary["loss"] < 0.4
    rows = [pair.row for pair in sure]
    with torch.no_grad():
        gain = (pair_logprobs(policy, rows) - pair_logprobs(reference, rows)).diff(dim=1)[:, 0]
    assert ((gain < 0) == torch.tensor([p.p_a == 1 for p in sure])).float().mean() > 0.9


def test_a_killed_run_resumes_to_the_same_weights(reference, pairs, tmp_path):
    config = DpoConfig(epochs=1, batch_size=6, learning_rate=1e-3, checkpoint_every=2)
    whole, torn, resumed = make_model(), make_model(), make_model()
    train_dpo(whole, reference, pairs, config, seed=0, folder=tmp_path / "whole")

    def stop_at_three(row):
        if row["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_dpo(torn, reference, pairs, config, seed=0, folder=tmp_path / "torn", on_step=stop_at_three)
    train_dpo(resumed, reference, pairs, config, seed=0, folder=tmp_path / "torn")
    assert_same(weights(whole), weights(resumed))
