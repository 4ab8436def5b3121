"""Properties of labels, whatever model stands behind the labeler (issue: labels must be right, soft, and refused when unfit)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence

import pytest

from charter.config import LabelConfig
from charter.constitution.load import Constitution
from charter.errors import CoverageError
from charter.labelers.asking import AskSettings
from charter.labelers.combine import combine, log_odds, option_probabilities
from charter.labelers.constitutional import ConstitutionalLabeler
from charter.labelers.plain import PlainLabeler
from charter.labelers.question import comparison
from charter.labelers.recorded import RecordedModel
from charter.models.protocol import Choice, Generation, Question
from charter.progress import QuietProgress
from charter.records import Abstention, Judgment, Message, PreferencePair, Principle, Prompt, Reading, ResponsePair
from charter.stages import label
from charter.store.jsonl import read_jsonl, write_jsonl
from charter.store.ledger import Ledger

PRINCIPLES = [
    Principle(f"p{i}", f"rule {i}", "c", "r", f"which is better by rule {i}?", weight=1.0 + i) for i in range(3)
]
CONSTITUTION = Constitution("test", "", tuple(PRINCIPLES))
SETTINGS = AskSettings(comparison)


class ScriptedModel:
    """A language model whose options' log-probabilities a function computes from the question's text."""

    name = "scripted"
    fingerprint = "scripted-1"

    def __init__(self, choose: Callable[[str], tuple[float, float] | None], reply: str = "") -> None:
        self._choose, self._reply = choose, reply
        self.num_choices = 0

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.num_choices += len(questions)
        found = [self._choose(q.conversation[-1].content) for q in questions]
        return [Choice(logprobs, 10, None if logprobs else "unreadable") for logprobs in found]

    def generate(
        self, conversations: Sequence, *, seeds: Sequence[int], max_new_tokens: int, temperature: float = 1.0
    ) -> list[Generation]:
        return [Generation(self._reply, "stop", 10, 5) for _ in conversations]


def perfect(text: str) -> tuple[float, float]:
    good_first = text.index("good answer") < text.index("bad answer")
    return (-0.1, -2.4) if good_first else (-2.4, -0.1)


def make_pairs(count: int) -> list[ResponsePair]:
    rng = random.Random(0)
    pairs = []
    for i in range(count):
        two = [f"good answer {i}", f"bad answer {i}"]
        rng.shuffle(two)
        pairs.append(ResponsePair(f"pair-{i}", Prompt(f"{i}", (Message("user", f"question {i}"),)), *two))
    return pairs


class GoodIsGold:
    name, simulated = "test gold", True

    def read(self, prompt: Prompt, response: str) -> Reading:
        return Reading(gold=float(response.startswith("good")))

    def keeps(self, prompt: Prompt, response: str, principle_id: str) -> float | None:
        return float(response.startswith("good"))


def label_config(**changes: object) -> LabelConfig:
    return LabelConfig.model_validate(
        {"labeler": {"model": {"source": "x"}, "batch_size": 7}, "check": {"num_controls": 0}, **changes}
    )


def run_stage(model: ScriptedModel, pairs: list[ResponsePair], tmp_path, gold=None, **changes: object):
    labeler = ConstitutionalLabeler(model, CONSTITUTION, SETTINGS)
    summary = label.run(
        label_config(**changes), tmp_path, pairs=pairs, labeler=labeler, gold=gold, progress=QuietProgress()
    )
    return summary, list(read_jsonl(tmp_path / "preferences.jsonl", PreferencePair))


def test_perfect_labeler_is_always_right(tmp_path):
    summary, preferences = run_stage(ScriptedModel(perfect), make_pairs(50), tmp_path, GoodIsGold())
    assert summary["accuracy"]["value"] == 1.0 and summary["accuracy"]["n"] == 150
    assert summary["gold_agreement"]["value"] == 1.0
    assert summary["position_bias"]["value"] == 0.0
    assert summary["coverage"]["value"] == 1.0
    assert all((p.p_a > 0.5) == p.response_a.startswith("good") for p in preferences)
    # three principles of weights 1, 2, 3 and 2.3 nats each
    assert max(p.p_a for p in preferences) == pytest.approx(1 / (1 + 2.718281828 ** -(6 * 2.3)))


@pytest.mark.parametrize("logprobs", [(-0.1, -2.4), (0.0, -40.0), (-1e-9, -0.3), (-0.7, -0.6)])
def test_a_preference_for_a_position_cancels_exactly(tmp_path, logprobs):
    summary, preferences = run_stage(ScriptedModel(lambda text: logprobs), make_pairs(20), tmp_path, GoodIsGold())
    assert {p.p_a for p in preferences} == {0.5}
    assert summary["position_bias"]["value"] == 1.0
    assert summary["accuracy"]["value"] == 0.5


def test_a_mute_labeler_gives_no_label_and_stops(tmp_path):
    with pytest.raises(CoverageError, match=r"0 of 20 pairs .*unreadable 20"):
        run_stage(ScriptedModel(lambda text: None), make_pairs(20), tmp_path)
    assert not (tmp_path / "preferences.jsonl").exists()
    judgments = list(read_jsonl(tmp_path / "judgments.jsonl", Judgment))
    assert len(judgments) == 120 and all(j.p_a is None and j.abstained == "unreadable" for j in judgments)


def test_a_mute_labeler_is_stopped_before_all_is_asked(tmp_path):
    mute = ScriptedModel(lambda text: None)
    with pytest.raises(CoverageError, match=r"stopped early: .* 0 of the first 56 pairs.*unreadable 42\)"):
        run_stage(mute, make_pairs(500), tmp_path)
    assert mute.num_choices == 56 * 6 == len(list(read_jsonl(tmp_path / "judgments.jsonl", Judgment)))


@pytest.mark.parametrize("seed", range(5))
def test_one_that_answers_often_enough_is_not_stopped(seed, tmp_path):
    rng = random.Random(seed)
    answers = {f"question {i}\n": rng.random() < 0.8 for i in range(400)}

    def often(text: str) -> tuple[float, float] | None:
        return perfect(text) if any(answers[key] for key in answers if key in text) else None

    summary, _ = run_stage(ScriptedModel(often), make_pairs(400), tmp_path, min_coverage=0.75)
    assert summary["num_labels"] == sum(answers.values())


def test_partly_mute_below_and_above_the_asked_coverage(tmp_path):
    def half(text: str) -> tuple[float, float] | None:
        return perfect(text) if any(f"question {i}\n" in text for i in range(10)) else None

    with pytest.raises(CoverageError, match="10 of 20"):
        run_stage(ScriptedModel(half), make_pairs(20), tmp_path, min_coverage=0.6)
    summary, preferences = run_stage(ScriptedModel(half), make_pairs(20), tmp_path, min_coverage=0.5)
    assert len(preferences) == 10 and summary["abstentions"] == {"unreadable": 10}


def test_swapping_the_responses_gives_one_minus_p(tmp_path):
    def by_length_and_place(text: str) -> tuple[float, float]:
        return (-0.3 - text.index("good") / 500, -0.9)

    pairs = make_pairs(30)
    swapped = [dataclasses.replace(p, response_a=p.response_b, response_b=p.response_a) for p in pairs]
    _, there = run_stage(ScriptedModel(by_length_and_place), pairs, tmp_path / "there")
    _, back = run_stage(ScriptedModel(by_length_and_place), swapped, tmp_path / "back")
    assert len({p.p_a for p in there}) > 1
    for one, other in zip(there, back, strict=True):
        assert other.p_a == pytest.approx(1 - one.p_a, abs=1e-15)


def test_one_order_missing_means_no_usable_principle():
    judgments = [Judgment("x", "p0", "ab", 0.9), Judgment("x", "p0", "ba", None, "truncated")]
    assert combine(judgments, {"p0": 1.0}, 1.0) == "truncated"
    assert combine(
        [*judgments, Judgment("x", "p1", "ab", 0.8), Judgment("x", "p1", "ba", 0.8)], {"p0": 1, "p1": 1}, 1.0
    ) == (pytest.approx(0.8))


def test_weights_and_sharpness_by_hand():
    judgments = [Judgment("x", "p", "ab", 0.75), Judgment("x", "p", "ba", 0.5), Judgment("x", "q", "ab", 0.25)]
    # 2 * mean(ln 3, 0) + 1 * ln(1/3) = 0; with weights 4 and 1: ln 3, sharpened twice: p = 9 / 10
    assert combine(judgments, {"p": 2.0, "q": 1.0}, 1.0) == pytest.approx(0.5)
    assert combine(judgments, {"p": 4.0, "q": 1.0}, 2.0) == pytest.approx(0.9)


def test_options_are_exact_complements():
    rng = random.Random(1)
    for _ in range(1000):
        a, b = rng.uniform(-30, 0), rng.uniform(-30, 0)
        first, second = option_probabilities(a, b)
        assert log_odds(first) == -log_odds(second)
        assert option_probabilities(b, a) == (second, first)


def test_min_margin_abstains(tmp_path):
    with pytest.raises(CoverageError, match="undecided 5"):
        run_stage(ScriptedModel(lambda text: (-0.1, -2.0)), make_pairs(5), tmp_path, min_margin=0.05)


def test_drawn_principles_depend_on_seed_and_pair_alone():
    model = ScriptedModel(perfect)
    pairs = make_pairs(30)
    drawn = ConstitutionalLabeler(model, CONSTITUTION, SETTINGS, drawn=1, seed=3)
    together = [j.principle_id for own in drawn.label(pairs) for j in own]
    alone = [j.principle_id for pair in reversed(pairs) for j in drawn.label([pair])[0]]
    assert together == [x for pair in reversed(list(zip(alone[::2], alone[1::2], strict=True))) for x in pair]
    assert len(set(together)) == 3 and len(together) == 60
    other = ConstitutionalLabeler(model, CONSTITUTION, SETTINGS, drawn=1, seed=4)
    assert [j.principle_id for own in other.label(pairs) for j in own] != together


def test_plain_labeler_asks_without_a_principle():
    judged = PlainLabeler(ScriptedModel(perfect), SETTINGS).label(make_pairs(4))
    assert [[j.order for j in own] for own in judged] == [["ab", "ba"]] * 4
    assert all(j.principle_id is None for own in judged for j in own)


class TestLedger:
    def test_a_second_run_asks_nothing(self, tmp_path):
        model = ScriptedModel(perfect)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            first = ConstitutionalLabeler(RecordedModel(model, ledger), CONSTITUTION, SETTINGS).label(make_pairs(5))
            assert model.num_choices == 30
            second = ConstitutionalLabeler(RecordedModel(model, ledger), CONSTITUTION, SETTINGS).label(make_pairs(5))
        assert model.num_choices == 30 and first == second

    def test_an_edited_principle_asks_its_own_questions_again(self, tmp_path):
        model = ScriptedModel(perfect)
        last = dataclasses.replace(PRINCIPLES[2], comparison="which is kinder?")
        edited = Constitution("test", "", (*PRINCIPLES[:2], last))
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            ConstitutionalLabeler(RecordedModel(model, ledger), CONSTITUTION, SETTINGS).label(make_pairs(5))
            ConstitutionalLabeler(RecordedModel(model, ledger), edited, SETTINGS).label(make_pairs(5))
        assert model.num_choices == 30 + 10

    def test_another_model_is_asked(self, tmp_path):
        one, other = ScriptedModel(perfect), ScriptedModel(perfect)
        other.fingerprint = "scripted-2"
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            for model in (one, other):
                PlainLabeler(RecordedModel(model, ledger), SETTINGS).label(make_pairs(2))
        assert one.num_choices == other.num_choices == 4


class TestChainOfThought:
    def judge(self, reply: str, clamp=None) -> list[Judgment]:
        settings = AskSettings(comparison, chain_of_thought=True, clamp=clamp)
        return PlainLabeler(ScriptedModel(perfect, reply), settings).label(make_pairs(1))[0]

    def test_the_option_is_weighed_after_the_reasons(self):
        judged = self.judge("One is kinder. The better response is A")
        assert judged[0].p_a == pytest.approx(
            1 / (1 + 2.718281828 ** (2.3 if make_pairs(1)[0].response_a[0] == "b" else -2.3))
        )
        assert judged[0].raw.startswith("One is kinder")

    def test_probabilities_are_clamped(self):
        assert {j.p_a for j in self.judge("The better response is B.", (0.4, 0.6))} <= {0.4, 0.6}

    def test_a_reply_without_a_verdict_is_an_abstention(self):
        assert [j.abstained for j in self.judge("Both are fine.")] == ["unreadable", "unreadable"]


class Killed(Exception):
    pass


def dying_after(questions: int):
    """Answers so many questions perfectly, then dies."""
    left = [questions]

    def choose(text: str) -> tuple[float, float]:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return perfect(text)

    return choose


@pytest.mark.parametrize("torn", [b"", b'{"pair_id": "pair-14", "princ'])
def test_a_killed_stage_goes_on_after_the_last_whole_batch(tmp_path, torn):
    pairs, whole, here = make_pairs(30), tmp_path / "whole", tmp_path / "here"  # batches of 7 pairs, 42 questions
    expected = run_stage(ScriptedModel(perfect), pairs, whole, GoodIsGold())
    with pytest.raises(Killed):
        run_stage(ScriptedModel(dying_after(100)), pairs, here)
    with (here / "judgments.jsonl").open("ab") as file:
        file.write(torn)
    again = ScriptedModel(perfect)
    assert run_stage(again, pairs, here, GoodIsGold()) == expected
    assert again.num_choices == 180 - 42  # the second batch stands last: it may be torn, so it is asked again
    for name in ("judgments.jsonl", "preferences.jsonl"):
        assert (here / name).read_bytes() == (whole / name).read_bytes()


def test_what_failed_is_asked_again_and_all_that_follows_it(tmp_path):
    pairs, whole, here = make_pairs(30), tmp_path / "whole", tmp_path / "here"
    run_stage(ScriptedModel(perfect), pairs, whole)
    run_stage(ScriptedModel(perfect), pairs, here)
    rows = list(read_jsonl(here / "judgments.jsonl", Judgment))
    failed = next(place for place, row in enumerate(rows) if row.pair_id == "pair-9")
    rows[failed] = dataclasses.replace(rows[failed], p_a=None, abstained=Abstention.ENDPOINT_FAILED)
    write_jsonl(here / "judgments.jsonl", rows)
    again = ScriptedModel(perfect)
    run_stage(again, pairs, here)
    assert again.num_choices == 180 - 42
    assert (here / "judgments.jsonl").read_bytes() == (whole / "judgments.jsonl").read_bytes()


def test_judgments_of_other_pairs_are_begun_anew(tmp_path):
    run_stage(ScriptedModel(perfect), make_pairs(30)[14:], tmp_path)
    again = ScriptedModel(perfect)
    run_stage(again, make_pairs(14), tmp_path)
    assert again.num_choices == 84
