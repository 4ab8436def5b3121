"""Trees, scores, thumbs and Hugging Face folders as preference pairs."""

import json
from pathlib import Path

import pytest

from charter.data.preferences import load_preferences
from charter.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="shared data sets are not beside this checkout")


def _load(tmp_path, *rows, faults=None):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [_sides(pair) for pair in load_preferences(tmp_path / "x.jsonl", faults)]


def _sides(pair):
    better = pair.response_a if pair.p_a == 1 else pair.response_b
    worse = pair.response_b if pair.p_a == 1 else pair.response_a
    return [message.content for message in pair.prompt.messages], better, worse


def _node(role, text, *replies, rank=None, **more):
    return {"role": role, "text": text, "replies": list(replies), "rank": rank, **more}


def test_tree(tmp_path):
    follow = _node("prompter", "and?", _node("assistant", "x", rank=1), _node("assistant", "y", rank=0))
    tree = _node(
        "prompter",
        "hi",
        _node("assistant", "worst", rank=2),
        _node("assistant", "best", follow, rank=0),
        _node("assistant", "middle", rank=1),
        _node("assistant", "gone", rank=3, deleted=True),
        _node("assistant", "nobody ranked this"),
    )
    assert _load(tmp_path, {"message_tree_id": "t", "prompt": tree}) == [
        (["hi"], "best", "middle"),
        (["hi"], "best", "worst"),
        (["hi"], "middle", "worst"),
        (["hi", "best", "and?"], "y", "x"),
    ]


def test_scores(tmp_path):
    scores = [
        ("a", {"fine-grained_score": 2.5, "overall_score": 10}),
        ("b", {"overall_score": "4"}),
        ("c", {}),
        ("d", {"overall_score": 4}),
    ]
    row = {"instruction": "hi", "completions": [{"response": text, **more} for text, more in scores]}
    assert _load(tmp_path, row) == [(["hi"], "b", "a"), (["hi"], "d", "a")]
    with pytest.raises(DataError, match="no completion has a score"):
        _load(tmp_path, {"instruction": "hi", "completions": [{"response": "c"}]})


def test_thumbs(tmp_path):
    rows = [("hi", "good", True), ("alone", "good", True), ("hi", "bad", False), ("hi", "worse", False)]
    rows = [{"prompt": prompt, "completion": text, "label": label} for prompt, text, label in rows]
    assert _load(tmp_path, *rows) == [(["hi"], "good", "bad"), (["hi"], "good", "worse")]
    chat = [
        {
            "prompt": [{"role": "user", "content": "hi"}],
            "completion": [{"role": "assistant", "content": c}],
            "label": c == "good",
        }
        for c in ("good", "bad")
    ]
    assert _load(tmp_path, *chat) == [(["hi"], "good", "bad")]
    with pytest.raises(DataError, match="expected true or false"):
        _load(tmp_path, {"prompt": "hi", "completion": "x", "label": 1})


def test_folders_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = [{"prompt": f"hi {i}", "chosen": "good \u2028 =1", "rejected": "bad"} for i in range(5)]
    table = datasets.Dataset.from_list(rows)
    table.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": table.select(range(3)), "test": table.select(range(3, 5))}).save_to_disk(
        str(tmp_path / "two")
    )
    for name in ("one", "two"):
        found = sorted(_sides(pair) for pair in load_preferences(tmp_path / name))
        assert found == [([f"hi {i}"], "good \u2028 =1", "bad") for i in range(5)]
    broken = next((tmp_path / "one").glob("*.arrow"))
    broken.write_bytes(b"\0" * 40 + broken.read_bytes()[40:])
    with pytest.raises(DataError, match="not valid Arrow"):
        load_preferences(tmp_path / "one")


@needs_shared
def test_shared_trees():
    faults = []
    found = load_preferences(SHARED / "oasst" / "en_100_tree.jsonl", faults)
    assert (len(found), len({pair.prompt.id for pair in found}), len(faults)) == (754, 212, 0)
