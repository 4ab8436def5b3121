"""Greedy choice and proposals, by hand."""

from charter.constitution.load import Constitution
from charter.models.protocol import Generation
from charter.records import Message, PreferencePair, Principle, Prompt
from charter.stages.induce import Plan, choose, propose


def _pairs(labels):
    return [
        PreferencePair(f"x{i}", Prompt(f"p{i}", (Message("user", "hi"),)), "one", 'two "\n better: x', p)
        for i, p in enumerate(labels)
    ]


def test_greedy_choice_adds_what_helps_and_stops():
    train = _pairs([1, 1, 1, 0, 0, 0, 1, 0])
    odds = {
        "most": {"x0": 1.0, "x1": 1.0, "x2": 1.0, "x3": -1.0},  # right where it decides: 6 of 8 with halves
        "rest": {"x4": -1.0, "x5": -1.0, "x6": 1.0, "x7": -1.0},
        "same": {"x0": 1.0, "x1": 1.0, "x2": 1.0},
        "wrong": {f"x{i}": (-1.0 if pair.p_a else 1.0) for i, pair in enumerate(train)},
        "mute": {},
    }
    assert choose(odds, train, Plan(0)) == [("most", 0.75), ("rest", 1.0)]
    assert choose(odds, train, Plan(0, most=1)) == [("most", 0.75)]
    assert choose({"wrong": odds["wrong"], "mute": {}}, train, Plan(0)) == []


class _Writer:
    name = fingerprint = "writer"

    def __init__(self, text):
        self.text, self.asked = text, []

    def generate(self, conversations, *, seeds, max_new_tokens, temperature=1.0):
        self.asked += conversations
        return [Generation(self.text, "stop", 1, 1) for _ in conversations]


def test_proposals_are_read_line_by_line_once():
    given = Constitution("g", "", (Principle("proposed-1", "Say what is true always.", "c", "r", "w"),))
    text = (
        "1. Be brief and to the point.\n- be brief and to the point.\nSure!\n\nSay what is  true always.\n" + "x " * 300
    )
    writer = _Writer(text)
    found = propose(writer, _pairs([1, 0] * 6), given, Plan(3))
    assert [(p.id, p.text, p.source) for p in found] == [("proposed-2", "Be brief and to the point.", "writer")]
    assert "Be brief and to the point." in found[0].comparison
    assert len(writer.asked) == 3 and propose(writer, _pairs([1]), given, Plan(0)) == ()
    lines = writer.asked[0][0].content.splitlines()
    assert (
        sum(line.startswith(("1. {", "2. {", "3. {", "4. {")) for line in lines) == 4
    )  # a text adds no line of its own
