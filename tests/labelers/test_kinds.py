"""Every kind of labeler, from the words of a run file to labels: properties that hold whatever model stands behind it."""

from __future__ import annotations

import importlib.util
import random
import sys

import pytest

from charter.config import CheckerConfig, LabelConfig, labeler_models
from charter.constitution.load import Constitution
from charter.errors import ConfigError, CoverageError, LabelerError
from charter.labelers.checker import exact, make_checker
from charter.labelers.combine import log_odds
from charter.labelers.committee import CommitteeLabeler, combine_voices, summarize_members
from charter.labelers.make import check_wordings, make_labeler
from charter.labelers.question import comparison, stated_option
from charter.models.protocol import Choice, Generation
from charter.progress import QuietProgress
from charter.records import Abstention, Judgment, Message, PreferencePair, Principle, Prompt, ResponsePair
from charter.stages import label
from charter.store.jsonl import read_jsonl, read_rows, write_jsonl

PRINCIPLES = tuple(Principle(f"p{i}", f"rule {i}", f"criticise by {i}", "r", f"better by {i}?") for i in range(2))
CONSTITUTION = Constitution("test", "", PRINCIPLES)


class Judge:
    """Prefers by a rule on the question's text; critiques and arguments are what ``write`` makes of the last message."""

    def __init__(self, name="judge", choose=None, write=None):
        self.name, self.fingerprint = name, f"{name}-1"
        self._choose, self._write = choose or good_first, write or (lambda text: Generation("some text", "stop", 5, 5))
        self.asked: list[str] = []

    def choose(self, questions):
        self.asked += [q.conversation[-1].content for q in questions]
        return [self._choose(q) for q in questions]

    def generate(self, conversations, *, seeds, max_new_tokens, temperature=1.0):
        self.asked += [c[-1].content for c in conversations]
        return [
            self._write(c, seed) if self._write.__code__.co_argcount == 2 else self._write(c)
            for c, seed in zip(conversations, seeds, strict=True)
        ]


def good_first(question):
    text = question.conversation[-1].content
    good = text.index("good answer") < text.index("bad answer")
    return Choice((-0.1, -2.4) if good else (-2.4, -0.1), 10)


def always_first(question):
    return Choice((-0.1, -2.4), 10)


def mute(question):
    return Choice(None, 10, "no_logprobs")


def pairs(count=12):
    rng = random.Random(0)
    made = []
    for i in range(count):
        two = [f"good answer {i}", f"bad answer {i}"]
        rng.shuffle(two)
        made.append(
            ResponsePair(f"{i}", Prompt(f"{i}", (Message("user", f"question {i}"),), answer=f"good answer {i}"), *two)
        )
    return made


def label_config(**labeler):
    return LabelConfig.model_validate({"labeler": labeler, "check": {"num_controls": 0}})


def run(config, models, tmp_path, made=None):
    labeler = make_labeler(config.labeler, lambda wanted: models[wanted.source], CONSTITUTION, 0)
    summary = label.run(config, tmp_path, pairs=made or pairs(), labeler=labeler, gold=None, progress=QuietProgress())
    return summary, list(read_jsonl(tmp_path / "preferences.jsonl", PreferencePair))


