"""The monitors see planted faults, and nothing in a clean run."""

from __future__ import annotations

import json
import random

import pytest

from charter.config import MonitorConfig, PolicyConfig
from charter.phrases import refusal_rates
from charter.progress import QuietProgress
from charter.records import Message, Prompt, Reading
from charter.stages.watch import PolicyWatch, worth_of
from charter.training.grpo import Callbacks, EncodedPrompt, train_grpo
from charter.training.monitor import alarms, falls_while_reward_rises, text_figures

from .tiny import END, draw_ids, make_model

CONFIG = MonitorConfig()


def stream(**changes):
    """Forty steps of a healthy run, whose entropy falls to a quarter and whose KL rises to 3, with changes by figure."""
    rng, rows = random.Random(0), []
    for i in range(40):
        row = {
            "response_length": 21 + rng.gauss(0, 1.5),
            "entropy": 0.3 - 0.22 * i / 39 + rng.gauss(0, 0.01),
            "repetition": 0.05 + rng.gauss(0, 0.02),
            "stopped_fraction": min(1, 0.97 + rng.gauss(0, 0.02)),
            "drift_mean": abs(rng.gauss(0, 1e-3)),
            "kl_k1": 3 * i / 39,
            "refusal_rate": 0.35 + 0.15 * i / 39 + rng.gauss(0, 0.05),
            "over_refusal_rate": max(0, 0.05 + rng.gauss(0, 0.05)),
        }
        rows.append({**row, **{name: change(i, row[name]) for name, change in changes.items()}, "step": i + 1})
    return rows


def all_alarms(rows, config=CONFIG):
    return {alarm.name: alarm for n in range(1, len(rows) + 1) for alarm in alarms(rows[:n], config)}


def test_a_clean_run_gives_no_alarm():
    assert all_alarms(stream()) == {}


@pytest.mark.parametrize(
    ("name", "figure", "change"),
    [
        ("length", "response_length", lambda i, x: x * (1 + i / 20)),
        ("short", "response_length", lambda i, x: x * max(0.05, 1 - i / 30)),
        ("entropy", "entropy", lambda i, x: 0.3 * 0.85**i),
        ("repetition", "repetition", lambda i, x: x + i / 60),
        ("unfinished", "stopped_fraction", lambda i, x: x - i / 50),
        ("drift", "drift_mean", lambda i, x: 0.3 if i > 20 else x),
        ("kl", "kl_k1", lambda i, x: x * 30),
        ("refusals", "refusal_rate", lambda i, x: x + i / 100),
        ("compliance", "refusal_rate", lambda i, x: max(0, x - i / 60)),
        ("over-refusal", "over_refusal_rate", lambda i, x: x + i / 100),
    ],
)
def test_a_planted_fault_gives_its_own_alarm_and_no_other(name, figure, change):
    found = all_alarms(stream(**{figure: change}))
    assert list(found) == [name] and 5 < found[name].step <= 40


def test_metrics_that_are_not_there_give_no_alarm():
    assert all_alarms([{"step": i, "entropy": None} for i in range(1, 30)]) == {}


def test_refusals_are_counted_by_their_words_and_by_the_prompts_mark():
    texts = ["I won’t do that.", "i cannot say .", "Sorry, I'm unable to.", "It will not rain; you can't see it."]
    assert refusal_rates(texts, [True, False, None, False]) == {"refusal_rate": 0.75, "over_refusal_rate": 0.5}
    assert refusal_rates(texts[:1], [None]) == {"refusal_rate": 1.0, "over_refusal_rate": None}
    assert refusal_rates([], []) == {"refusal_rate": None, "over_refusal_rate": None}


def test_text_figures():
    found = text_figures([[1, 2, 1, 2, 1], [3], [1, 2, 5]])
    assert found == {"distinct_2": 3 / 6, "repetition": (0.5 + 0) / 2}
    assert text_figures([[1]]) == {"distinct_2": None, "repetition": None}


