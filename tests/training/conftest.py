"""Fixtures: a random model and data for it."""

import random

import pytest

from charter.training.reward import EncodedPair

from .tiny import END, draw_ids, make_model


@pytest.fixture
def policy():
    return make_model()


@pytest.fixture
def reference():
    return make_model().requires_grad_(False)


@pytest.fixture
def examples():
    rng = random.Random(0)
    return [(draw_ids(rng, 2, 9), [*draw_ids(rng, 0, 7), END]) for _ in range(24)]


@pytest.fixture
def pairs():
    rng = random.Random(1)
    return [
        EncodedPair(draw_ids(rng, 2, 9), [*draw_ids(rng, 0, 7), END], [*draw_ids(rng, 0, 7), END], rng.random())
        for _ in range(24)
    ]
