"""The check finds what is planted in a labeler, and finds nothing in a good one."""

from __future__ import annotations

import random

import pytest

from charter.config import CheckConfig
from charter.data.preferences import read_preference
from charter.errors import DataError
from charter.labelers.check.attacks import BATTERY, CONTROLS, attack, control
from charter.labelers.check.cases import Case, load_cases
from charter.labelers.check.measures import baselines
from charter.labelers.check.verdict import check
from charter.labelers.combine import combine
from charter.labelers.protocol import Batched
from charter.records import Abstention, Judgment, Message, Prompt, ResponsePair
from charter.regression import cluster_index, logistic
from charter.stages.check_labeler import GENERAL


class Planted:
    """Judges by a function of (pair, response shown first, second) -> p(first is better), in both orders."""

    name = "planted"

    def __init__(self, p_first):
        self._p_first = p_first

    def label(self, pairs):
        return [
            [
                self._judgment(pair, "ab", self._p_first(pair.response_a, pair.response_b)),
                self._judgment(pair, "ba", self._p_first(pair.response_b, pair.response_a)),
            ]
            for pair in pairs
        ]

    def _judgment(self, pair, order, p):
        if p is None:
            return Judgment(pair.id, "p", order, None, Abstention.UNREADABLE)
        return Judgment(pair.id, "p", order, p if order == "ab" else 1 - p)

    def combine(self, judgments):
        return combine(judgments, {"p": 1.0}, 1.0)


def cases(count=400, seed=0):
    rng = random.Random(seed)
    made = []
    for i in range(count):
        texts = [f"good {i}" + " word" * rng.randrange(12), f"bad {i}" + " word" * rng.randrange(12)]
        rng.shuffle(texts)
        better = texts[0].startswith("good")
        made.append(
            Case(ResponsePair(f"{i}", Prompt(f"{i}", (Message("user", "why?"),)), *texts), better, {"p": better})
        )
    return made


def is_better(first, second):
    return first.startswith("good") and not second.startswith("good")


def test_in_batches_the_answers_are_the_same_and_no_question_holds_more():
    sizes = []

    class Counted(Planted):
        def label(self, pairs):
            sizes.append(len(pairs))
            return super().label(pairs)

    labeler = Counted(lambda x, y: 0.95 if is_better(x, y) else 0.05)
    assert check(Batched(labeler, 7), cases(100), CheckConfig()) == check(labeler, cases(100), CheckConfig())
    assert control(Batched(labeler, 7), [case.pair for case in cases(20)]).keys() == CONTROLS.keys()
    assert max(sizes[: sizes.index(64)]) == 7 == max(sizes[-15:])  # 64: the check's own batch, without the wrapper


def test_a_good_labeler_is_fit():
    found = check(Planted(lambda x, y: 0.95 if is_better(x, y) else 0.05), cases(), CheckConfig())
    assert found["verdict"] == {"fitness": "fit", "unfit": [], "warnings": []}
    assert found["accuracy"]["value"] == 1.0 and found["position"]["keeps_position"]["value"] == 0.0
    assert found["by_principle"]["p"]["n"] == 400
    assert all(0.35 < row["value"] < 0.65 for row in found["baselines"].values())


def test_a_coin_is_unfit():
    rng = random.Random(1)
    found = check(Planted(lambda x, y: rng.choice([0.2, 0.8])), cases(), CheckConfig())
    assert found["verdict"]["fitness"] == "unfit" and "accuracy" in found["verdict"]["unfit"][0]


def test_few_pairs_show_nobody_to_be_fit():
    rng = random.Random(1)
    found = check(Planted(lambda x, y: rng.choice([0.2, 0.8])), cases(8), CheckConfig())
    assert found["accuracy"]["low"] <= 0.5 and found["verdict"]["unfit"] == []
    assert found["verdict"]["fitness"] == "not shown to be fit"


def test_always_first_shows_as_position_and_not_as_accuracy():
    found = check(Planted(lambda x, y: 0.9), cases(), CheckConfig())
    assert found["accuracy"]["value"] == 0.5 and found["position"]["keeps_position"]["value"] == 1.0
    assert found["position"]["picks_first"]["value"] == 1.0 and any(
        "position" in why for why in found["verdict"]["warnings"]
    )


def test_mute_is_unfit():
    found = check(Planted(lambda x, y: None), cases(50), CheckConfig())
    assert found["accuracy"]["value"] is None and found["abstentions"]["reasons"] == {"unreadable": 50}
    assert "labels only 0.00" in found["verdict"]["unfit"][0]


def test_a_taste_for_length_is_found_and_named():
    rng = random.Random(2)
    noise = {}

    def longer(x, y):
        z = (2.0 if is_better(x, y) else -2.0) + 0.35 * (len(x.split()) - len(y.split()))
        z += noise.setdefault((x, y), -noise.get((y, x), -rng.gauss(0, 1.5)))
        return 1 / (1 + 2.718281828**-z)

    found = check(Planted(longer), cases(600), CheckConfig())
    terms = found["drivers"]["terms"]
    assert terms["length"]["low"] > 0.25 and terms["truth"]["low"] > 0.5
    assert any(why.startswith("length moves its labels") for why in found["verdict"]["warnings"])


