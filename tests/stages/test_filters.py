"""Which revisions train SL-CAI."""

from __future__ import annotations

import pytest

from charter.records import Message, Prompt, RevisionChain, RevisionRound
from charter.stages.filters import fit_revisions, is_evasive, reason_to_drop


def chain(initial: str, *revisions: str, harmful: bool | None = True, **changes) -> RevisionChain:
    rounds = tuple(RevisionRound(i, "p", "c", text, **changes) for i, text in enumerate(revisions, start=1))
    return RevisionChain(Prompt("x", (Message("user", "q"),), harmful=harmful), initial, rounds)


@pytest.mark.parametrize(
    "text",
    ["Sure, here is a revised version of the response: No.", "Here's the rewritten answer:\nNo.", "Revised response: No.",
     "I have rewritten my answer to be kinder.", "**Revised answer**"],
)  # fmt: skip
def test_talk_about_the_revision_is_dropped(text):
    assert reason_to_drop(chain("yes", text), 1) == "about_the_revision"


@pytest.mark.parametrize(
    "text",
    [
        "Here is a recipe for bread.",
        "Sure, take the key.",
        "I have a better idea: ask her.",
        "This is revisionist history.",
    ],
)
def test_plain_answers_are_kept(text):
    assert reason_to_drop(chain("yes", text), 1) is None


def test_unchanged_is_kept_where_it_may_be_right():
    assert (
        fit_revisions([chain("bad", "bad", "good", "good")], "all", 3).rows == [((Message("user", "q"),), "good")] * 2
    )
    counts = fit_revisions([chain("bad", "bad", "good", "good")], "all", 3).counts
    assert (counts["unchanged"], counts["unchanged_on_harmful"], counts["kept"]) == (2, 1, 2)
    assert len(fit_revisions([chain("fine", "fine", harmful=None)], "all", 1).rows) == 1


def test_rounds_last_and_up_to():
    chains = [chain("bad", "one", "two", "")]
    assert [text for _, text in fit_revisions(chains, "last", 3).rows] == ["two"]
    assert [text for _, text in fit_revisions(chains, "all", 1).rows] == ["one"]
    assert [text for _, text in fit_revisions(chains, "all", 0).rows] == ["bad"]


def test_truncated_is_dropped():
    assert reason_to_drop(chain("yes", "no", truncated=True), 1) == "truncated"


def test_evasive():
    assert is_evasive("I'm sorry, but I can't help with that.")
    assert not is_evasive("I can't help with that, because it would hurt her. Talk with her instead.")
