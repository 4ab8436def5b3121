"""Preference pairs: the same label whatever the shape, sides at random, faults named or counted."""

import json
from pathlib import Path

import pytest

from charter.data.preferences import load_preferences, read_preference, to_trl
from charter.errors import DataError
from charter.records import Message, PreferencePair, Prompt

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="shared data sets are not beside this checkout")
USER = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
SAME = [
    {"prompt": "hi", "chosen": "good", "rejected": "bad"},
    {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    {"prompt": "hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    {"prompt": "hi", "chosen": [GOOD], "rejected": [BAD]},
    {"chosen": "\n\nHuman: hi\n\nAssistant: good", "rejected": "\n\nHuman: hi\n\nAssistant: bad"},
    {
        "conversations": [{"from": "human", "value": "hi"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
]


def _chosen(pair: PreferencePair) -> str:
    return pair.response_a if pair.p_a > 0.5 else pair.response_b


@pytest.mark.parametrize("row", SAME)
def test_every_shape_gives_the_same_pair(row):
    pair = read_preference(row, "f:1")
    assert pair == read_preference(SAME[0], "f:9")
    assert _chosen(pair) == "good" and {pair.response_a, pair.response_b} == {"good", "bad"}
    assert pair.prompt.messages == (Message("user", "hi"),)


def test_sides_do_not_tell_the_label():
    rows = [{"prompt": f"q{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(2000)]
    share = sum(read_preference(row, "f:1").p_a for row in rows) / 2000
    assert 0.45 < share < 0.55  # four standard errors
    for row in rows[:50]:  # sides stay where they are when the label turns
        turned = read_preference({**row, "chosen": row["rejected"], "rejected": row["chosen"]}, "f:1")
        pair = read_preference(row, "f:1")
        assert (turned.response_a, turned.p_a) == (pair.response_a, 1 - pair.p_a)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "hi", "chosen": "x", "rejected": " x"}, "the same"),
        ({"prompt": "hi", "chosen": "x", "rejected": ""}, "empty"),
        ({"prompt": "", "chosen": "x", "rejected": "y"}, "empty"),
        ({"prompt": "hi", "chosen": "x\0", "rejected": "y"}, "NUL"),
        ({"prompt": "hi", "chosen": "x", "rejected": None}, "not text"),
        ({"chosen": "x", "rejected": "y"}, "no prompt"),
        ({"prompt": "hi"}, "expected chosen and rejected"),
        ({"prompt": [GOOD], "chosen": "x", "rejected": "y"}, "user turn"),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "same prompt"),
        ({"response_a": "x"}, "not a preference pair"),
    ],
)
def test_faulty_row(tmp_path, row, says):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(SAME[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=says) as caught:
        load_preferences(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    faults: list[str] = []
    assert len(load_preferences(path, faults)) == 1 and faults == [str(caught.value)]


def test_ours_and_doubles(tmp_path):
    pair = PreferencePair("x", Prompt("p", (Message("user", "hi"),)), "a", "b", 0.7, ("harm",), "me")
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(pair.to_json()) + "\n" + json.dumps(pair.to_json()) + "\n")
    assert load_preferences(path) == [pair]
    path.write_text(
        json.dumps(SAME[0]) + "\n" + json.dumps({"prompt": "hi", "chosen": "bad", "rejected": "good"}) + "\n"
    )
    with pytest.raises(DataError, match=":2: .*another preference"):
        load_preferences(path)


def test_to_trl_and_back():
    pairs = [PreferencePair("x", Prompt("p", (Message("user", "hi"),)), "a", "b", p, (), "me") for p in (0.9, 0.5, 0.2)]
    rows = list(to_trl(pairs))
    assert [(row["chosen"][0]["content"], row["p_chosen"]) for row in rows] == [("a", 0.9), ("b", 0.8)]
    back = read_preference(rows[1], "f:1")
    assert _chosen(back) == "b" and max(back.p_a, 1 - back.p_a) == 0.8


@needs_shared
def test_hh_rlhf():
    faults: list[str] = []
    path = SHARED / "hh_rlhf" / "harmless-half.jsonl.gz"
    pairs = load_preferences(path, faults)
    assert len(pairs) == 1154 and len({pair.id for pair in pairs}) == 1154
    assert [fault.partition(": ")[0].rpartition(":")[2] for fault in faults] == ["44", "259"]
    assert 0.44 < sum(pair.p_a for pair in pairs) / 1154 < 0.56
    with pytest.raises(DataError, match=r"gz:44: .*empty"):
        load_preferences(path)


@needs_shared
def test_sharegpt():
    assert len(load_preferences(SHARED / "alpaca_demo" / "dpo_en_demo.json")) == 295  # of 300, five are there twice
