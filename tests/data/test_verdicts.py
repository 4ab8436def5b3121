"""Two responses and a verdict, under the names that others use."""

import json
from pathlib import Path

import pytest

from charter.data.preferences import load_preferences, read_preference
from charter.errors import DataError
from charter.export.rows import RunRows
from charter.export.write import write_export
from charter.rating.items import read_items

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="shared data sets are not beside this checkout")


def _said(role, text):
    return {"role": role, "content": text}


def _asked_for_score(response):
    return f"###Task\n\n###The instruction to evaluate:\nhi\n\n###Response to evaluate:\n{response}\n\n###Score Rubrics:\n[x]"


GOOD, BAD = [[_said("user", "hi"), _said("assistant", text)] for text in ("good", "bad")]
PANDALM = {"instruction": "hi", "input": "", "response1": "bad", "response2": "good"}
STUDIO = {"prompt": "Human: hi", "response_a": "bad", "response_b": "good"}
ROWS = [
    ({"input": "hi", "output_1": "good", "output_2": "bad", "label": 1}, 1),
    ({**PANDALM, "annotator1": 2, "annotator2": 2, "annotator3": 2}, 1),
    ({**PANDALM, "annotator1": 2, "annotator2": 1, "annotator3": 0}, 0.5),
    ({**PANDALM, "annotator1": 2, "annotator2": 2, "annotator3": 0}, 5 / 6),
    ({"conversation_a": BAD, "conversation_b": GOOD, "winner": "model_b"}, 1),
    ({"conversation_a": BAD, "conversation_b": GOOD, "winner": "tie (bothbad)"}, 0.5),
    ({"text_correct": "\n\nHuman: hi\n\nAssistant: good", "text_incorrect": "\n\nHuman: hi\n\nAssistant: bad"}, 1),
    ({"input": "hi", "targets": {"choices": ["bad", "good"], "labels": [0, 1]}}, 1),
    ({"chosen_instruction": _asked_for_score("good"), "rejected_instruction": _asked_for_score("bad")}, 1),
    ({"prompt": "hi", "response_0": "bad", "response_1": "good", "safer_response_id": 1}, 1),
    (
        {"input": {"messages": GOOD[:1]}, "preferred_output": GOOD[1:], "non_preferred_output": BAD[1:]},
        1,
    ),
    ({"instruction": "hi", "input": "", "chosen": "good", "rejected": "bad"}, 1),
    ({"prompt": "hi", "chosen": "good", "rejected": "bad", "p_chosen": 0.7}, 0.7),
    (
        {"data": STUDIO, "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "right"}}]}]},
        1,
    ),
]


@pytest.mark.parametrize(("row", "p_good"), ROWS)
def test_shapes(row, p_good):
    pair = read_preference(row, "f:1")
    assert [message.content for message in pair.prompt.messages] == ["hi"]
    assert {pair.response_a, pair.response_b} == {"good", "bad"}
    assert (pair.p_a if pair.response_a == "good" else 1 - pair.p_a) == pytest.approx(p_good)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**PANDALM, "annotator1": 3}, "annotator1 is '3'"),
        ({**PANDALM, "annotator1": None}, "no annotator"),
        ({"conversation_a": BAD, "conversation_b": GOOD, "winner": "gpt-4"}, "winner is 'gpt-4'"),
        ({"input": "hi", "targets": {"choices": ["a", "b"], "labels": [1, 1]}}, "1 for the better"),
        ({"input": "hi", "targets": {"choices": ["a", "b"], "labels": ["x", None]}}, "1 for the better"),
        ({"chosen_instruction": _asked_for_score("x"), "rejected_instruction": "y"}, "one instruction"),
        ({"prompt": "hi", "response_0": "a", "response_1": "b", "safer_response_id": True}, "safer_response_id"),
        ({"input": 3, "preferred_output": GOOD[1:], "non_preferred_output": BAD[1:]}, "messages"),
        ({"prompt": "hi", "chosen": "good", "rejected": "bad", "p_chosen": 0.2}, "from 0.5 to 1"),
        ({"prompt": "hi", "chosen": "good", "rejected": "bad", "p_chosen": "nan"}, "from 0.5 to 1"),
        ({"data": STUDIO, "annotations": [{"was_cancelled": True, "result": []}]}, "nobody has compared"),
        ({"data": STUDIO, "annotations": ["x", {"result": 3}]}, "nobody has compared"),
    ],
)
def test_what_is_no_verdict(row, says):
    with pytest.raises(DataError, match=f"f:1: .*{says}"):
        read_preference(row, "f:1")


def test_who_judges_the_same_two_is_counted_together(tmp_path):
    rows = [
        {"conversation_a": GOOD, "conversation_b": BAD, "winner": "model_a", "judge": "one"},
        {"conversation_a": BAD, "conversation_b": GOOD, "winner": "model_b", "judge": "two"},
        {"conversation_a": GOOD, "conversation_b": BAD, "winner": "model_b", "judge": "three"},
        {"conversation_a": GOOD, "conversation_b": BAD, "winner": "tie", "judge": "four"},
        {"conversation_a": GOOD, "conversation_b": BAD, "winner": "nobody", "judge": "five"},
    ]
    path = tmp_path / "arena.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]), encoding="utf-8")
    (pair,) = load_preferences(path)
    assert (pair.p_a if pair.response_a == "good" else 1 - pair.p_a) == pytest.approx(2.5 / 4)
    assert len(read_items(path, None)) == 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match="winner is 'nobody'"):
        load_preferences(path)


def test_what_label_studio_gives_back(tmp_path):
    sides = {side: [_said("assistant", text)] for side, text in (("chosen", "good"), ("rejected", "bad"))}
    row = {
        "prompt": GOOD[:1],
        **sides,
        "p_chosen": 0.9,
        "chosen_is": "b",
        "pair_id": "p",
        "principle_ids": [],
        "labeler": "l",
    }
    write_export(RunRows(preferences=[row]), "label-studio", tmp_path / "out")
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))
    for task in tasks:  # as Label Studio's JSON export has it, once people have chosen
        results = [
            [{"type": "pairwise", "from_name": "comparison", "value": {"selected": side}}]
            for side in ("left", "left", "right")
        ]
        task["annotations"] = [{"result": result, "was_cancelled": False} for result in results]
    (tmp_path / "done.json").write_text(json.dumps(tasks), encoding="utf-8")
    (pair,) = load_preferences(tmp_path / "done.json")
    assert (pair.p_a if pair.response_a == "bad" else 1 - pair.p_a) == pytest.approx(2 / 3)
    assert [message.content for message in pair.prompt.messages] == ["hi"]


@needs_shared
@pytest.mark.parametrize(
    ("file", "pairs", "soft", "ties", "left_out"),
    [
        ("pandalm/testset-v1.json", 837, 101, 62, 65),
        ("hhh_alignment/hhh_alignment_eval.json", 221, 0, 0, 0),
        ("llmbar/Natural.json", 100, 0, 0, 0),
        ("paper2022/438HHHEvaluations.jsonl", 438, 0, 0, 0),
    ],
)
def test_real_files(file, pairs, soft, ties, left_out):
    faults: list[str] = []
    found = load_preferences(SHARED / file, faults)
    assert (len(found), sum(pair.p_a not in (0, 0.5, 1) for pair in found)) == (pairs, soft)
    assert (sum(pair.p_a == 0.5 for pair in found), len(faults)) == (ties, left_out)
