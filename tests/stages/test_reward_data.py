"""The reward model on preference data alone: split, baselines, figures, and the command."""

from __future__ import annotations

import random

import pytest

from charter.errors import DataError
from charter.records import Message, PreferencePair, Prompt
from charter.stages.baselines import agreement, baselines
from charter.stages.train_reward import held_out_figures, split_by_prompt


def pair(i: int, a: str, b: str, p_a: float, prompt: int | None = None) -> PreferencePair:
    return PreferencePair(
        f"pair{i}", Prompt(f"prompt{i if prompt is None else prompt}", (Message("user", "q"),)), a, b, p_a
    )


def planted(count: int) -> list[PreferencePair]:
    """The response with "kind" is better; length says nothing."""
    rng, pairs = random.Random(0), []
    for i in range(count):
        filler = [" ".join(rng.choices(["one", "two", "three", "four"], k=rng.randrange(2, 9))) for _ in range(2)]
        kind_first = rng.random() < 0.5
        a, b = (f"{filler[0]} kind", f"{filler[1]} rude") if kind_first else (f"{filler[0]} rude", f"{filler[1]} kind")
        pairs.append(pair(i, a, b, 0.9 if kind_first else 0.1))
    return pairs


def test_bag_of_words_finds_the_planted_word_and_length_does_not():
    found = baselines(planted(300), planted(400)[300:], seed=0)
    assert found["bag_of_words"].value > 0.97
    assert found["longer_wins"].low < 0.5 < found["longer_wins"].high
    assert found["longer_wins"].value + found["shorter_wins"].value == pytest.approx(1)


def test_longer_wins_by_hand():
    pairs = [pair(0, "x x x", "x", 1.0), pair(1, "x", "x x", 1.0), pair(2, "x", "x", 1.0), pair(3, "x x", "x", 0.5)]
    found = baselines(pairs, pairs, seed=0)["longer_wins"]
    assert (found.value, found.n) == (0.5, 3)  # right, wrong, a tie that counts half; 0.5 has no side


def test_no_prompt_on_both_sides_of_the_split():
    pairs = [pair(i, "a", "b", 1.0, prompt=i // 3) for i in range(90)]
    train, held_out = split_by_prompt(pairs, 0.2, seed=1)
    assert {p.prompt.id for p in train}.isdisjoint(p.prompt.id for p in held_out)
    assert (len(train), len(held_out)) == (72, 18)
    assert split_by_prompt(list(reversed(pairs)), 0.2, seed=1)[1][::-1] == held_out
    assert split_by_prompt(pairs, 0.2, seed=2)[1] != held_out
    with pytest.raises(DataError, match="at least 2"):
        split_by_prompt(pairs[:3], 0.2, seed=1)


def test_figures_by_hand():
    pairs = [pair(0, "a", "b", 1.0), pair(1, "a", "b", 0.0), pair(2, "a", "b", 0.8), pair(3, "a", "b", 0.2)]
    figures = held_out_figures(pairs, [2.0, 1.0, 0.5, -0.5], None)
    assert figures["label_agreement"]["value"] == 0.75
    assert figures["gold_agreement"]["value"] is None and figures["gold_agreement"]["reason"]
    assert sum(row["num"] for row in figures["calibration"]["bins"]) == 4


def test_agreement_follows_the_sign():
    assert agreement([1.0], [pair(0, "a", "b", 0.9)]).value == 1
    assert agreement([-1.0], [pair(0, "a", "b", 0.9)]).value == 0
    assert agreement([1.0], [pair(0, "a", "b", 0.1)]).value == 0
