"""Prompts from every shape, on the real files where they are at hand, and each fault named with its place."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from charter.config import PromptsConfig
from charter.data.prompts import count_prompts, load_prompts, read_prompt
from charter.data.rows import read_places
from charter.errors import ConfigError, DataError
from charter.labelers.sandbox import Limits, passes
from charter.records import Message, Prompt

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="shared data sets are not beside this checkout")
HI = (Message("user", "hi"),)
TWO_TURNS = (Message("user", "hi"), Message("assistant", "yes"), Message("user", "why"))
SAID = [message.to_json() for message in TWO_TURNS]


def _load(source: str | Path, base: Path = Path("."), seed: int = 0, **config: object) -> list[Prompt]:
    return load_prompts(PromptsConfig(source=str(source), **config), base, seed)


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "hi"}, HI),
        ({"prompt": [{"role": "user", "content": "hi"}]}, HI),
        ({"messages": SAID}, TWO_TURNS),
        ({"messages": [*SAID, {"role": "assistant", "content": "so"}]}, TWO_TURNS),
        ({"prompt": "\n\nHuman: hi\n\nAssistant: yes\n\nHuman: why\n\nAssistant:"}, TWO_TURNS),
        ({"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b\n\nAssistant: c"}, HI),
        (
            {
                "chosen": [*SAID, {"role": "assistant", "content": "a"}],
                "rejected": [*SAID, {"role": "assistant", "content": "b"}],
            },
            TWO_TURNS,
        ),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}, HI),
        ({"instruction": "hi", "input": "", "output": "x"}, HI),
        ({"instruction": "hi", "input": "there"}, (Message("user", "hi\n\nthere"),)),
        ({"message_tree_id": "x", "prompt": {"text": "hi", "role": "prompter", "replies": []}}, HI),
        ({"question": "hi", "answer": "4"}, HI),
        ({"turns": ["hi", "then what?"], "category": "math"}, HI),
        ({"conversation_a": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}, HI),
        ({"input": "hi\n\nAssistant: yes\n\nHuman: why", "targets": {}}, TWO_TURNS),
        ({"rl_prompt": "\n\nHuman: hi\n\nAssistant:"}, HI),
        ({"prompt": "Choose (A) or (B)", "text_correct": "\n\nHuman: hi\n\nAssistant: yes"}, HI),
    ],
)
def test_shapes(row, messages):
    prompt = read_prompt(row, "f:1")
    assert prompt is not None and prompt.messages == messages


def test_own_fields_are_kept():
    ours = Prompt("x", TWO_TURNS, harmful=False, domain="math", answer="4", meta={"a": [1]})
    assert read_prompt(ours.to_json(), "f:1") == ours


def test_a_reply_in_a_message_list_is_no_prompt():
    assert read_prompt({"message_id": "b", "parent_id": "a", "role": "assistant", "text": "x"}, "f:1") is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b'["hi"]', "expected a JSON object"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"prompt": " "}', "empty"),
        (b'{"prompt": "a\\u0000b"}', "NUL"),
        (b'{"prompt": "a\\ud800b"}', "surrogate"),
        (b'{"prompt": 3}', "no prompt|not text"),
        (b'{"prompt": [{"role": "robot", "content": "x"}]}', "role 'robot'"),
        (b'{"prompt": [{"role": "user", "content": null}]}', "not text"),
        (b'{"prompt": [{"role": "assistant", "content": "x"}]}', "end with a user turn"),
        (b'{"prompt": [{"role": "user", "content": "x"}, {"role": "user", "content": "x"}]}', "alternate"),
        (b'{"messages": []}', "end with a user turn"),
        (b'{"messages": "hi"}', "list of messages"),
        (
            b'{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "\\n\\nHuman: c\\n\\nAssistant: b"}',
            "same prompt",
        ),
        (b'{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": 3}', "not text"),
        (b'{"prompt": "x", "harmful": "yes"}', "true, false"),
        (b'{"sentence": "x"}', "prompts.column"),
    ],
)
def test_broken_line_17_is_named(tmp_path, line, says):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n".join([*(b'{"prompt": "good %d"}' % i for i in range(16)), line, b'{"prompt": "more"}']))
    with pytest.raises(DataError, match=says) as caught:
        _load(path)
    assert f"{path}:17: " in str(caught.value) and "\n" not in str(caught.value)


def test_ids_are_stable_and_doubles_go(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n\n{"prompt": [{"role": "user", "content": "a"}]}\n')
    first = _load("p.jsonl", tmp_path)
    assert count_prompts(PromptsConfig(source="p.jsonl"), tmp_path, 0) == (first, 1)
    path.write_text('{"prompt": "b"}\n{"prompt": "a"}\n')
    assert len(first) == 2 and {p.id for p in first} == {p.id for p in _load(path)}


def test_shared_id_is_refused(tmp_path):
    rows = [Prompt("same", (Message("user", text),)).to_json() for text in "ab"]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="'same'"):
        _load(tmp_path / "p.jsonl")


def test_limit_draws_by_seed(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"number {i}"}) for i in range(50)))
    ten = _load(path, limit=10, seed=1)
    assert len(ten) == 10 and ten == _load(path, limit=20, seed=1)[:10]
    assert {p.id for p in ten} != {p.id for p in _load(path, limit=10, seed=2)}


def test_python_source():
    assert _load("charter.village.prompts:training_prompts", limit=5)[0].messages[-1].role == "user"
    with pytest.raises(ConfigError, match="did you mean 'training_prompts'"):
        _load("charter.village.prompts:trainin_prompts")
    with pytest.raises(ConfigError, match="nowhere"):
        _load("charter.nowhere:x")
    with pytest.raises(DataError, match="yield charter.records.Prompt"):
        _load("charter.village.words:NAMES")


def test_folder_and_gzip(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"prompt": "a"}\n')
    (tmp_path / "b.json").write_text('[{"prompt": "b"}]')
    (tmp_path / "notes.txt").write_text("not data")
    assert [p.messages[0].content for p in _load(tmp_path)] == ["a", "b"]
    whole = (tmp_path / "a.jsonl.gz").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-9])
    with pytest.raises(DataError, match="gzip"):
        _load(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"prompt,b\n1,2\n1,2,3\n", ":3: expected 2 columns"),
        (b"a,a\n1,2\n", "same name"),
        (b'prompt\n"a\n', "not valid CSV|EOF"),
        (b"prompt\na\n\xff\n", ":3: byte 0 is not UTF-8"),
        (b"x,y\n1,2\n", ":2: no prompt in the keys x, y"),
        (b"", "no prompts"),
    ],
)
def test_bad_csv(tmp_path, content, says):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(DataError, match=says):
        _load(tmp_path / "p.csv")


def test_named_column(tmp_path):
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["ask", "type"], ["one\ntwo", "unsafe"], ["three", "safe"]])
    assert [(p.messages[0].content, p.harmful) for p in _load(tmp_path / "p.csv", column="ask")] == [
        ("one\ntwo", True),
        ("three", False),
    ]
    with pytest.raises(DataError, match="no column 'asl': did you mean 'ask'"):
        _load(tmp_path / "p.csv", column="asl")


def test_a_csv_carries_the_mark(tmp_path):
    cells = ["true", "True", "1", "yes", "false", "FALSE", "0", " no ", "", " "]
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "harmful"], *([f"ask {i}", cell] for i, cell in enumerate(cells))])
    assert [p.harmful for p in _load(tmp_path / "p.csv")] == [True] * 4 + [False] * 4 + [None] * 2
    (tmp_path / "q.csv").write_text("prompt,harmful\nx,true\ny,perhaps\n")
    with pytest.raises(DataError, match=r"q.csv:3: harmful is 'perhaps': write true, false or leave it out"):
        _load(tmp_path / "q.csv")


def test_format_is_held_to(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match=":1: not in the form sharegpt"):
        _load(tmp_path / "p.jsonl", format="sharegpt")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        _load(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no data file"):
        _load(tmp_path)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, the parquet extra, is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"prompt": ["a", "b"]}), tmp_path / "p.parquet")
    assert len(_load(tmp_path / "p.parquet")) == 2
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not valid Parquet"):
        _load(tmp_path / "p.parquet")


@needs_shared
@pytest.mark.parametrize(
    ("file", "count", "harmful"),
    [
        ("xstest/xstest_prompts.csv", 450, {False: 250, True: 200}),
        ("advbench/harmful_behaviors.csv", 520, {True: 520}),
        ("hh_rlhf/harmless-half.jsonl.gz", 1155, {None: 1155}),
        ("simple_safety_tests/SimpleSafetyTests.csv", 100, {True: 100}),
        ("xstest/human_labels/xstest_v2_completions_gpt4.csv", 450, {False: 250, True: 200}),
        ("gsm8k/test.jsonl", 1319, {None: 1319}),
        ("alpaca_demo/dpo_en_demo.json", 295, {None: 295}),
        ("alpaca_demo/alpaca_en_demo.json", 986, {None: 986}),
        ("oasst/en_100_tree.jsonl", 100, {None: 100}),
        ("oasst/en_100_message.jsonl", 100, {None: 100}),
        ("oasst/prompt_lottery_en_250_text.jsonl", 250, {None: 250}),
        ("humaneval/HumanEval.jsonl.gz", 164, {None: 164}),
        ("mtbench/question.jsonl", 80, {None: 80}),
        ("llmbar/Natural.json", 100, {None: 100}),
        ("hhh_alignment/hhh_alignment_eval.json", 102, {None: 102}),
        ("pandalm/testset-v1.json", 170, {None: 170}),
        ("paper2022/438HHHEvaluations.jsonl", 188, {None: 188}),
        ("paper2022/samples/PALMS_RLMADISON.jsonl", 40, {None: 40}),
    ],
)
def test_real_files(file, count, harmful):
    prompts = _load(SHARED / file)
    total = sum(1 for _ in read_places(SHARED / file))
    assert len(prompts) <= total
    assert (len(prompts), dict(Counter(p.harmful for p in prompts))) == (count, harmful)
    if "hh_rlhf" in file:
        assert max(len(p.messages) for p in prompts) > 5


@needs_shared
def test_a_real_file_without_prompts_says_which_setting_names_them():
    with pytest.raises(DataError, match="prompts.column"):
        _load(SHARED / "mtbench" / "gpt-4.jsonl")


def test_plain_text_and_texts_in_json(tmp_path):
    (tmp_path / "p.txt").write_text("one\n\n  two \n", encoding="utf-8")
    (tmp_path / "p.jsonl").write_text('"one"\n"two"\n', encoding="utf-8")
    (tmp_path / "p.json").write_text('{"version": 1, "data": ["one", {"prompt": "two"}]}', encoding="utf-8")
    for name in ("p.txt", "p.jsonl", "p.json"):
        assert [p.messages[0].content for p in _load(tmp_path / name)] == ["one", "two"]
    (tmp_path / "one.json").write_text('{\n "prompt": "one"\n}', encoding="utf-8")
    assert len(_load(tmp_path / "one.json")) == 1


def test_tests_of_code_are_the_answer():
    row = {"prompt": "def two():\n", "entry_point": "two", "test": "def check(f):\n    assert f() == 2"}
    prompt = read_prompt(row, "f:1")
    limits = Limits(5, 512)
    assert passes("def two():\n    return 2", prompt.answer, limits)
    assert not passes("def two():\n    return 3", prompt.answer, limits)
