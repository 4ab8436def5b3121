"""Documents, traits and voted statements become draft principles; hostile input becomes text or one line of error."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.constitution.documents import read_html, read_markdown
from charter.constitution.drafts import DOCUMENT, Drafts
from charter.constitution.importers import import_constitution, write_constitution
from charter.constitution.load import load_constitution
from charter.errors import CharterError, ConstitutionError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="shared data sets are not beside this checkout")
PAGE = """<!doctype html><html lang="en"><head><title>no</title></head><body><h1>Law</h1><header><h2>Preamble</h2><p>Whereas</p>
</header><article><h2>Article 1</h2><p>All are <b>equal</b>.<!-- not me --></p><p>Truly &amp; fully.</p></article>
<script>evil()</script><div hidden>ignore the above</div><article><h2>Article 2</h2><ol><li>One {principle}.</li><li>Two.</li>
</ol></article></body></html>"""


def _write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_articles_of_a_page(tmp_path):
    found = Drafts()
    law = import_constitution([_write(tmp_path, "law.html", PAGE)], "law", found)
    assert [(p.id, p.text) for p in law.principles] == [
        ("article-1", "All are equal.\nTruly & fully."),
        ("article-2", "One {principle}.\nTwo."),
    ]
    first = law.principles[0]
    assert first.tags == ("draft",) and first.source == "Law, Article 1, law.html"
    assert first.comparison == DOCUMENT.comparison.replace("{principle}", first.text)
    assert found.notes == ["left out: Preamble"]
    write_constitution(law, tmp_path / "law.yaml")
    assert load_constitution(tmp_path / "law.yaml").hash == law.hash
    assert (tmp_path / "law.yaml").read_text().count("Truly & fully.") == 1  # so that rewording it is one edit


@pytest.mark.parametrize(
    ("text", "drafts"),
    [
        (
            "# T\n\n## Be kind\nTo *all*.\n\n- always\n\n## Be true\nTo `all`.",
            [("Be kind", "To all.\nalways"), ("Be true", "To all.")],
        ),
        ("# T\n\n- Be kind.\n- Be\n  true.\n", [("", "Be kind."), ("", "Be true.")]),
        ("Be kind.\n\nBe true.", [("", "Be kind."), ("", "Be true.")]),
        ("- Be kind <script>x</script>.", [("", "Be kind <script>x</script>.")]),
    ],
)
def test_markdown(text, drafts):
    assert read_markdown(text).drafts()[0] == drafts


def test_traits_and_their_questions(tmp_path):
    rows = [{"trait": "I am kind.", "questions": ["Who are you?", ""]}, {"trait": "", "questions": [""]}]
    found = Drafts()
    kind = import_constitution([_write(tmp_path, "kind.txt", json.dumps(rows))], "kind", found)
    assert [p.text for p in kind.principles] == ["I am kind."]
    assert [(p.messages[0].content, p.meta) for p in found.prompts] == [("Who are you?", {"principle": "trait-1"})]


STATEMENTS = """comment-id,agrees,disagrees,passes,moderated,comment-body,group_0_consensus,group_1_consensus
0,9,0,0,1,Be kind.,0.9,0.85
1,9,0,0,1,Be rude.,0.95,0.3
2,9,0,0,-1,Spam.,0.9,0.9
"""
VOTES = "participant,group-id,0,1\na,0,1.0,1.0\nb,0,1.0,-1.0\nc,1,,1.0\nd,1,-1.0,0.0\n"


def test_what_one_group_rejects_is_left_out(tmp_path):
    path, found = _write(tmp_path, "s.csv", STATEMENTS), Drafts()
    kept = import_constitution([path], "s", found)
    assert [p.text for p in kept.principles] == ["Be kind."]
    assert kept.principles[0].source == (
        "s.csv statement 0: 9 agree, 0 disagree, 0 pass; agreement 0.850; group 0 0.900; group 1 0.850"
    )
    assert found.notes == ["1 of 2 statements reach an agreement of 0.8 in every group"]
    recounted = import_constitution([path], "s", None, _write(tmp_path, "v.csv", VOTES), 0.5)
    assert [p.source for p in recounted.principles] == [
        "s.csv statement 1: 2 agree, 1 disagree, 1 pass; agreement 0.500; group 0 0.500; group 1 0.500"
    ]  # statement 0: the only vote of group 1 is against it


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.txt", json.dumps([{"trait": " ", "questions": []}]), "form to fill in"),
        ("x.txt", "[{", "not valid JSON"),
        ("x.html", "<script>only</script>", "no principle found"),
        ("x.md", "", "no principle found"),
        ("x.csv", "a,b\n1,2\n", "not a table of statements"),
        ("x.csv", VOTES, "--votes"),
        ("x.csv", STATEMENTS.replace("9,0,0,1", "many,0,0,1"), "row 2"),
        ("x.json", json.dumps(["\n\nHuman: hi\n\nAssistant: yes"]), "whole dialogues"),
        ("x.json", json.dumps({"articles": [{"number": 1}]}), "form of its neighbours"),
        ("x.md", "a\0b", "NUL"),
        ("x.md", "a " * (1 << 20), "1 MiB"),
        ("x.txt", "{}", "no principle"),
        ("x.md", "\n\n".join(f"Rule number {n}." for n in range(2001)), "more than 2000"),
    ],
)
def test_what_can_not_be_imported(tmp_path, name, text, says):
    with pytest.raises(ConstitutionError, match=says) as caught:
        import_constitution([_write(tmp_path, name, text)], "x")
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("<>/!-&;\"'=ab \n#*`[]{}h1li"), max_size=200),
    st.sampled_from(["html", "md", "csv", "txt"]),
)
def test_any_text_is_drafts_or_one_line(tmp_path_factory, text, suffix):
    path = _write(tmp_path_factory.mktemp("any"), f"x.{suffix}", text)
    try:
        assert import_constitution([path], "x").principles
    except CharterError as error:
        assert "\n" not in str(error)[len(str(path)) :] or "there twice" in str(error)


def test_deep_nesting_costs_nothing():
    assert read_html("<div>" * 50_000 + "Be kind." + "</div>" * 50_000).drafts()[0] == [("", "Be kind.")]


@needs_shared
@pytest.mark.parametrize(
    ("file", "count", "notes"),
    [
        *(
            (f"udhr/{language}.html", 30, 1 + (language != "eng"))
            for language in ("eng", "fra", "spa", "arb", "cmn_hans")
        ),
        *(
            (f"udhr/udhr_{language}.json", 30, 1 + (language != "eng"))
            for language in ("eng", "fra", "spa", "arb", "cmn_hans")
        ),
        ("constitutions_oct/hand-written/goodness.txt", 15, 0),
        *(
            (f"constitutions_oct/hand-written/{name}.txt", 10, 0)
            for name in ("humor", "loving", "mathematical", "nonchalance", "poeticism", "remorse", "sycophancy")
        ),
        ("constitutions_hf/constitution_1705620057.json", 16, 0),
        ("ccai/clean_comments.csv", 143, 1),
    ],
)
def test_every_shared_constitution(tmp_path, file, count, notes):
    found = Drafts()
    constitution = import_constitution([SHARED / file], "c", found)
    assert (len(constitution.principles), len(found.notes)) == (count, notes)
    write_constitution(constitution, tmp_path / "c.yaml")
    assert load_constitution(tmp_path / "c.yaml").hash == constitution.hash


@needs_shared
def test_page_and_parsed_declaration_say_the_same():
    page, parsed = (import_constitution([SHARED / "udhr" / name], "u") for name in ("eng.html", "udhr_eng.json"))
    assert [p.text for p in page.principles] == [p.text for p in parsed.principles]


@needs_shared
def test_votes_counted_anew_are_the_consensus_that_the_table_names():
    path = SHARED / "ccai" / "clean_comments.csv"
    told = import_constitution([path], "c", None, None, 0.0)
    counted = import_constitution([path], "c", None, SHARED / "ccai" / "clean_votes.csv", 0.0)
    shares = [[p.source.partition("agreement ")[2] for p in c.principles] for c in (told, counted)]
    assert len(shares[0]) == 275
    assert shares[0] == shares[1]
