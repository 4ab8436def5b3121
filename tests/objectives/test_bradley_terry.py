"""Literal, invariance, oracle, gradient. Mutations that must turn a test red are in test_mutations.py."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from charter.objectives.bradley_terry import bradley_terry_nll, centering_penalty


def of(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw(n=9):
    generator = torch.Generator().manual_seed(0)
    a, b, p = torch.randn(3, n, generator=generator, dtype=torch.float64)
    return a, b, torch.sigmoid(p)


def test_literal():
    # A is one nat ahead and surely better: ln(1 + e^-1); a tie costs ln 2 whatever the label
    assert bradley_terry_nll(of(1), of(0), of(1)).item() == pytest.approx(0.31326168751822286)
    assert bradley_terry_nll(of(0), of(0), of(0.3)).item() == pytest.approx(math.log(2))
    # .75 ln(1 + e^-1) + .25 ln(1 + e)
    assert bradley_terry_nll(of(1), of(0), of(0.75)).item() == pytest.approx(0.5632616875)
    # a margin of one nat takes the lead away
    assert bradley_terry_nll(of(1), of(0), of(1), of(1)).item() == pytest.approx(math.log(2))
    assert centering_penalty(of(3), of(-1)).item() == 4


def test_only_differences_count_and_sides_swap():
    a, b, p = draw()
    torch.testing.assert_close(bradley_terry_nll(a, b, p), bradley_terry_nll(a + 7, b + 7, p))
    torch.testing.assert_close(bradley_terry_nll(a, b, p, 0.4), bradley_terry_nll(b, a, 1 - p, -0.4))
    torch.testing.assert_close(centering_penalty(a, b), centering_penalty(b, a))


def test_oracle_plain_loop():
    a, b, p = draw()
    for value, x, y, q in zip(bradley_terry_nll(a, b, p).tolist(), a.tolist(), b.tolist(), p.tolist(), strict=True):
        implied = math.exp(x) / (math.exp(x) + math.exp(y))
        assert value == pytest.approx(-q * math.log(implied) - (1 - q) * math.log(1 - implied))


def test_far_apart_rewards_stay_finite():
    loss = bradley_terry_nll(of(1000, -1000), of(-1000, 1000), of(1, 1))
    assert loss.tolist() == [0, 2000]


def test_gradient_raises_the_preferred():
    a = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    bradley_terry_nll(a, of(0), of(1)).sum().backward()
    assert a.grad.item() == pytest.approx(-0.5)
    a, b, p = (x.requires_grad_() for x in draw())
    assert gradcheck(bradley_terry_nll, (a, b, p.detach()))
    assert gradcheck(centering_penalty, (a, b))