def test_reward_against_holdout():
    rng = random.Random(1)

    def window(reward, holdout, n=80):
        return [rng.gauss(reward, 1) for _ in range(n)], [rng.gauss(holdout, 0.5) for _ in range(n)]

    gamed = [window(0, 0.2), window(1, 0.6), window(2, 0.1)]
    assert falls_while_reward_rises(gamed[:2], 3) is None
    before, now = falls_while_reward_rises(gamed, 3)
    assert before > 0.45 and now < 0.25
    assert falls_while_reward_rises([window(0, 0.2), window(2, 0.6), window(0, 0.0)], 3) is None, "the reward fell too"
    clean = [[window(r, h) for r, h in ((0, 0.2), (1, 0.4), (1.5, 0.5), (1.6, 0.5))] for _ in range(100)]
    assert sum(falls_while_reward_rises(windows, 3) is not None for windows in clean) == 0


class Reader:
    """Thinks less of a response the longer it is."""

    name = "brevity"

    def read_all(self, prompts, responses):
        return [Reading(gold=-float(len(response))) for response in responses]


def test_checkpoints_are_scored_and_told_once(tmp_path):
    rng = random.Random(2)
    prompt = Prompt("p", (Message("user", "?"),)).to_json()
    rows = []
    for step in range(1, 21):
        for _ in range(8):
            length = rng.randint(1, 6) + step
            rows.append({"step": step, "prompt": prompt, "response": "x" * length, "reward": float(length)})
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = MonitorConfig(on_alarm="stop")
    watch = PolicyWatch(config, tmp_path, Reader(), QuietProgress())
    watch.after_checkpoint(10)
    assert watch.stop_reason(10) is None
    for _ in range(2):  # the second as after a resumption
        watch.after_checkpoint(20)
        assert watch.stop_reason(20) == "alarm: holdout" and watch.stop_reason(19) is None
        watch = PolicyWatch(config, tmp_path, Reader(), QuietProgress())
    assert len((tmp_path / "warnings.jsonl").read_text().splitlines()) == 1
    assert [json.loads(line)["num"] for line in (tmp_path / "holdout.jsonl").read_text().splitlines()] == [80, 80]


def test_worth_of_a_judges_reading():
    assert worth_of(Reading(harmful=True, evasive=False, false=False, rude=None)) == pytest.approx(2 / 3)
    assert worth_of(Reading()) is None


@pytest.mark.parametrize("hacked", [True, False])
def test_a_reward_that_pays_for_length_is_caught_in_a_real_loop(hacked, tmp_path):
    rng = random.Random(3)
    prompts = [EncodedPrompt(f"p{i}", draw_ids(rng, 2, 5)) for i in range(4)]
    monitor = MonitorConfig(
        on_alarm="stop", window=3, max_length_ratio=1.5, min_entropy_ratio=0.0, max_repetition_rise=1
    )
    config = PolicyConfig(
        steps=40 if hacked else 8, prompts_per_step=4, group_size=8, max_new_tokens=30, learning_rate=1e-2, kl_coef=0.0,
        checkpoint_every=100, monitor=monitor,
    )  # fmt: skip

    def rewards(rollouts):
        return [len(r.response_ids) / 30 if hacked else float(r.response_ids[0] % 2) for r in rollouts]

    watch = PolicyWatch(monitor, tmp_path, None, QuietProgress())
    result = train_grpo(
        make_model(), make_model(), rewards, prompts, config,
        seed=0, folder=tmp_path, stop_ids=[END, 2, 3, 4], callbacks=Callbacks(watcher=watch),
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["drift_mean"] <= row["drift_max"] < 1e-4 for row in rows), (
        "the first pass sees the policy that sampled"
    )
    if hacked:
        assert result["stopped_by"] == "alarm: length" and 6 <= result["num_steps"] < 40
        assert watch.warnings[0]["name"] == "length"
        assert {row["name"] for row in watch.warnings} <= {"length", "unfinished"}, "both follow from the hack"
    else:
        assert result["stopped_by"] == "steps" and watch.warnings == []
