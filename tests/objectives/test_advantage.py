"""Literal, invariance, oracle, gradient of advantages."""

import statistics

import pytest
import torch

from charter.objectives.advantage import generalised_advantages, group_advantages, leave_one_out_advantages, whiten


def of(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw(p=5, g=4):
    generator = torch.Generator().manual_seed(2)
    reward = torch.randn(p, g, generator=generator, dtype=torch.float64)
    valid = torch.rand(p, g, generator=generator) > 0.25
    return reward, valid


def all_of(reward):
    return torch.ones(reward.shape, dtype=torch.bool)


def test_literals():
    one_of_four = of([1, 0, 0, 0])
    # mean 1/4, unbiased variance 1/4, standard deviation 1/2
    expected = of([0.75, -0.25, -0.25, -0.25])
    torch.testing.assert_close(group_advantages(one_of_four, all_of(one_of_four), scale=False), expected)
    torch.testing.assert_close(group_advantages(one_of_four, all_of(one_of_four)), expected / 0.5001)
    torch.testing.assert_close(leave_one_out_advantages(of([1, 0]), all_of(of([1, 0]))), of([1, -1]))
    torch.testing.assert_close(leave_one_out_advantages(of([3, 0, 0]), all_of(of([3, 0, 0]))), of([3, -1.5, -1.5]))


def test_gae_literal():
    # deltas: 0 + .5 * 2 - 1 = 0 and 4 - 2 = 2; advantages: 0 + .5 * .5 * 2 = .5 and 2
    found = generalised_advantages(of([0, 4]), of([1, 2]), all_of(of([0, 4])), gamma=0.5, lam=0.5)
    assert found.tolist() == [[0.5, 2]]


@pytest.mark.parametrize("advantages", [group_advantages, leave_one_out_advantages])
def test_group_invariances(advantages):
    reward, valid = draw()
    found = advantages(reward, valid)
    torch.testing.assert_close(found, advantages(reward + 5, valid))
    torch.testing.assert_close(found.sum(1), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(found, advantages(reward.masked_fill(~valid, float("nan")), valid))
    order = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(found[:, order], advantages(reward[:, order], valid[:, order]))
    torch.testing.assert_close(found[1:3], advantages(reward[1:3], valid[1:3]))


def test_scaled_advantages_ignore_the_unit_of_reward():
    reward, valid = draw()
    torch.testing.assert_close(
        group_advantages(reward, valid), group_advantages(reward * 1000, valid), atol=1e-3, rtol=1e-3
    )
    assert not torch.allclose(group_advantages(reward, valid, False), group_advantages(reward * 2, valid, False))


def test_groups_that_tell_nothing_get_zero():
    equal, lonely = of([2, 2, 2], [5, 1, 9]), torch.tensor([[True, True, True], [False, True, False]])
    for found in (group_advantages(equal, lonely), leave_one_out_advantages(equal, lonely)):
        assert found.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_group_oracle_plain_loop():
    reward, valid = draw()
    scaled, plain = group_advantages(reward, valid), group_advantages(reward, valid, scale=False)
    others = leave_one_out_advantages(reward, valid)
    for p in range(5):
        known = [reward[p, g].item() for g in range(4) if valid[p, g]]
        for g in range(4):
            if not valid[p, g] or len(known) < 2:
                assert scaled[p, g] == plain[p, g] == others[p, g] == 0
                continue
            r = reward[p, g].item()
            assert plain[p, g].item() == pytest.approx(r - statistics.mean(known))
            assert scaled[p, g].item() == pytest.approx((r - statistics.mean(known)) / (statistics.stdev(known) + 1e-4))
            rest = [reward[p, h].item() for h in range(4) if valid[p, h] and h != g]
            assert others[p, g].item() == pytest.approx(r - statistics.mean(rest))


def test_gae_oracle_sum_of_discounted_errors():
    generator = torch.Generator().manual_seed(3)
    reward, value = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    lengths = [5, 1, 3, 2, 4, 5]
    mask = torch.tensor([[t < n for t in range(5)] for n in lengths])
    rubbish = reward.masked_fill(~mask, float("nan"))
    found = generalised_advantages(rubbish, value.masked_fill(~mask, 1e9), mask, gamma=0.9, lam=0.7)
    for b, n in enumerate(lengths):
        for t in range(5):
            expected = 0.0
            for k in range(t, n):
                following = value[b, k + 1].item() if k + 1 < n else 0.0
                expected += (0.9 * 0.7) ** (k - t) * (reward[b, k] + 0.9 * following - value[b, k]).item()
            assert found[b, t].item() == pytest.approx(expected if t < n else 0.0)


def test_gae_at_lambda_one_is_the_return_minus_the_value():
    reward, value = of([1, 2, 4]), of([0.5, 1, 3])
    found = generalised_advantages(reward, value, all_of(reward), gamma=1, lam=1)
    torch.testing.assert_close(found, of([7, 6, 4]) - value)


def test_whiten():
    values, mask = of([1, 2, 3], [99, 99, 99]), torch.tensor([[True] * 3, [False] * 3])
    torch.testing.assert_close(whiten(values, mask), of([-1, 0, 1], [0, 0, 0]))
    # the mean goes, whatever it was: advantages that keep it are all of one sign
    torch.testing.assert_close(whiten(values + 5, mask), whiten(values, mask))
    assert whiten(values, mask & False).tolist() == [[0] * 3] * 2


def test_gradients_follow_the_reward():
    reward = of([0.3, -1, 2]).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: group_advantages(r, all_of(r)), (reward,))
    assert torch.autograd.gradcheck(lambda r: leave_one_out_advantages(r, all_of(r)), (reward,))
    assert torch.autograd.gradcheck(lambda r: generalised_advantages(r, r * 0.5, all_of(r)), (reward,))
    (gradient,) = torch.autograd.grad(leave_one_out_advantages(reward, all_of(reward))[0, 1], reward)
    assert gradient.tolist() == [[-0.5, 1, -0.5]]