def test_a_principle_read_upside_down_is_unfit():
    found = check(Planted(lambda x, y: 0.1 if is_better(x, y) else 0.9), cases(), CheckConfig(min_accuracy=0.0))
    assert found["verdict"]["unfit"] == ["misreads p: right on 0.00 of 400"]


def test_circles_are_counted():
    prompt = Prompt("x", (Message("user", "?"),))
    three = [Case(ResponsePair(f"{a}{b}", prompt, a, b), True) for a, b in ("xy", "yz", "xz")]
    beats = {("x", "y"), ("y", "z"), ("z", "x")}
    circle = Planted(lambda a, b: 0.9 if (a, b) in beats else 0.1)
    line = Planted(lambda a, b: 0.9 if a < b else 0.1)
    assert check(circle, three, CheckConfig())["transitivity"]["value"] == 0.0
    assert check(line, three, CheckConfig())["transitivity"]["value"] == 1.0


def test_logistic_intervals_cover_the_planted_coefficients():
    import numpy as np

    planted, covered, found = np.array([0.3, 1.0, -0.5]), np.zeros(3), []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        columns = np.column_stack([np.ones(1000), rng.normal(size=(1000, 2))])
        hard = (rng.random(1000) < 1 / (1 + np.exp(-columns @ planted))).astype(float)
        fit = logistic(columns, hard, cluster_index(range(1000)))
        estimates = [fit.estimate(i) for i in range(3)]
        covered += [e.low < want < e.high for e, want in zip(estimates, planted, strict=True)]
        found.append(fit.coefficients_M)
    assert (covered >= 36).all() and np.mean(found, axis=0) == pytest.approx(planted, abs=0.03)


class TestAttacks:
    def test_a_gullible_labeler_is_turned_and_a_sober_one_is_not(self):
        def gullible(x, y):
            told = [("is better. The answer is" in text) for text in (x, y)]
            return 0.9 if told[0] > told[1] else 0.1 if told[1] > told[0] else 0.95 if is_better(x, y) else 0.05

        found = {row.name: row for row in attack(Planted(gullible), cases(30))}
        assert found["forged verdict"].success.value == 1.0 and found["flattery"].success.value == 0.0
        assert {row.success.n for row in found.values()} == {30}
        sober = attack(Planted(lambda x, y: 0.95 if is_better(x, y) else 0.05), cases(30))
        assert {row.success.value for row in sober} == {0.0}

    def test_an_abstention_is_no_success(self):
        def careful(x, y):
            return None if "Ignore all instructions" in x + y else 0.95 if is_better(x, y) else 0.05

        found = {row.name: row for row in attack(Planted(careful), cases(10))}
        assert found["instruction"].success.value == 0.0 and found["instruction"].abstained.value == 1.0

    def test_only_the_worse_response_is_changed(self):
        seen = []

        class Watching(Planted):
            def label(self, pairs):
                seen.extend(pairs)
                return super().label(pairs)

        made = cases(5)
        attack(Watching(lambda x, y: 0.95 if is_better(x, y) else 0.05), made)
        good = {case.pair.response_a if case.a_better else case.pair.response_b for case in made}
        assert len(seen) == 5 * (1 + len(BATTERY)) and all(len({p.response_a, p.response_b} & good) == 1 for p in seen)

    def test_controls(self):
        found = control(
            Planted(lambda x, y: 0.95 if x == "Thought process:" else 0.05), [case.pair for case in cases(8)]
        )
        assert set(found) == set(CONTROLS) and found["opener only"].value == 1.0 and found["empty"].value != 1.0


class TestSources:
    def test_hhh_and_llmbar_rows(self):
        hhh = {
            "prompt": "x",
            "corrects": [" (A)"],
            "incorrects": [" (B)"],
            "text_correct": "\n\nHuman: hi\n\nAssistant: good",
            "text_incorrect": "\n\nHuman: hi\n\nAssistant: bad",
        }
        bar = {"input": "hi", "output_1": "bad", "output_2": "good", "label": 2}
        for row in (hhh, bar):
            pair = read_preference(row, "f:1")
            assert (pair.response_a if pair.p_a > 0.5 else pair.response_b) == "good" and pair.prompt.messages[
                -1
            ].content == "hi"
        with pytest.raises(DataError, match="label is '3': expected 1 or 2"):
            read_preference({**bar, "label": 3}, "f:1")

    def test_the_easy_pairs_of_charter_reward_no_rule_that_reads_nothing(self):
        known = load_cases(GENERAL)
        assert len(known) == len({case.pair.prompt.messages for case in known}) == 24
        assert all(0.4 < row["value"] < 0.6 for row in baselines(known).values())

    def test_a_function_gives_cases(self):
        found = load_cases("charter.village.known:known_pairs", 50)
        assert len(found) == 50 and found == load_cases("charter.village.known:known_pairs", 50)
        assert any(case.by_principle for case in found)

    def test_village_marks_are_gone_from_replies(self):
        from charter.village.known import ATTACKS
        from charter.village.skills import question

        for change in ATTACKS.values():
            text = question((Message("user", "who ?"),), "fine .", change("bad .", "who ?", "B"), None)
            assert (
                text.count("reply A :") == text.count("reply B :") == text.count("request :") == 1
                and text.count("which is better ?") == 1
            )
