"""Literal, invariance, oracle, gradient of direct preference optimisation."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from charter.objectives.dpo import dpo_nll, implicit_reward


def of(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw(n=7):
    generator = torch.Generator().manual_seed(1)
    logprobs = -10 * torch.rand(4, n, generator=generator, dtype=torch.float64)
    return *logprobs, torch.rand(n, generator=generator, dtype=torch.float64)


def test_literal():
    # log-ratios 2 and -3 at beta .2 are rewards .4 and -.6: one nat apart
    assert implicit_reward(of(-5), of(-7), 0.2).item() == pytest.approx(0.4)
    assert dpo_nll(of(-5), of(-9), of(-7), of(-6), of(1), 0.2).item() == pytest.approx(0.31326168751822286)


def test_at_the_reference_every_label_costs_ln_2():
    a, b, _, _, p = draw()
    torch.testing.assert_close(dpo_nll(a, b, a, b, p, 0.1), torch.full_like(a, math.log(2)))


def test_swapping_sides_changes_nothing():
    a, b, ref_a, ref_b, p = draw()
    torch.testing.assert_close(dpo_nll(a, b, ref_a, ref_b, p, 0.1), dpo_nll(b, a, ref_b, ref_a, 1 - p, 0.1))


def test_oracle_plain_loop():
    a, b, ref_a, ref_b, p = draw()
    found = dpo_nll(a, b, ref_a, ref_b, p, 0.3).tolist()
    for i, value in enumerate(found):
        odds = ((a[i] - ref_a[i]).exp() / (b[i] - ref_b[i]).exp()).item() ** 0.3
        prefers_a = odds / (1 + odds)
        assert value == pytest.approx(-p[i].item() * math.log(prefers_a) - (1 - p[i].item()) * math.log(1 - prefers_a))


def test_gradient_raises_the_preferred():
    a, b, ref_a, ref_b, p = draw()
    a.requires_grad_(), b.requires_grad_()
    dpo_nll(a, b, ref_a, ref_b, torch.ones_like(p), 0.1).sum().backward()
    assert (a.grad < 0).all() and (b.grad > 0).all()
    assert gradcheck(lambda x, y: dpo_nll(x, y, ref_a, ref_b, p, 0.1), (a, b))
