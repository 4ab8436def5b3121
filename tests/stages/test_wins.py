"""Wins by a judge: ties cost no question, positions cancel, abstentions are left out, and the audit counts the same."""

from types import SimpleNamespace

import pytest

from charter.audit.wins import audit_wins
from charter.config import ConstitutionalConfig, EvaluateConfig, ModelConfig
from charter.constitution.load import load_constitution
from charter.errors import DataError
from charter.labelers.make import make_labeler
from charter.models.protocol import Choice
from charter.progress import QuietProgress
from charter.records import EvaluatedResponse, Message, Prompt, Reading
from charter.stages.wins import compare_policies, judge_settings
from charter.store.jsonl import write_jsonl

PLACE = {"source": "x"}


class LongerIsBetter:
    """Leans to the response shown first by 1 nat, prefers the longer one by 2; says nothing of what holds "mute"."""

    name = "longer"

    def __init__(self):
        self.num_questions = 0

    def choose(self, questions):
        found = []
        for question in questions:
            self.num_questions += 1
            text = question.conversation[-1].content
            first, second = (text.split(f"<<<response {side} ")[1].split("<<<end")[0] for side in "AB")
            lead = 1.0 + 2.0 * ((len(first) > len(second)) - (len(first) < len(second)))
            found.append(Choice(None, 9, "no_logprobs") if "mute" in text else Choice((lead, 0.0), 9))
        return found


def write_policies(folder, replies):
    for name, texts in replies.items():
        rows = [
            EvaluatedResponse(name, Prompt(f"p{i}", (Message("user", "?"),)), text, Reading(gold=-float(len(text))), 1, 1, False)
            for i, text in enumerate(texts)
        ]  # fmt: skip
        write_jsonl(folder / "7-evaluate" / f"{name}.jsonl", rows)


@pytest.fixture
def judged(tmp_path):
    constitution = tmp_path / "c.yaml"
    constitution.write_text("name: c\nprinciples:\n  - {id: harm, text: Do no harm.}\n")
    model = LongerIsBetter()
    asked = ConstitutionalConfig(model=ModelConfig(source="x"), kind="plain")
    judge = make_labeler(asked, lambda _: model, load_constitution(constitution), 0)
    replies = {
        "initial": ["a", "aaa", "same", "aaaa", "mute"],
        "sl-cai": ["aa", "aa", "same", "b", "b"],
        "rl-cai": ["aaa", "a", "same", "bbb", "mutes"],
    }
    write_policies(tmp_path, replies)
    return compare_policies(judge, tmp_path / "7-evaluate", QuietProgress()), model, tmp_path


def test_wins_ties_and_abstentions(judged):
    found, model, _ = judged
    assert found["policy"] == "rl-cai" and found["judge"] == "longer" and set(found["against"]) == {"initial", "sl-cai"}
    assert (
        found["against"]["sl-cai"]["value"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
        and found["against"]["sl-cai"]["n"] == 4
    )
    assert found["against"]["initial"]["value"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert model.num_questions == 2 * 2 * 4  # two opponents, two orders, four pairs that differ


def test_the_audit_counts_anew_and_says_how_far_the_judge_agrees_with_gold(judged):
    told, _, folder = judged
    found = audit_wins(SimpleNamespace(folder=folder))
    row = found["against"]["sl-cai"]
    assert (found["judge"], found["policy"], row["num_abstained"]) == ("longer", "rl-cai", 1)
    assert row["rate"]["value"] == told["against"]["sl-cai"]["value"]
    assert row["agrees_with_gold"]["value"] == 0 and row["agrees_with_gold"]["n"] == 3  # gold likes brevity
    write_jsonl(folder / "7-evaluate" / "wins" / "sl-cai.jsonl", [{"policy": "rl-cai"}])
    with pytest.raises(DataError, match="a line without one of"):
        audit_wins(SimpleNamespace(folder=folder))


def test_without_a_judge_nothing_is_asked_and_the_reason_is_given(tmp_path):
    assert judge_settings(EvaluateConfig(prompts=PLACE)) is None
    found = audit_wins(SimpleNamespace(folder=tmp_path))
    assert found["against"] == {} and "no judge is named" in found["reason"]


def test_wins_leave_the_key_of_runs_that_say_nothing_of_them_alone():
    assert "wins" not in EvaluateConfig(prompts=PLACE).settings()
    assert "wins" in EvaluateConfig(prompts=PLACE, wins={"principles": "all"}).settings()
