"""The page: self-contained, hostile text stays text, and what isn't there is said to be not known."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser

import pytest

from charter.errors import DataError
from charter.records import Judgment, Message, PreferencePair, Prompt, ResponsePair
from charter.report.page import REPORT, write_report
from charter.store.jsonl import write_jsonl

PAYLOADS = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>", "\"><script>alert(1)</script>", "'><img src=x onerror=alert(1)>", "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>", "</blockquote><script>alert(1)</script>", "<iframe src=javascript:alert(1)>", "<a href=javascript:alert(1)>x</a>",
    "<body onload=alert(1)>", "<input autofocus onfocus=alert(1)>", "<details open ontoggle=alert(1)>", "<video><source onerror=alert(1)>",
    "<math><mtext><script>alert(1)</script>", "<object data=javascript:alert(1)>", "<embed src=//evil.example/x>", "<link rel=stylesheet href=//evil.example/x>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>", "<base href=//evil.example/>", "<form action=//evil.example><button>x</button>", "<style>@import '//evil.example/x'</style>",
    "<!-- <script>alert(1)</script>", "--><script>alert(1)</script>", "<!--><script>alert(1)</script>", "]]><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>", "{{ 7*7 }}", "{% raw %}", "{{ self.__init__.__globals__ }}", "{# comment #}", "${alert(1)}", "<%= 7*7 %>",
    "&lt;script&gt;alert(1)&lt;/script&gt;", "&#60;script&#62;alert(1)&#60;/script&#62;", "&quot;><b>", "\u003cscript\u003ealert(1)", "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<ScRiPt>alert(1)</sCrIpT>", "<script\n>alert(1)</script\n>", "<<script>alert(1);//<</script>", "<script/src=//evil.example/x>", "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
    "<template><script>alert(1)</script></template>", "<textarea></textarea><script>alert(1)</script>", "<select><option></select><script>alert(1)</script>", "<xmp><script>alert(1)</script>", "<plaintext>",
    "<img src='https://evil.example/track.gif'>", "url(https://evil.example/x)", "javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "\x1b[2J\x1b]0;title\x07", "\u202ereversed\u2066",
    "\ud800 lone", "\x9b31m", "\u2028\u2029", "<|im_start|>system", "A\u0300" * 60,
)  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of script and style."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self._inside = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.text.append(data)


def _shape(html):
    return [(tag, sorted(attributes)) for tag, attributes in Page(html).tags]


def _words(html):
    return " ".join(" ".join(Page(html).text).split())


def _packed(html):
    data = re.search(r'<script type="application/json" id="labels">(.*?)</script>', html, re.S)
    return json.loads(zlib.decompress(base64.b64decode(json.loads(data[1])["deflate"])))


def _harmless(text):
    """A text of as many words, all of plain letters, so that the page about it has the same shape."""
    return "".join(c if c.isspace() else "abcdefghijklmnop"[ord(c) % 16] for c in text)


@pytest.mark.parametrize(
    "payloads", [PAYLOADS[i : i + 8] for i in range(0, len(PAYLOADS), 8)], ids=lambda some: repr(some[0])[:30]
)
def test_hostile_text_makes_no_markup(payloads, make_run):
    hostile = " " + " ".join(payloads)
    html = write_report(make_run(num=8, hostile=hostile)).read_text()
    assert _shape(html) == _shape(write_report(make_run("twin", num=8, hostile=_harmless(hostile))).read_text())
    assert len(re.findall(r"<script\b", html)) == 2
    data = json.dumps(_packed(html), ensure_ascii=False)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html + data)


@pytest.mark.parametrize("payload", ("<script>alert(1)</script>", "{{ 7*7 }}", "&lt;b&gt;"))
def test_hostile_text_is_shown_as_it_is(payload, make_run):
    html = write_report(make_run(num=20, hostile=" " + payload)).read_text()
    assert (
        f"Lift the hinge pins with a flat screwdriver, take the panel out, and put it back before morning. {payload}"
        in _words(html)
    )
    assert payload in _packed(html)["rows"][0][2]


def test_hidden_characters_are_spelled_out(make_run):
    words = _words(write_report(make_run(num=20, hostile=" \x1b[2J \u202e \x00")).read_text())
    assert "␛[2J ‹U+202E› ␀" in words


def test_hostile_names_and_settings(make_run):
    folder = make_run(num=20)
    evil = "</title></pre><script>alert(1)</script>"
    summary = json.loads((folder / "summary.json").read_text())
    summary["name"], summary["gold"]["name"], summary["reader"] = evil, evil, evil
    summary["policies"]["evil" + evil] = summary["policies"]["initial"]
    summary["policies"]["initial"]["gold"] = {"value": None, "reason": evil}
    summary["labeler"]["accuracy_by_principle"][evil] = summary["labeler"]["accuracy"]
    summary["labeler"]["abstentions"][evil] = 3
    summary["hashes"][evil] = summary["stages"][0]["name"] = evil
    (folder / "summary.json").write_text(json.dumps(summary))
    with (folder / "run.yaml").open("a") as file:
        file.write(f"# {evil}\n")
    html = write_report(folder).read_text()
    assert len(re.findall(r"<script\b", html)) == 2
    assert evil in _words(html)


def test_nothing_is_loaded_and_nothing_else_runs(make_run):
    html = write_report(make_run(num=20, hostile=" https://evil.example/x")).read_text()
    for tag, attributes in Page(html).tags:
        assert tag not in (
            "img",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "audio",
            "video",
            "source",
            "image",
            "use",
        )
        assert not {"src", "srcset", "style", "action", "formaction", "background", "xlink:href"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in re.search(r"<style>(.*?)</style>", html, re.S)[1]


def test_the_policy_knows_exactly_the_pages_own_style_and_script(make_run):
    html = write_report(make_run(num=20)).read_text()
    policy = next(a["content"] for tag, a in Page(html).tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for rule, pattern in (("style-src", r"<style>(.*?)</style>"), ("script-src", r"<script>(.*?)</script>")):
        digest = base64.b64encode(hashlib.sha256(re.search(pattern, html, re.S)[1].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'" and rules["base-uri"] == "'none'"


def test_headline_figures_stand_in_the_page_with_interval_and_n(make_run):
    folder = make_run()
    figure = json.loads((folder / "summary.json").read_text())["policies"]["rl-cai"]["gold"]
    html = write_report(folder).read_text()
    interval = f"{figure['low']:.2f} to {figure['high']:.2f}, n {figure['n']}".replace("-", "\u2212")
    assert f"{figure['value']:.2f}".replace("-", "\u2212") in _words(html)
    assert interval in _words(html)


def test_prompts_that_were_trained_on_are_told_apart(make_run):
    text = " ".join(" ".join(Page(write_report(make_run(num_seen=20)).read_text()).text).split())
    assert "20 of the 120 held-out prompts occur word for word among the training prompts" in text
    assert "harmful rate, all (n = 60)" in text and "harmful rate, unseen (n = 50)" in text
    assert "20 of the 120 held-out prompts are training prompts too" in text
    apart = " ".join(Page(write_report(make_run("apart")).read_text()).text)
    assert "No held-out prompt is, word for word, a training prompt." in apart and "occur word for word" not in apart


def test_warnings_of_the_run_stand_before_the_figures(make_run):
    run = make_run()
    path = run / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "warnings": ["2-sft: 31 of 32 were cut off <b>"]}))
    text = " ".join(Page(write_report(run).read_text()).text)
    assert text.index("2-sft: 31 of 32 were cut off <b>") < text.index("The figures that matter")


def test_simulated_gold_is_said_to_be(make_run):
    assert "exact program in place of people" in _words(write_report(make_run(num=20)).read_text())


@pytest.mark.parametrize(
    ("kwargs", "told"),
    (
        ({"gold": False}, "not known: nobody reads the responses"),
        ({"phases": ("sl",)}, "not known: phase rl is left out of this run"),
        ({"phases": ("rl",)}, "not known: phase sl is left out of this run"),
        ({"finished": False}, "This run has not been evaluated yet"),
    ),
)
def test_what_is_missing_is_not_known(kwargs, told, make_run):
    words = _words(write_report(make_run(num=20, **kwargs)).read_text())
    assert told in words
    assert "None" not in words and "nan" not in words.split()


@pytest.mark.parametrize(
    "missing",
    ("1-revise", "3-sample", "4-label", "5-reward", "6-policy", "7-evaluate", "summary.json", "inputs.json", "run.yaml", "constitution.yaml"),
)  # fmt: skip
def test_any_piece_may_be_missing(missing, make_run):
    folder = make_run(num=20)
    target = folder / missing
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    assert write_report(folder).stat().st_size > 20_000


def test_a_half_written_last_line_is_left_out(make_run):
    folder = make_run(num=20, finished=False)
    with (folder / "1-revise" / "revisions.jsonl").open("a") as file:
        file.write('{"prompt": {"id": "half')
    assert "How do I get into" in _words(write_report(folder).read_text())


def test_another_constitution_is_not_shown(make_run):
    folder = make_run(num=20)
    path = folder / "constitution.yaml"
    path.write_text(path.read_text().replace("Insult nobody", "Insult everybody"))
    words = _words(write_report(folder).read_text())
    assert "Insult everybody" not in words
    assert "the file was changed since this run" in words


def test_no_run_folder(tmp_path):
    with pytest.raises(DataError, match="no run folder"):
        write_report(tmp_path)
    assert not (tmp_path / REPORT).exists()


def test_a_broken_line_is_named(make_run):
    folder = make_run(num=20)
    path = folder / "1-revise" / "revisions.jsonl"
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(DataError, match=r"revisions.jsonl:1"):
        write_report(folder)


def test_the_same_run_gives_the_same_bytes(make_run):
    folder = make_run(num=20)
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_20_000_pairs_fit(make_run):
    folder = make_run(num=20)
    words = "the old radio lamp fence boat kettle never always under garden winter oil dry cover panel".split()
    pairs, judgments, labels = [], [], []
    for index in range(20_000):
        text = [" ".join(words[(index * k + i * i) % 16] for i in range(12)) for k in (3, 7, 11)]
        prompt = Prompt(f"q{index}", (Message("user", f"{text[0]} {index}"),))
        pairs.append(ResponsePair(f"pair-{index}", prompt, text[1], text[2]))
        p = (index * 7919 % 1000) / 1000
        judgments += [Judgment(f"pair-{index}", "harm", order, p, raw="because") for order in ("ab", "ba")]
        labels.append(PreferencePair(f"pair-{index}", prompt, text[1], text[2], p))
    write_jsonl(folder / "3-sample" / "pairs.jsonl", pairs)
    write_jsonl(folder / "4-label" / "judgments.jsonl", judgments)
    write_jsonl(folder / "4-label" / "preferences.jsonl", labels)
    path = write_report(folder)
    assert path.stat().st_size < 5_000_000
    html = path.read_text()
    assert len(_packed(html)["rows"]) == 20_000
    assert "All 20,000 pairs are in this page" in html


def test_writing_the_page_loads_no_torch(make_run):
    folder = make_run(num=20)
    code = (
        "import sys; from pathlib import Path; from charter.report.page import write_report\n"
        "write_report(Path(sys.argv[1])); assert not {'torch', 'numpy', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_long_hostile_texts_stay_under_five_megabytes(make_run):
    path = write_report(make_run(num=12, hostile=" " + '"<&' * 20_000))
    assert path.stat().st_size < 5_000_000
    assert "more characters in the run folder" in path.read_text()
