"""The chain that a run has: four links with a constitution, three without, none where no label takes part."""

import dataclasses

import numpy as np
import pytest

from charter.audit.chain import chain_of, reads_constitution
from charter.audit.evidence import read_evidence
from charter.audit.links import waterfall


@pytest.fixture(scope="module")
def evidence(clean_run):
    return read_evidence(clean_run)


@pytest.fixture(scope="module")
def falls(evidence):
    return waterfall(evidence.pairs, np.full(len(evidence.pairs.pairs), np.nan), "no model")


def labelled(evidence, **labeler):
    """The same labels, given by somebody who reads no principle."""
    pairs = dataclasses.replace(evidence.pairs, judged_PKO=np.full_like(evidence.pairs.judged_PKO, np.nan))
    return dataclasses.replace(evidence, pairs=pairs, config={**evidence.config, "label": {"labeler": labeler}})


def test_four_links_with_a_constitution(evidence, falls):
    told = chain_of(evidence, falls)
    assert [row["link"] for row in told["links"]] == [row["link"] for row in falls["links"]]


def test_three_links_of_peoples_labels_that_lose_as_much_together(evidence, falls):
    told = chain_of(labelled(evidence, kind="human"), falls)["links"]
    assert [row["link"] for row in told] == ["goal_to_labels", "labeler_to_reward_model", "reward_model_to_policy"]
    first, second = (row["loss"]["value"] for row in falls["links"][:2])
    assert told[0]["loss"]["value"] == pytest.approx(first + second)
    assert told[0]["loss"]["low"] <= told[0]["loss"]["value"] <= told[0]["loss"]["high"]


@pytest.mark.parametrize(
    ("labeler", "reads"),
    [
        ({"kind": "direct", "principles": "all"}, True),
        ({"kind": "direct", "principles": "none"}, False),
        ({"kind": "plain"}, False),
        ({"kind": "checker"}, False),
        ({}, False),
    ],
)
def test_who_reads_the_constitution(evidence, labeler, reads):
    assert reads_constitution(labelled(evidence, **labeler)) is reads


def test_a_reward_that_is_no_reward_model(evidence, falls):
    config = {**evidence.config, "policy": {"reward": {"kind": "checker"}}}
    told = chain_of(dataclasses.replace(evidence, config=config), falls)
    assert told["links"] == [] and "reward" in told["reason"]
