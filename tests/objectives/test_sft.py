"""Literal, invariance, oracle, gradient of the masked likelihood, of log-probabilities, entropy and reductions."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from charter.objectives.entropy import entropy, negative_entropy_loss, token_logprobs
from charter.objectives.reduce import masked_mean, masked_sum
from charter.objectives.sft import sft_loss


def of(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw():
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (2, 4), generator=generator)
    mask = torch.tensor([[False, True, True, True], [False, False, True, False]])
    return logits, target, mask


def logprobs_of(logits, target):
    return token_logprobs(logits.flatten(0, 1), target.flatten()).view(target.shape)


def test_literals():
    logits = of([math.log(3), 0], [0, 0])
    torch.testing.assert_close(token_logprobs(logits, torch.tensor([0, 1])), of(0.75, 0.5).log())
    expected = [0.75 * math.log(4 / 3) + 0.25 * math.log(4), math.log(2)]
    assert entropy(logits).tolist() == pytest.approx(expected)
    assert entropy(of([0, -math.inf])).item() == 0
    mask = torch.tensor([[True, False], [True, True]])
    assert sft_loss(of([-1, -9], [-2, -3]), mask, 3).item() == 2
    assert masked_sum(of([1, math.nan]), mask[:1]).item() == 1


def test_invariances():
    logits, target, mask = draw()
    whole = sft_loss(logprobs_of(logits, target), mask, 4)
    torch.testing.assert_close(whole, sft_loss(logprobs_of(logits + 8, target), mask, 4))
    spoilt = logprobs_of(logits, target).masked_fill(~mask, math.nan)
    torch.testing.assert_close(whole, sft_loss(spoilt, mask, 4))
    pieces = [sft_loss(logprobs_of(logits[i : i + 1], target[i : i + 1]), mask[i : i + 1], 4) for i in range(2)]
    torch.testing.assert_close(whole, sum(pieces))
    torch.testing.assert_close(entropy(logits.flatten(0, 1)), entropy(logits.flatten(0, 1) - 100))


def test_an_empty_mask_gives_zero_and_no_gradient():
    values = of([1, 2]).requires_grad_()
    loss = masked_mean(values, torch.zeros(1, 2, dtype=torch.bool), 5)
    loss.backward()
    assert loss.item() == 0 and values.grad.tolist() == [[0, 0]]


def test_oracle_cross_entropy_and_plain_loop():
    logits, target, mask = draw()
    labels = target.masked_fill(~mask, -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / 4
    torch.testing.assert_close(sft_loss(logprobs_of(logits, target), mask, 4), expected)
    for row, found in zip(logits.flatten(0, 1).tolist(), entropy(logits.flatten(0, 1)).tolist(), strict=True):
        total = sum(map(math.exp, row))
        assert found == pytest.approx(-sum(math.exp(x) / total * math.log(math.exp(x) / total) for x in row))


def test_gradient_raises_the_target():
    logits, target, mask = draw()
    logits.requires_grad_()
    sft_loss(logprobs_of(logits, target), mask, 4).backward()
    at_target = logits.grad.gather(2, target[..., None])[..., 0]
    assert (at_target[mask] < 0).all() and (at_target[~mask] == 0).all()
    assert gradcheck(lambda x: sft_loss(logprobs_of(x, target), mask, 4), (logits,))
    assert gradcheck(lambda x: entropy(x.flatten(0, 1)), (logits,))


def test_the_entropy_bonus_has_value_and_gradient_of_the_entropy():
    """Averaged over all tokens as they are sampled, whichever policy sampled them."""
    generator = torch.Generator().manual_seed(8)
    logits, sampling = torch.randn(2, 1, 6, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(-entropy(logits).sum(), logits)
    for old in (logits.detach().log_softmax(-1), sampling.log_softmax(-1)):
        loss = (old.exp() * negative_entropy_loss(logits.log_softmax(-1), old)).sum()
        torch.testing.assert_close(loss, -entropy(logits).sum())
        torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)
    # a token of probability 1/2, which had 1/4 when it was sampled: 2 ln 1/2
    assert negative_entropy_loss(of([0.5]).log(), of([0.25]).log()).item() == pytest.approx(-2 * math.log(2))