MODEL = {"source": "judge"}
KINDS = [
    {"kind": "constitutional", "model": MODEL},
    {"kind": "plain", "model": MODEL},
    {"kind": "debate", "model": MODEL, "turns": 2},
    {"kind": "assisted", "model": MODEL, "critic": {"source": "critic"}},
    {"kind": "committee", "members": [{"model": MODEL}, {"kind": "plain", "model": MODEL}]},
]
ids = [kind["kind"] for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_a_perfect_labeler_is_always_right(kind, tmp_path):
    _, found = run(label_config(**kind), {"judge": Judge(), "critic": Judge("critic")}, tmp_path)
    assert len(found) == 12 and all((p.p_a > 0.5) == p.response_a.startswith("good") for p in found)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_always_first_cancels_exactly(kind, tmp_path):
    judge = Judge(choose=always_first)
    summary, found = run(label_config(**kind), {"judge": judge, "critic": Judge("critic")}, tmp_path)
    assert {p.p_a for p in found} == {0.5} and summary["position_bias"]["value"] == 1.0


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_a_mute_labeler_gives_no_label_and_stops(kind, tmp_path):
    with pytest.raises(CoverageError, match="0 of 12 pairs .*no_logprobs 12"):
        run(label_config(**kind), {"judge": Judge(choose=mute), "critic": Judge("critic")}, tmp_path)


@pytest.mark.parametrize("kind", KINDS, ids=ids)
def test_swapping_the_responses_gives_one_minus_p(kind, tmp_path):
    def by_place(question):
        return Choice((-0.3 - question.conversation[-1].content.index("good") / 500, -0.9), 10)

    swapped = [ResponsePair(p.id, p.prompt, p.response_b, p.response_a) for p in pairs()]
    models = {"judge": Judge(choose=by_place), "critic": Judge("critic")}
    _, there = run(label_config(**kind), models, tmp_path / "there")
    _, back = run(label_config(**kind), models, tmp_path / "back", swapped)
    for one, other in zip(there, back, strict=True):
        assert other.p_a == pytest.approx(1 - one.p_a, abs=1e-12)


@pytest.mark.parametrize(
    "finish, reason", [("length", "truncated"), ("failed", "endpoint_failed"), ("refused", "refused")]
)
@pytest.mark.parametrize("kind", KINDS[2:4], ids=ids[2:4])
def test_material_that_was_not_written_is_an_abstention(kind, finish, reason, tmp_path):
    def write(conversation):
        return Generation("half a", finish, 5, 5)

    judge = Judge(write=write)
    with pytest.raises(CoverageError, match=f"{reason} 12"):
        run(label_config(**kind), {"judge": judge, "critic": Judge("critic", write=write)}, tmp_path)
    assert not any("half a" in text for text in judge.asked)


def test_critiques_stand_in_the_question_between_fences(tmp_path):
    def write(conversation):
        return Generation(f"about <<<{conversation[-2].content}>>> by {conversation[-1].content}", "stop", 5, 5)

    judge = Judge()
    run(label_config(**KINDS[3]), {"judge": judge, "critic": Judge("critic", write=write)}, tmp_path, pairs(1))
    assert len(judge.asked) == 4  # two principles, both orders
    for text in judge.asked:
        first, second = text.index("<<<critique of response A "), text.index("<<<critique of response B ")
        shown_first = "good" if text.index("good answer") < text.index("bad answer") else "bad"
        assert f"< < <{shown_first} answer 0> > >" in text[first:second]
        assert text.index("criticise by") < text.index("The material ends here")


def test_debaters_see_what_was_said_and_speak_for_their_side(tmp_path):
    heard = []

    def write(conversation):
        heard.append(conversation[-1].content)
        return Generation(f"speech {len(heard)}", "stop", 5, 5)

    config = label_config(
        kind="debate", model=MODEL, debater={"source": "debater"}, turns=2, principles=1, both_orders=False
    )
    judge = Judge()
    run(config, {"judge": judge, "debater": Judge("debater", write=write)}, tmp_path, pairs(1))
    assert [("You speak for response A" in text, "You speak for response B" in text) for text in heard] == [
        (True, False),
        (False, True),
    ] * 2
    assert "speech" not in heard[0] and all(f"speech {n}" in heard[3] for n in (1, 2, 3))
    assert all(f"speech {n}" in judge.asked[0] for n in (1, 2, 3, 4))


def test_material_needs_a_wording_that_takes_it():
    config = label_config(kind="assisted", model=MODEL, critic=MODEL, question="charter.labelers.question:defang")
    with pytest.raises(ConfigError, match=r"takes no 'material'.*name another"):
        check_wordings(config.labeler)


class TestVotes:
    def votes(self, replies, tmp_path, k=5, **more):
        def write(conversation, seed):
            text = replies[seed]
            return Generation(text, "stop", 5, 1)

        config = label_config(kind="plain", model=MODEL, votes=k, both_orders=False, **more)
        return run(config, {"judge": Judge(write=write)}, tmp_path, pairs(1))

    def test_counts_by_laplace(self, tmp_path):
        _, found = self.votes(["A", "(A).", "B", "the better response is A", "A or B?"], tmp_path)
        assert found[0].p_a == pytest.approx((3 + 1) / (4 + 2))
        judgment = next(read_jsonl(tmp_path / "judgments.jsonl", Judgment))
        assert judgment.raw == "votes: A A B A -" and judgment.num_completion_tokens == 5

    def test_mostly_unreadable_is_an_abstention(self, tmp_path):
        with pytest.raises(CoverageError, match="unreadable 1"):
            self.votes(["A", "A", "I like both", "", "neither"], tmp_path)

    def test_ten_thousand_replies_never_state_what_they_do_not_say(self):
        rng = random.Random(3)
        words = [
            "A",
            "B",
            "a",
            "b",
            "(A)",
            "the better response is",
            "better",
            "not",
            "or",
            "A.",
            "?",
            "C",
            "\n",
            "answer:",
            "C3PO",
            "AB",
        ]
        for _ in range(10_000):
            reply = " ".join(rng.choices(words, k=rng.randrange(0, 6)))
            option = stated_option(reply)
            if option is not None:
                letters = [
                    w for w in "".join(c if c.isalnum() else " " for c in reply).split() if w.upper() in ("A", "B")
                ]
                rest = " ".join(w for w in reply.split() if w.upper().strip("().") not in ("A", "B"))
                assert len(letters) == 1 and letters[0].upper() == option
                assert rest in ("", "the better response is")


class TestDirect:
    def scored(self, tmp_path, choose, **more):
        config = label_config(kind="direct", model=MODEL, **more)
        return run(config, {"judge": Judge(choose=choose)}, tmp_path)

    def test_the_higher_expected_score_is_better(self, tmp_path):
        def choose(question):
            good = "good answer" in question.conversation[-1].content
            return Choice(tuple(-abs(n - (8 if good else 3)) for n in range(1, 11)), 10)

        _, found = self.scored(tmp_path, choose)
        assert all((p.p_a > 0.5) == p.response_a.startswith("good") for p in found)

    def test_expected_worth_by_hand(self):
        config = label_config(kind="direct", model=MODEL, options={"no": 0, "maybe": 1, "yes": 4}, principles="none")
        judge = Judge(choose=lambda question: Choice((-1.0, -1.0, -1.0), 10))
        direct = make_labeler(config.labeler, lambda wanted: judge, CONSTITUTION, 0)
        assert direct.score([(pairs(1)[0].prompt, "x")]) == [pytest.approx(5 / 3 / 4)]

    def test_mute_is_an_abstention(self, tmp_path):
        with pytest.raises(CoverageError, match="no_logprobs 12"):
            self.scored(tmp_path, mute)

    @pytest.mark.parametrize("reply, known", [("it is kind, so yes", True), ("yes and no", False), ("well", False)])
    def test_reasons_state_exactly_one_option(self, reply, known):
        config = label_config(
            kind="direct", model=MODEL, options={" no": 0, " yes": 1}, chain_of_thought=True, principles="none"
        )
        seen = []

        def choose(question):
            seen.append(question.prefill)
            return Choice((-3.0, -0.1), 10)

        judge = Judge(choose=choose, write=lambda conversation: Generation(reply, "stop", 5, 5))
        direct = make_labeler(config.labeler, lambda wanted: judge, CONSTITUTION, 0)
        [score] = direct.score([(pairs(1)[0].prompt, "x")])
        assert (score == Abstention.UNREADABLE) is not known
        assert seen == (["it is kind, so"] if known else [])


class TestCommittee:
    def test_voices_by_hand(self):
        assert combine_voices([0.9, 0.9, 0.1], "mean") == pytest.approx(0.675, abs=1e-3)  # sigmoid(ln 9 / 3)
        assert combine_voices([0.9, 0.8, 0.1], "median") == 0.8
        assert combine_voices([0.9, 0.5, 0.1, 0.7], "majority") == pytest.approx(2.5 / 4)

    def test_an_abstaining_member_has_no_voice(self, tmp_path):
        config = label_config(kind="committee", members=[{"model": MODEL}, {"model": {"source": "mute"}}])
        models = {"judge": Judge(), "mute": Judge("mute", choose=mute)}
        summary, found = run(config, models, tmp_path)
        alone = make_labeler(config.labeler.members[0], lambda wanted: models["judge"], CONSTITUTION, 0)
        want = [alone.combine(own) for own in alone.label(pairs())]
        assert [log_odds(p.p_a) for p in found] == pytest.approx([log_odds(p) for p in want])
        assert summary["committee"]["coverage"]["2 constitutional"]["value"] == 0.0
        rows = [row for _, row in read_rows(tmp_path / "members.jsonl")]
        assert len(rows) == 24 and {row["abstained"] for row in rows if row["member"] == "2 constitutional"} == {
            "no_logprobs"
        }

    def test_agreement_and_dissent(self):
        said = {"x": {"1": 0.9, "2": 0.1}, "y": {"1": 0.8, "2": 0.9}, "z": {"1": 0.2, "2": Abstention.REFUSED}}
        found = summarize_members(said)
        assert [row["pair_id"] for row in found["dissent"]] == ["x"]
        assert found["split"]["value"] == 0.5 and found["alpha"]["value"] < 0.5
        same = {str(i): {"1": i / 10, "2": i / 10} for i in range(1, 9)}
        assert summarize_members(same)["alpha"]["value"] == 1.0

    def test_members_keep_their_own_settings(self):
        committee = CommitteeLabeler(
            {"1": make_labeler(label_config(model=MODEL, sharpness=2).labeler, lambda w: Judge(), CONSTITUTION, 0)}
        )
        [own] = committee.label(pairs(1))
        assert {j.labeler for j in own} == {"1"}
        assert abs(log_odds(committee.combine(own))) == pytest.approx(2 * 2 * 2.3)


class TestHuman:
    def test_labels_from_a_file(self, tmp_path):
        made = pairs(10)
        rows = [
            PreferencePair(p.id, p.prompt, p.response_a, p.response_b, float(p.response_a.startswith("good")))
            for p in made[:9]
        ]
        write_jsonl(tmp_path / "people.jsonl", rows)
        summary, found = run(label_config(kind="human", labels=str(tmp_path / "people.jsonl")), {}, tmp_path, made)
        assert [p.p_a for p in found] == pytest.approx([row.p_a for row in rows], abs=1e-6)
        assert summary["abstentions"] == {"unlabelled": 1}


class TestChecker:
    def test_exact(self, tmp_path):
        _, found = run(label_config(kind="checker"), {}, tmp_path)
        assert all((p.p_a > 0.999) == p.response_a.startswith("good") for p in found) and len(found) == 12
        assert exact(Prompt("x", (Message("user", "?"),)), "y") is None

    def test_two_right_answers_are_undecided(self, tmp_path):
        prompt = Prompt("x", (Message("user", "?"),), answer="Yes ")
        with pytest.raises(CoverageError, match="undecided 1"):
            run(label_config(kind="checker"), {}, tmp_path, [ResponsePair("x", prompt, "yes", " YES")])

    @pytest.mark.skipif(
        importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed (the math extra)"
    )
    @pytest.mark.parametrize(
        "reply, right",
        [("so it is $\\frac{1}{2}$", 1.0), ("The answer is 0.5.", 1.0), ("It is 2", 0.0), ("no idea", 0.0)],
    )
    def test_math(self, reply, right):
        check = make_checker(CheckerConfig(kind="checker", check="math"))
        assert check.score([(Prompt("x", (Message("user", "?"),), answer="$1/2$"), reply)]) == [right]
        assert check.score([(Prompt("x", (Message("user", "?"),)), reply)]) == [Abstention.UNCHECKABLE]

    def test_a_function_of_the_users(self, tmp_path, monkeypatch):
        (tmp_path / "my_checks.py").write_text(
            "def short(prompt, response): return 1.0 if len(response) < 5 else 0.0\ndef broken(p, r): return float('nan')\n"
        )
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        prompt = Prompt("x", (Message("user", "?"),))
        good = make_checker(CheckerConfig(kind="checker", check="my_checks:short"))
        assert good.score([(prompt, "ab"), (prompt, "abcdef")]) == [1.0, 0.0]
        with pytest.raises(LabelerError, match="a score in \\[0, 1\\]"):
            make_checker(CheckerConfig(kind="checker", check="my_checks:broken")).score([(prompt, "x")])
        with pytest.raises(ConfigError, match="'maths' is no check"):
            make_checker(CheckerConfig(kind="checker", check="maths"))

    def test_code_is_off_unless_asked_for(self):
        with pytest.raises(ConfigError, match="allow_code"):
            make_checker(CheckerConfig(kind="checker", check="code"))


CODE = [
    ("def add(a, b):\n    return a + b", 1.0),
    ("Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", 1.0),
    ("def add(a, b):\n    return a - b", 0.0),
    ("raise SystemExit(0)", 0.0),
    ("import os; os._exit(0)", 0.0),
    ("while True: pass", 0.0),
    ("x = 'a' * (1 << 31)\ndef add(a, b): return a + b", 0.0),
    (
        "import urllib.request, socket\nsocket.create_connection(('127.0.0.1', PORT), 1)\ndef add(a, b): return a + b",
        0.0,
    ),
    ("open('big', 'w').write('x' * (2 << 20))\ndef add(a, b): return a + b", 0.0),
    ("import os\nfor _ in range(3): os.fork()\nimport time; time.sleep(60)", 0.0),
    ("print('PASSED'); raise ValueError", 0.0),
    ("this is no python", 0.0),
]


@pytest.mark.parametrize("program, right", CODE)
def test_code_against_tests(program, right, unused_port):
    from charter.labelers import sandbox

    try:
        sandbox._without_network()
    except LabelerError as error:
        pytest.skip(str(error))
    check = make_checker(CheckerConfig(kind="checker", check="code", allow_code=True, seconds=2))
    prompt = Prompt("x", (Message("user", "add"),), answer="assert add(2, 3) == 5")
    assert check.score([(prompt, program.replace("PORT", str(unused_port)))]) == [right]


@pytest.fixture
def unused_port():
    """A port on which somebody listens: only the missing network can refuse the connection."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_models_of_a_labeler():
    config = label_config(
        kind="committee",
        members=[
            {"model": {"source": "a"}},
            {"kind": "assisted", "model": {"source": "b"}, "critic": {"source": "c"}},
            {"kind": "human", "labels": "d"},
        ],
    )
    assert [model.source for model in labeler_models(config.labeler)] == ["a", "b", "c"]


def test_fence_nonce_is_the_same_in_both_orders():
    said = (Message("user", "hello"),)
    one, other = comparison(said, "x", "y", None, False), comparison(said, "y", "x", None, False)
    assert sorted(one.split()) == sorted(other.split()) and one != other
