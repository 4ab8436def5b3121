"""A run's data, read back by the libraries that it is written for."""

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.tiny import save_tiny_model
from typer.testing import CliRunner

from charter.cli.main import app
from charter.data.preferences import load_preferences
from charter.errors import StoreError
from charter.export.columns import COLUMNS
from charter.export.rows import RunRows, read_run
from charter.export.write import write_export
from charter.records import Judgment, Message, PreferencePair, Prompt, RevisionChain
from charter.sources import public_name, without_folders
from charter.store.jsonl import write_jsonl

HOSTILE = ("=1+1", "a\n---\nb", "<|endoftext|></s>", "\u2028\u202ex", "half \ud800", "nul \0", "plain")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    prompts = [
        Prompt(f"p{i}", (Message("user", text),), harmful=[None, True][i % 2], answer=["4", None][i % 2])
        for i, text in enumerate(HOSTILE)
    ]
    pairs = [
        PreferencePair(
            f"pair{i}", prompt, f"{text} one", f"{text} two", (0.9, 0.2, 0.5)[i % 3], ("harm",), "/home/me/judge"
        )
        for i, (prompt, text) in enumerate(zip(prompts, HOSTILE, strict=True))
    ]
    for stage in ("1-revise", "2-sft", "4-label"):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "done.json").write_text("{}")
    write_jsonl(folder / "1-revise" / "revisions.jsonl", [RevisionChain(prompt, "x", ()) for prompt in prompts])
    sft = [
        {
            "prompt": [m.to_json() for m in p.messages],
            "completion": [Message("assistant", "ok").to_json()],
            "source": "revision",
        }
        for p in prompts
    ]
    write_jsonl(folder / "2-sft" / "dataset.jsonl", sft)
    write_jsonl(folder / "4-label" / "preferences.jsonl", pairs)
    write_jsonl(folder / "4-label" / "judgments.jsonl", [Judgment(pair.id, "harm", "ab", pair.p_a) for pair in pairs])
    return folder


def _export(run, to, *more):
    result = CliRunner().invoke(app, ["export", str(run), "--to", to, "--json", *more])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def _mended(text):
    return text.replace("\ud800", "\ufffd").replace("\0", "\ufffd")


@pytest.fixture(scope="module")
def libraries():
    """Imported once: TRL pulls in much, and takes seconds on a busy machine."""
    return (
        pytest.importorskip("datasets", reason="datasets is not installed"),
        pytest.importorskip("trl", reason="trl is not installed").is_conversational,
    )


def test_trl_loads_what_was_written(run, tmp_path, libraries):
    datasets, is_conversational = libraries
    told = _export(run, "trl", "--out", str(tmp_path / "out"))
    assert told["files"] == {"preferences.jsonl": 5, "sft.jsonl": 7, "prompts.jsonl": 7}
    assert told["num_ties_left_out"] == 2 and told["num_texts_replaced"] > 0
    found = {name: _loaded(datasets, tmp_path, name) for name in COLUMNS}
    for name, table in found.items():
        assert is_conversational(table[0]) and list(table.features) == list(COLUMNS[name])
    first, second = found["preferences"][0], found["preferences"][1]
    assert (first["chosen"][0]["content"], first["p_chosen"], first["chosen_is"]) == ("=1+1 one", 0.9, "a")
    assert (second["chosen"][0]["content"], second["p_chosen"]) == ("a\n---\nb two", 0.8)
    assert second["votes"][0]["p_chosen"] == 0.8 and first["labeler"] == "judge" and first["harmful"] is None


def _loaded(datasets, tmp_path, name):
    return datasets.load_dataset(str(tmp_path / "out"), name, split="train", cache_dir=str(tmp_path / "cache"))


def test_a_value_that_comes_late_is_loaded(run, tmp_path, libraries):
    """datasets guesses types by a file's first 10 MB, where a rare column may be null throughout."""
    rows = read_run(run)
    early = {**rows.prompts[0], "answer": None, "prompt": [{"role": "user", "content": "x" * 100_000}]}
    write_export(RunRows(prompts=[early] * 110 + [{**early, "answer": "7"}]), "trl", tmp_path / "out")
    assert _loaded(libraries[0], tmp_path, "prompts")[110]["answer"] == "7"


def test_two_runs_folders_of_one_name_are_two_data_sets(run, tmp_path, libraries):
    for folder, answer in (("one", "1"), ("two", "2")):
        prompt = {**read_run(run).prompts[0], "answer": answer}
        write_export(RunRows(prompts=[prompt]), "trl", tmp_path / folder / "out")
    load, cache = libraries[0].load_dataset, str(tmp_path / "cache")
    tables = [load(str(tmp_path / name / "out"), "prompts", split="train", cache_dir=cache) for name in ("one", "two")]
    assert [table[0]["answer"] for table in tables] == ["1", "2"]


