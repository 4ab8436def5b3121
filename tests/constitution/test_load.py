"""A constitution loads strictly, and every fault names file and line."""

from collections import Counter
from pathlib import Path

import pytest

import charter
from charter.constitution.draw import draw
from charter.constitution.load import Constitution, fill, load_constitution
from charter.errors import ConstitutionError, StoreError
from charter.records import Principle

SHIPPED = sorted((Path(charter.__file__).parent / "constitutions").glob("*.yaml"))
GOOD = """\
name: mine
defaults:
  comparison: "by {principle} which ?"
principles:
  - id: harm
    text: Do no harm.
    weight: 2
  - id: truth
    text: Tell the truth.
    critique_request: "Is {this} true?"
"""


def _load(tmp_path: Path, text: str) -> Constitution:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load_constitution(path)


def test_wording_is_filled_in_one_pass(tmp_path):
    constitution = _load(tmp_path, GOOD)
    harm, truth = constitution.principles
    assert harm.comparison == "by Do no harm. which ?"
    assert truth.critique_request == "Is {this} true?"
    assert "Do no harm." in harm.critique_request and harm.weight == 2
    assert fill("a {principle} b", "{principle} {0.__class__}") == "a {principle} {0.__class__} b"


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("weight: 2", "wieght: 2", 7, "principles[0].wieght: unknown key: did you mean 'weight'?"),
        ("comparison:", "comparision:", 3, "defaults.comparision: unknown key: did you mean 'comparison'?"),
        ("text: Do no harm.", "text: '  '", 6, "principles[0].text"),
        ("text: Tell the truth.", "text: ' do  NO harm. '", 9, "the same text as in line 6"),
        ("id: truth", "id: Harm", 8, "the same id as in line 5"),
        ("weight: 2", "weight: 0", 7, "greater than 0"),
        ("weight: 2", "weight: .nan", 7, "not a finite number"),
        ("weight: 2", "weight: heavy", 7, "must be a number"),
        ("weight: 2", "text: again", 7, "'text' is there twice"),
        ("weight: 2", "weight: &a 2", 7, "anchors"),
        ("weight: 2", "source: !!python/name:os.system x", 7, "tag"),
        ("weight: 2", "weight: {{}: 1}", 7, "plain text"),
        ("weight: 2", "weight: [1", 8, "not valid YAML"),
        ("weight: 2", "weight: " + "[" * 40, 7, "nested deeper"),
        ("    text: Do no harm.\n", "", 5, "text is missing"),
        ("name: mine\n", "", 1, "name is missing"),
    ],
)
def test_fault_is_one_line_with_its_place(tmp_path, old, new, line, says):
    assert old in GOOD
    with pytest.raises(ConstitutionError) as caught:
        _load(tmp_path, GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert f"c.yaml:{line}: " in message and says in message and "\n" not in message


def test_faults_are_counted_once(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: t\nprinciples:\n- {text: a}\n- {text: b}\n- {text: c}\n")
    with pytest.raises(ConstitutionError, match=r"id is missing: add it \(and 2 more\)"):
        load_constitution(path)
    path.write_text("name: t\nprinciples: []\n")
    with pytest.raises(ConstitutionError, match="at least 1 item"):
        load_constitution(path)


@pytest.mark.parametrize("text", ["", "- a\n", "name: x\nprinciples: []\n", "\x00", "a: b: c"])
def test_not_a_constitution(tmp_path, text):
    with pytest.raises(ConstitutionError, match=r"c\.yaml"):
        _load(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(StoreError, match="no such file"):
        load_constitution(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConstitutionError, match="1 MiB"):
        load_constitution(tmp_path / "big.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: x\ndescription: \xe9\n")
    with pytest.raises(ConstitutionError, match=r"latin\.yaml:2: not UTF-8"):
        load_constitution(tmp_path / "latin.yaml")


def test_hash_follows_content_not_layout(tmp_path):
    first = _load(tmp_path, GOOD).hash
    assert _load(tmp_path, "# a comment\n" + GOOD.replace("Do no harm.", "'Do  no   harm.'")).hash == first
    assert _load(tmp_path, GOOD.replace("mine", "yours")).hash == first
    assert _load(tmp_path, GOOD.replace("Do no harm", "Do little harm")).hash != first
    assert _load(tmp_path, GOOD.replace("weight: 2", "weight: 3")).hash != first


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_constitutions_load(path):
    assert len(load_constitution(path).principles) >= 8


def test_general_brings_its_own_wording():
    from charter.constitution.check import check

    general = load_constitution(next(path for path in SHIPPED if path.stem == "general"))
    assert len(general.principles) == 16 and check(general) == []


def _three() -> Constitution:
    weights = {"a": 1, "b": 2, "c": 5}
    return Constitution("c", "", tuple(Principle(id, id, "c", "r", "q", weight) for id, weight in weights.items()))


def test_draws_follow_weights_and_nothing_else():
    counts = Counter(draw(_three(), 0, f"row{i}", "revise")[0].id for i in range(8000))
    for id, weight in zip("abc", (1, 2, 5), strict=True):
        assert abs(counts[id] / 8000 - weight / 8) < 0.02  # four standard errors
    assert draw(_three(), 1, "x", k=2) == draw(_three(), 1, "x", k=2)
    assert sorted(p.id for p in draw(_three(), 1, "x", k=9)) == ["a", "b", "c"]


def test_an_edit_moves_no_draw_between_the_others():
    shorter = Constitution("c", "", _three().principles[1:])
    for i in range(200):
        whole = [p.id for p in draw(_three(), i, k=3) if p.id != "a"]
        assert whole == [p.id for p in draw(shorter, i, k=3)]


def test_a_principle_that_is_plain_text(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: c\nprinciples:\n- be kind\n")
    with pytest.raises(ConstitutionError, match=r"c.yaml:3: principles\[0\]: each principle needs id: and text:$"):
        load_constitution(path)
