"""Faults that were overlooked at first: bound to a topic, to the principles' weights, to a leak, to labels of 0 and 1."""

import dataclasses

import pytest

from charter.audit.evidence import read_evidence
from charter.audit.figures import LABELER, REWARD_MODEL
from charter.audit.labels import audit_labels
from charter.audit.leak import audit_leak
from charter.audit.reward_model import audit_reward_model
from charter.audit.topics import errs_on, prompt_words
from charter.audit.weighing import audit_weighing
from charter.village.oracle import read_request


@pytest.fixture
def small(planted):
    def draw(seed):
        world = planted.draw_world(seed)
        world.num_prompts, world.pairs = 20, world.pairs[:600]
        return world

    return draw


def looks_up(pair):
    return read_request(pair.prompt.messages).kind in ("fact", "unknown")


def test_a_labeler_that_is_a_coin_on_one_topic(small, read):
    world = small(21)
    world.relabel = lambda pair, total: world.rng.gauss(0, 3) if looks_up(pair) else total
    _, findings = audit_labels(read(world))
    (fault, *_) = [f for f in findings if f.kind == "errs_on"]
    assert fault.link == LABELER and fault.size.low > 0.05 and fault.cost > 0.02
    told = {pair.prompt.messages[-1].content for pair in world.pairs if looks_up(pair)}
    assert any(fault.what.strip("“”") in prompt for prompt in told), "the word is one of the topic's"


def test_a_reward_model_that_never_saw_a_topic(planted, small, read):
    world = small(22)
    said = lambda pair: sum(w * planted.difference(pair, id) for id, w in world.weights.items())  # noqa: E731
    world.learned = lambda pair: 0.0 if looks_up(pair) else 3 * said(pair)
    _, findings = audit_reward_model(read(world).pairs)
    assert [f.link for f in findings if f.kind == "errs_on"][:1] == [REWARD_MODEL]


def test_clean_links_err_on_no_topic_and_weigh_as_asked(clean_run):
    pairs = read_evidence(clean_run).pairs
    assert errs_on(LABELER, pairs.label_P, pairs.constitution_P, pairs, 0.01) == []
    shares, faults = audit_weighing(pairs, 0.01)
    assert faults == [] and all(row["value"] is None or row["value"] > 0.5 for row in shares.values())
    assert audit_leak(pairs)[1] == []


def test_words_of_prompts_are_there_or_not_and_rare_ones_are_left_out():
    words = prompt_words(["where is cat", "where it where"] * 20 + ["how"] * 3)
    assert "“how”" not in words.names and "“where”" not in words.names, "too rare, too common"
    assert set(words.names) == {"“is”", "“it”"} and words.values_PF.sum(axis=0).tolist() == [20, 20], (
        "one name for one column"
    )


def test_labels_that_mind_the_wrong_principles(planted, small, read):
    world = small(23)
    ids = sorted(planted.WEIGHTS, key=lambda id: planted.WEIGHTS[id])
    turned = {id: planted.WEIGHTS[other] for id, other in zip(ids, reversed(ids), strict=True)}
    world.bend = lambda asked, pair, value: value * turned[asked] / planted.WEIGHTS[asked]
    figures, findings = audit_labels(read(world))
    named = {f.what: f.size.value for f in findings if f.kind == "weights"}
    assert named and all((size > 1) == (id in ids[:4]) for id, size in named.items()), (
        "light ones too much, heavy too little"
    )
    share = figures["by_principle"]["harm"]["weight_given"]
    assert share["high"] < 0.5


def test_a_misread_principle_is_told_once(small, read):
    world = small(24)
    world.bend = lambda asked, pair, value: -value if asked == "insults" else value
    _, findings = audit_labels(read(world))
    assert [f.kind for f in findings if f.what == "insults"] == ["misread"]


def test_pairs_on_both_sides_of_the_split(small, read):
    world = small(25)
    swapped = [
        dataclasses.replace(pair, id=f"copy-{pair.id}", response_a=pair.response_b, response_b=pair.response_a)
        for pair in world.pairs[:200]
    ]
    world.pairs = [*world.pairs, *swapped]
    pairs = read(world).pairs
    figures, (fault,) = audit_leak(pairs)
    held_out = {p.id.removeprefix("copy-") for p, m in zip(pairs.pairs, pairs.margin_P, strict=True) if m == m}
    assert fault.link == REWARD_MODEL and fault.kind == "leak"
    assert 0 < figures["pairs"]["value"] < 1 and figures["prompts"]["value"] >= figures["pairs"]["value"]
    trained = {p.id.removeprefix("copy-") for p, m in zip(pairs.pairs, pairs.margin_P, strict=True) if m != m}
    assert held_out & trained, "the copies do stand on both sides"


def test_a_reward_for_length_counts_though_labels_of_0_and_1_hide_it(small, read):
    world = small(26)
    world.hard, world.noise, world.strength, world.reward_scale = True, 0.1, 3.0, 0.9
    world.reward_bonus = lambda text: 0.12 * len(text.split())
    _, findings = audit_reward_model(read(world).pairs)
    (fault,) = [f for f in findings if f.what == "length"]
    assert fault.size.low <= 0.12 <= fault.size.high and fault.cost >= 0.005