@pytest.mark.filterwarnings("ignore")  # of the libraries: about names that they change
def test_trls_trainers_take_a_step_on_it(run, tmp_path, libraries):
    trl = pytest.importorskip("trl", reason="trl is not installed")
    _export(run, "trl", "--out", str(tmp_path / "out"))
    tables = {name: _loaded(libraries[0], tmp_path, name) for name in COLUMNS}
    folder = save_tiny_model(tmp_path / "model")
    told = {"max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, "bf16": False}
    for trainer, config, name in (
        (trl.SFTTrainer, trl.SFTConfig, "sft"),
        (trl.RewardTrainer, trl.RewardConfig, "preferences"),
        (trl.DPOTrainer, trl.DPOConfig, "preferences"),
    ):
        arguments = config(str(tmp_path / "trainer"), save_strategy="no", disable_tqdm=True, **told)
        result = trainer(str(folder), args=arguments, train_dataset=tables[name]).train()
        assert result.global_step == 1 and 0 < result.training_loss < 20


@pytest.mark.parametrize("to", ["trl-standard", "csv"])
def test_plain_texts(run, tmp_path, to):
    told = _export(run, to, "--out", str(tmp_path / "out"))
    assert list(told["files"].values()) == [5, 7, 7]
    if to == "csv":
        with (tmp_path / "out" / "preferences.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        cells = [cell for row in rows for cell in row.values()]
        assert rows[0]["chosen"] == "'=1+1 one" and not any(
            cell.startswith(("=", "+", "-", "@", "\n")) for cell in cells
        )
    else:
        rows = [json.loads(line) for line in (tmp_path / "out" / "preferences.jsonl").read_bytes().splitlines()]
        assert rows[0]["chosen"] == "=1+1 one"
    assert rows[1]["prompt"] == "a\n---\nb" and "votes" not in rows[0]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=3, max_size=3))
def test_round_trip_of_hostile_text(texts):
    prompt, one, two = (f"x{text}x" for text in texts)
    two += "2"
    with TemporaryDirectory() as name:
        run = Path(name) / "run"
        (run / "4-label").mkdir(parents=True)
        (run / "4-label" / "done.json").write_text("{}")
        pair = PreferencePair("p", Prompt("q", (Message("user", prompt),)), one, two, 0.9, ("harm",))
        write_jsonl(run / "4-label" / "preferences.jsonl", [pair])
        write_jsonl(run / "4-label" / "judgments.jsonl", [])
        for to, file in (
            ("trl", "preferences.jsonl"),
            ("trl-standard", "preferences.jsonl"),
            ("csv", "preferences.csv"),
        ):
            write_export(read_run(run), to, Path(name) / to)
            (read,) = load_preferences(Path(name) / to / file)
            assert read.prompt.messages[0].content == prompt and {read.response_a, read.response_b} == {one, two}
            assert (read.p_a if read.response_a == one else 1 - read.p_a) == pytest.approx(0.9)


def test_our_own_reader_gets_the_same_pairs(run, tmp_path):
    _export(run, "trl", "--out", str(tmp_path / "out"))
    read = load_preferences(tmp_path / "out" / "preferences.jsonl")
    sides = {frozenset((pair.response_a, pair.response_b)) for pair in read}
    kept = [text for i, text in enumerate(HOSTILE) if i % 3 != 2]
    assert sides == {frozenset((_mended(f"{text} one"), _mended(f"{text} two"))) for text in kept}


def test_verl_columns(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, the parquet extra, is not installed")
    _export(run, "verl", "--out", str(tmp_path / "out"))
    rows = parquet.read_table(tmp_path / "out" / "rl.parquet").to_pylist()
    assert list(rows[0]) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert rows[0]["reward_model"] == {"style": "rule", "ground_truth": "4"}
    assert (
        rows[1]["reward_model"] == {"style": "model", "ground_truth": ""} and rows[1]["extra_info"]["harmful"] is True
    )
    assert [row["prompt"][0]["content"] for row in rows] == [_mended(text) for text in HOSTILE]
    assert [m["role"] for m in parquet.read_table(tmp_path / "out" / "sft.parquet").to_pylist()[0]["messages"]] == [
        "user",
        "assistant",
    ]


def test_label_studio_keeps_sides_and_hides_the_verdict(run, tmp_path):
    _export(run, "label-studio", "--out", str(tmp_path / "out"))
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert [task["data"]["response_a"] for task in tasks[:2]] == ["=1+1 one", "a\n---\nb one"]
    assert tasks[1]["meta"]["chosen_is"] == "b" and not {"p_chosen", "chosen_is"} & tasks[1]["data"].keys()


def test_refusals_and_names(run, tmp_path):
    with pytest.raises(StoreError, match="run it first"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    result = CliRunner().invoke(app, ["export", str(run), "--to", "trl", "--out", str(tmp_path / "full")])
    assert isinstance(result.exception, StoreError) and (tmp_path / "full" / "x").read_text() == "mine"
    assert [public_name(s) for s in ("/a/b", "org/name", "C:\\x\\y", "http://h/v1")] == [
        "b",
        "org/name",
        "y",
        "http://h/v1",
    ]


def test_a_run_file_is_shown_without_the_folders_of_this_machine():
    text = 'a: "/home/me/x y/w.yaml"\nb: http://h/v1#m\nc: C:\\me\\y\nd:\n- ~/z\ne: org/name\nf: package.module:thing\n'
    shown = 'a: "…/w.yaml"\nb: http://h/v1#m\nc: …/y\nd:\n- …/z\ne: org/name\nf: package.module:thing\n'
    assert without_folders(text) == shown
