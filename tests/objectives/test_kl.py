"""Literal, invariance, oracle, gradient of KL estimators and of the coefficient that adapts to them."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from charter.objectives.kl import adaptive_kl_coef, kl_k1, kl_k1_loss, kl_k3, kl_k3_loss


def of(*values):
    return torch.tensor(values, dtype=torch.float64)


def distributions():
    generator = torch.Generator().manual_seed(5)
    p, q = torch.randn(2, 6, generator=generator, dtype=torch.float64).log_softmax(-1)
    return p, q


def test_literals():
    p, q = of(math.log(0.5)), of(math.log(0.25))
    assert kl_k1(p, q).item() == pytest.approx(math.log(2))
    assert kl_k3(p, q).item() == pytest.approx(0.5 - 1 + math.log(2))
    # the policy has moved from .4 to .5 since it sampled
    assert kl_k1_loss(p, of(math.log(0.4)), q).item() == pytest.approx(1.25 * math.log(2))
    assert kl_k3_loss(p, of(math.log(0.4)), q).item() == pytest.approx(1.25 * (0.5 - 1 + math.log(2)))


def test_at_the_reference_all_is_zero_and_k3_is_never_negative():
    p, q = distributions()
    for estimator in (kl_k1, kl_k3):
        torch.testing.assert_close(estimator(p, p), torch.zeros_like(p))
    assert (kl_k3(p, q) >= 0).all() and (kl_k1(p, q) < 0).any()
    torch.testing.assert_close(kl_k1(p + 3, q + 3), kl_k1(p, q))
    torch.testing.assert_close(kl_k3_loss(p, p, q), kl_k3(p, q))
    torch.testing.assert_close(kl_k1_loss(p, p, q), kl_k1(p, q))
    torch.testing.assert_close(kl_k1_loss(p + 3, p + 3, q + 3), kl_k1(p, q))


def test_oracle_expectation_under_the_policy_is_the_exact_kl():
    p, q = distributions()
    exact = sum(math.exp(x) * (x - y) for x, y in zip(p.tolist(), q.tolist(), strict=True))
    assert (p.exp() * kl_k1(p, q)).sum().item() == pytest.approx(exact)
    assert (p.exp() * kl_k3(p, q)).sum().item() == pytest.approx(exact)


def test_gradient_of_the_loss_is_that_of_the_exact_kl():
    """The loss is averaged over all tokens with the weights with which they are sampled, which are constants."""
    generator = torch.Generator().manual_seed(6)
    logits, sampling, reference = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    q = reference.log_softmax(-1)

    def exact():
        p = logits.log_softmax(-1)
        return (p.exp() * (p - q)).sum()

    (expected,) = torch.autograd.grad(exact(), logits)
    for old in (logits.detach().log_softmax(-1), sampling.log_softmax(-1)):  # first update, and a later one
        for kl_loss in (kl_k1_loss, kl_k3_loss):
            loss = (old.exp() * kl_loss(logits.log_softmax(-1), old, q)).sum()
            torch.testing.assert_close(loss, exact())
            torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)
    # bare k1 pulls nowhere, and bare k3 towards the other KL, which is why it isn't the loss
    p = logits.detach().log_softmax(-1)
    nowhere = (p.exp() * kl_k1(logits.log_softmax(-1), q)).sum()
    torch.testing.assert_close(torch.autograd.grad(nowhere, logits)[0], torch.zeros_like(expected))
    bare = (p.exp() * kl_k3(logits.log_softmax(-1), q)).sum()
    assert not torch.allclose(torch.autograd.grad(bare, logits)[0], expected, rtol=0.05)


def test_gradient_signs_and_gradcheck():
    above = of(-1.0).requires_grad_()  # the policy gives the token more than the reference does
    kl_k3_loss(above, of(-1.0), of(-2.0)).sum().backward()
    assert above.grad.item() > 0
    above.grad = None
    kl_k1_loss(above, of(-1.0), of(-2.0)).sum().backward()
    assert above.grad.item() == 1
    p, q = distributions()
    p.requires_grad_()
    weight = kl_k1(p, q).detach()  # a constant of the loss
    (slope,) = torch.autograd.grad(kl_k1_loss(p, q, q).sum(), p)
    torch.testing.assert_close(slope, torch.exp(p - q).detach() * weight)
    assert gradcheck(lambda x: kl_k3_loss(x, q, q - 0.3), (p,))
    assert gradcheck(lambda x: kl_k3(x, q), (p,))


def test_adaptive_coefficient():
    assert adaptive_kl_coef(0.2, kl=6, target=6) == 0.2
    assert adaptive_kl_coef(0.2, kl=6.6, target=6, rate=0.1) == pytest.approx(0.2 * 1.01)
    assert adaptive_kl_coef(0.2, kl=600, target=6) == pytest.approx(0.2 * 1.02)  # at most a fifth
    assert adaptive_kl_coef(0.2, kl=-1, target=6) == pytest.approx(0.2 * 0.98)
