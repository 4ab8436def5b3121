"""Literal, invariance, oracle, gradient of the clipped objectives."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from charter.objectives.ppo import clipped_policy_loss, clipped_value_loss, is_clipped
from charter.objectives.reduce import masked_mean


def of(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw():
    generator = torch.Generator().manual_seed(4)
    new, old, other, target = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    return new * 0.4, old * 0.4, other, target


def test_policy_literals():
    ratio = of(1.5, 1.5, 0.5, 0.5).log()
    advantage = of(2, -2, 2, -2)
    # a gain is held at 1.2 (and .5 is no gain); a loss counts in full, but not below .8
    torch.testing.assert_close(clipped_policy_loss(ratio, ratio * 0, advantage, 0.2), of(-2.4, 3, -1, 1.6))
    assert is_clipped(ratio, ratio * 0, advantage, 0.2).tolist() == [True, False, False, True]


def test_value_literals():
    # value 3 was 1, target 0: error 3 against held 1.5; value 1, target 2: the held value is as far
    torch.testing.assert_close(clipped_value_loss(of(3, 1), of(1, 1), of(0, 2), 0.5), of(4.5, 0.5))
    # towards the target but too fast: the held value's error counts
    torch.testing.assert_close(clipped_value_loss(of(2), of(0), of(2), 0.5), of(0.5 * 1.5**2))


def test_invariances():
    new, old, advantage, _ = draw()
    loss = clipped_policy_loss(new, old, advantage, 0.2)
    torch.testing.assert_close(loss, clipped_policy_loss(new + 3, old + 3, advantage, 0.2))
    torch.testing.assert_close(loss * 2, clipped_policy_loss(new, old, advantage * 2, 0.2))
    torch.testing.assert_close(clipped_policy_loss(old, old, advantage, 0.2), -advantage)
    torch.testing.assert_close(
        clipped_value_loss(new, old, advantage, 0.1), clipped_value_loss(new + 9, old + 9, advantage + 9, 0.1)
    )


def test_rubbish_where_masked_and_other_pieces_change_nothing():
    new, old, advantage, _ = draw()
    mask = torch.tensor([[True, True, False, False, False], [True] * 5, [False] * 5])
    new.requires_grad_()
    loss = masked_mean(clipped_policy_loss(new, old, advantage, 0.2), mask, 7)
    (whole,) = torch.autograd.grad(loss, new)
    spoilt = advantage.masked_fill(~mask, 1e6)
    pieces = [masked_mean(clipped_policy_loss(new[i], old[i], spoilt[i], 0.2), mask[i], 7) for i in range(3)]
    torch.testing.assert_close(sum(pieces), loss)
    torch.testing.assert_close(torch.autograd.grad(sum(pieces), new)[0], whole)


def test_oracle_plain_loop():
    new, old, other, target = draw()
    policy, value = clipped_policy_loss(new, old, other, 0.2), clipped_value_loss(new, old, target, 0.3)
    for b in range(3):
        for t in range(5):
            ratio, gain = math.exp(new[b, t] - old[b, t]), other[b, t].item()
            # the case distinction of the paper's figure 1
            bound = 1.2 if gain > 0 else 0.8
            beyond = ratio > bound if gain > 0 else ratio < bound
            assert policy[b, t].item() == pytest.approx(-(bound if beyond else ratio) * gain)
            held = min(max(new[b, t].item(), old[b, t].item() - 0.3), old[b, t].item() + 0.3)
            errors = [(x - target[b, t].item()) ** 2 / 2 for x in (new[b, t].item(), held)]
            assert value[b, t].item() == pytest.approx(max(errors))


def test_gradient_raises_good_tokens_and_stops_where_clipped():
    logprobs = of(0.0, 0.0, 1.0, -1.0).requires_grad_()
    clipped_policy_loss(logprobs, of(0, 0, 0, 0), of(1, -1, 1, -1), 0.2).sum().backward()
    assert logprobs.grad.tolist() == [-1, 1, 0, 0]
    new, old, other, target = draw()
    new.requires_grad_()
    assert gradcheck(lambda x: clipped_policy_loss(x, old, other, 0.2), (new,))
    assert gradcheck(lambda x: clipped_value_loss(x, old, target, 0.3), (new,))
    value = of(2.0).requires_grad_()
    clipped_value_loss(value, of(2.0), of(5.0), 0.3).sum().backward()
    assert value.grad.item() == -3
