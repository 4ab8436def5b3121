"""Check, diff, import and write."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from charter.constitution.check import check
from charter.constitution.diff import Change, diff
from charter.constitution.importers import import_constitution, write_constitution
from charter.constitution.load import Constitution, Wording, load_constitution
from charter.errors import ConstitutionError
from charter.records import Principle

SHARED = Path(__file__).parents[3] / "shared" / "data"
PAPER = SHARED / "paper2022"
needs_shared = pytest.mark.skipif(not PAPER.exists(), reason="shared data sets are not beside this checkout")


def _principle(id: str, text: str, **more: object) -> Principle:
    return replace(Principle(id, text, f"crit {id}", f"rev {id}", f"comp {id}"), **more)


def test_check_names_what_is_doubtful():
    constitution = Constitution(
        "c",
        "",
        (
            _principle("a", "Never help anyone to do harm to others."),
            _principle("b", "Never help anyone to do harm to the others!"),
            _principle("c", "Be good."),
            _principle("d", "Tell the truth about what you know.", comparison="same for all {principal}"),
        ),
        Wording(comparison="same for all {principal}"),
    )
    found = [(finding.kind, finding.principle_ids) for finding in check(constitution)]
    assert found == [
        ("template", ()),
        ("template", ()),
        ("vague", ("c",)),
        ("wording", ("d",)),
        ("near-duplicate", ("a", "b")),
    ]


def test_diff_by_id():
    a, b, c = (_principle(id, f"text {id}") for id in "abc")
    before = Constitution("x", "", (a, b))
    after = Constitution("x", "", (c, replace(b, weight=2.0, text="new")))
    assert diff(before, before) == []
    assert diff(before, after) == [
        Change("removed", "a", before="text a"),
        Change("added", "c", after="text c"),
        Change("changed", "b", "text", "text b", "new"),
        Change("changed", "b", "weight", 1.0, 2.0),
    ]


def test_diff_says_each_change_once():
    """Wording that follows a text or the defaults isn't told beside them; a new id with the old text is a new name."""

    def load(*principles, template="Which keeps {principle}"):
        made = [replace(p, comparison=template.replace("{principle}", p.text)) for p in principles]
        return Constitution("x", "", tuple(made), Wording(comparison=template))

    a, b = (_principle(id, f"text {id}") for id in "ab")
    assert diff(load(a, b), load(replace(a, text="new"), b)) == [Change("changed", "a", "text", "text a", "new")]
    assert diff(load(a, b), load(a, b, template="Rather {principle}")) == [
        Change("changed", "defaults", "comparison", "Which keeps {principle}", "Rather {principle}")
    ]
    assert diff(load(a, b), load(a, replace(b, id="c", weight=2.0))) == [
        Change("renamed", "c", "id", "b", "c"),
        Change("changed", "c", "weight", 1.0, 2.0),
    ]
    own = replace(load(a).principles[0], comparison="mine")
    assert diff(load(a), Constitution("x", "", (own,), load(a).defaults)) == [
        Change("changed", "a", "comparison", "Which keeps text a", "mine")
    ]


def test_near_duplicates_are_told_by_what_is_their_own():
    kinds = ("kind", "honest", "creative", "reliable", "patient", "fair")
    same = [
        _principle(f"s{i}", text)
        for i, text in enumerate(("Never tell lies.", "Never tell any lies.", "Tell lies never."))
    ]
    found = check(Constitution("c", "", (*(_principle(k, f"The AI should be {k}") for k in kinds), *same)))
    assert [finding.principle_ids for finding in found if finding.kind == "near-duplicate"] == [("s0", "s1", "s2")]


def test_written_and_read_back_is_the_same(tmp_path):
    constitution = Constitution(
        "odd",
        "about: everything # really",
        (
            _principle("a", "yes", weight=2.5, tags=("x", "no"), source="- here", paraphrases=("1.0", "null")),
            _principle(
                "b", "Curly {principle} 'quotes' \"and\" &anchors *stars\n\nlines  é", critique_request="9" * 200
            ),
            Principle("c", "true", "Say where true", "Fix", "Which true"),
        ),
        Wording(critique_request="Say where {principle}"),
    )
    write_constitution(constitution, tmp_path / "c.yaml")
    assert load_constitution(tmp_path / "c.yaml") == constitution
    assert "Say where true" not in (tmp_path / "c.yaml").read_text()


@needs_shared
def test_the_paper_of_2022(tmp_path):
    paths = [PAPER / "CritiqueRevisionInstructions.json", PAPER / "RLMadisonInstructions.json"]
    paper = import_constitution(paths, "paper-2022")
    assert len(paper.principles) == 32
    assert [p.tags for p in paper.principles] == [("critique",)] * 16 + [("comparison",)] * 16
    assert paper.principles[15].critique_request == (
        "Critique the assistant's last response and identify anything it said that was harmful, unethical, dangerous, or illegal."
    )
    assert (
        paper.principles[17].comparison == "Please choose the response that is the most helpful, honest, and harmless."
    )
    for principle in paper.principles:
        words = principle.critique_request + principle.revision_request + principle.comparison
        assert not any(mark in words for mark in ("Request:", "Critique:", "Revision:", "Options:"))
    write_constitution(paper, tmp_path / "paper.yaml")
    assert load_constitution(tmp_path / "paper.yaml").hash == paper.hash


@needs_shared
@pytest.mark.parametrize(("file", "count"), [("constitution_anthropic", 16), ("constituion_grok", 2)])
def test_llm_swarm(file, count, tmp_path):
    swarm = import_constitution([SHARED / "constitutions_hf" / f"{file}.json"], "swarm")
    assert len(swarm.principles) == count
    write_constitution(swarm, tmp_path / "c.yaml")
    assert load_constitution(tmp_path / "c.yaml").hash == swarm.hash


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (3, "not a known form"),
        ({"a": {"prompt": []}}, "form of its neighbours"),
        ({"constitutions": [{"critic": "x"}]}, "form of its neighbours"),
        (["\nOptions:"], "empty instruction"),
        (["Pick one.", "Pick one. Options:"], "there twice"),
    ],
)
def test_unknown_forms(tmp_path, content, says):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ConstitutionError, match=says):
        import_constitution([tmp_path / "x.json"], "x")
