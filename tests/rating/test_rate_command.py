"""What may be labelled, and what the command refuses before it serves."""

import json
from pathlib import Path

import pytest

from charter.cli.rate import rate
from charter.constitution.load import find_constitution, load_constitution
from charter.errors import CharterError, ConfigError, DataError
from charter.rating.items import read_items
from charter.store.jsonl import write_jsonl


@pytest.fixture
def pairs(tmp_path, make_items) -> Path:
    file = tmp_path / "pairs.jsonl"
    write_jsonl(file, [item.pair for item in make_items(40)])
    return file


def test_each_pair_gets_one_principle_and_keeps_it(pairs):
    constitution = load_constitution(find_constitution("general"))
    items = read_items(pairs, constitution)
    assert items == read_items(pairs, constitution)
    texts = {principle.id: principle.text for principle in constitution.principles}
    assert all(texts[item.principle_id] == item.principle for item in items)
    assert len({item.principle_id for item in items}) > 3
    assert read_items(pairs, None)[0].principle is None


def test_labelled_pairs_are_asked_anew_without_their_label(tmp_path):
    file = tmp_path / "trl.jsonl"
    file.write_text(json.dumps({"prompt": "Hi.", "chosen": "Hello!", "rejected": "Go away."}) + "\n")
    (item,) = read_items(file, None)
    assert {item.pair.response_a, item.pair.response_b} == {"Hello!", "Go away."}
    assert not hasattr(item.pair, "p_a")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"response_a": ""}, "response_a is empty"),
        ({"response_b": "\ud800"}, "lone surrogate"),
        ({"id": 3}, "id is int"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"response_b": "another"}, "same id"),
    ],
)
def test_bad_rows_name_their_line(pairs, change, said):
    first = json.loads(pairs.read_text().splitlines()[0])
    with pairs.open("a") as file:
        file.write(json.dumps(first | change) + "\n")
    with pytest.raises(DataError, match=rf"pairs\.jsonl:41: .*{said}"):
        read_items(pairs, None)


def options(**given):
    plain = dict(constitution=None, db=None, overlap=0.2, host="127.0.0.1", port=0, token=None, export=None)
    return plain | given


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
def test_others_need_a_token(pairs, host):
    with pytest.raises(ConfigError, match="give --token"):
        rate(pairs, **options(host=host))


@pytest.mark.parametrize("token", ["short", "x" * 15, "has spaces in the token", "no;cookie=breaking-here"])
def test_weak_tokens(pairs, token):
    with pytest.raises(ConfigError, match="at least 16 letters"):
        rate(pairs, **options(token=token))


def test_nothing_to_export_yet(pairs, tmp_path):
    with pytest.raises(CharterError, match="make one with charter rate"):
        rate(pairs, **options(export=tmp_path / "out.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl"]


def test_export_as_json(pairs, tmp_path, capsys):
    from charter.store.labels import LabelStore
    from charter.store.sql import open_database

    database = tmp_path / "labels.sqlite"
    LabelStore(open_database(str(database))).add_items(read_items(pairs, None), 0.0)
    out = tmp_path / "out.jsonl"
    rate(pairs, **options(db=str(database), export=out), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["preferences"] == str(out) and told["num_pairs"] == told["num_judgments"] == 0
    assert out.read_text() == Path(told["judgments"]).read_text() == ""


def test_a_stage_of_a_run_gets_no_files_of_ours(pairs):
    from charter.cli.rate import _database

    stage = pairs.parent / "runs" / "first" / "3-sample"
    stage.mkdir(parents=True)
    inside = stage / "pairs.jsonl"
    assert _database(inside) == stage / "pairs.jsonl.labels.sqlite"  # so far it is a folder like others
    (stage.parent / "run.yaml").touch()
    assert _database(inside) == stage.parent.parent / "first.3-sample.labels.sqlite"
    (stage / "pairs.jsonl.labels.sqlite").touch()  # labels that are there stay in use
    assert _database(inside) == stage / "pairs.jsonl.labels.sqlite"
    assert _database(pairs) == pairs.parent / "pairs.jsonl.labels.sqlite"
