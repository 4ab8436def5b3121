"""Data that went in and hardly served is told in words, on the terminal and in the summary."""

from __future__ import annotations

import math

import pytest
from tests.stages.test_beforehand import RUN, prompts

from charter.config import RunConfig
from charter.records import Judgment, ResponsePair, RevisionChain, RevisionRound
from charter.stages.afterwards import of_all, warnings
from charter.stages.label import Labelled, summarize
from charter.stages.train_sft import build_dataset

CONFIG = RunConfig.model_validate({**RUN, "label": {"labeler": {"model": {"source": "l"}}}})


def counted(tmp_path, *, cut: int = 0, empty: int = 0, good: int = 0) -> dict:
    kinds = [("some text", True)] * cut + [("", False)] * empty + [("another", False)] * good
    chains = [
        RevisionChain(prompt, "first", (RevisionRound(1, "p", None, text, truncated),))
        for prompt, (text, truncated) in zip(prompts(*[None] * len(kinds)), kinds, strict=True)
    ]
    _, counts = build_dataset(CONFIG.sft, tmp_path, chains=chains, up_to=1, helpful=[], seed=0)
    return {**counts, "context": 512}


def test_few_revisions_that_are_fit(tmp_path):
    (line,) = warnings(CONFIG, "2-sft", counted(tmp_path, cut=31, good=1))
    assert line == (
        "revisions fit to train on: only 1 of 32; 31 of 32 were cut off: raise revise.sampling.max_new_tokens"
    )
    (line,) = warnings(CONFIG, "2-sft-round-1", counted(tmp_path, cut=1, empty=2, good=2))
    assert (
        "2 of 5 are empty: where a prompt and revise.sampling.max_new_tokens (256) leave no room in the model's" in line
    )
    assert "context of 512 tokens" in line and "; 1 of 5 were cut off" in line
    assert warnings(CONFIG, "2-sft", counted(tmp_path, cut=2, good=2)) == []
    assert warnings(CONFIG, "2-sft", {"filters": {"truncated": 9}}) == [], "an earlier version's summary"
    assert of_all(CONFIG, {"1-revise": {}, "2-sft": counted(tmp_path, cut=1)})[0].startswith(
        "2-sft: revisions fit to train on: only 0 of 1;"
    )


def labelled(*verdicts: tuple[float, float]) -> list[Labelled]:
    """A pair each: P(A better) where A is shown first, and where B is."""
    rows = []
    for number, (prompt, (ab, ba)) in enumerate(zip(prompts(*[None] * len(verdicts)), verdicts, strict=True)):
        pair = ResponsePair(f"pair{number}", prompt, "a", "b")
        judgments = [Judgment(pair.id, "p", order, p, None, "", "l") for order, p in (("ab", ab), ("ba", ba))]
        mean = (math.log(ab / (1 - ab)) + math.log(ba / (1 - ba))) / 2
        rows.append(Labelled(pair, judgments, 1 / (1 + math.exp(-mean))))
    return rows


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        (
            [(0.9, 0.1)] * 15 + [(0.9, 0.8)],
            ["16 labels, 15 of them ties (p_a .5)", "the position in 94% of the questions"],
        ),
        ([(0.5, 0.5)] * 3 + [(0.9, 0.8)], ["4 labels, 3 of them ties (p_a .5)"]),
        ([(0.9, 0.3)] * 2 + [(0.9, 0.8)] * 2, ["the verdict follows the position in 50% of the questions"]),
        ([(0.9, 0.8)] * 4 + [(0.5, 0.5)] * 4, []),
    ],
)
def test_labels_that_say_nothing(verdicts, told):
    found = warnings(CONFIG, "4-label", summarize(labelled(*verdicts), None))
    assert len(found) == bool(told)
    assert all(words in found[0] for words in told)


def test_position_bias_of_questions_that_do_not_weigh_is_no_warning():
    rows = labelled(*[(0.9, 0.1)] * 3, (0.9, 0.8))
    found = summarize(rows, None, min_log_odds=0.7)
    assert found["position_bias"]["value"] == 0.75 and found["position_bias_deciding"]["value"] == 0
    assert "position" not in " ".join(warnings(CONFIG, "4-label", found))
