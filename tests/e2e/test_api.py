"""``charter.api``: the stages from Python give what the run's own stages give, also inside a running event loop."""

import asyncio
import shutil
import subprocess
import sys

import pytest

from charter import api
from charter.errors import CharterError, ConfigError, StoreError
from charter.records import Abstention, PreferencePair, ResponsePair
from charter.run_file import load_run


def test_a_run_folder_as_records(whole):
    run = api.load_run(whole)
    assert len(run.revisions()) == 12 and len(run.prompts()) == 24
    assert {pair.id for pair in run.preferences()} <= {pair.id for pair in run.pairs()}
    assert {judgment.pair_id for judgment in run.judgments()} >= {pair.id for pair in run.preferences()}
    assert run.figures()["name"] == "tiny"


def test_an_audit_from_python_lies_in_the_run_folder(whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "run")
    assert api.load_run(copy).audit()["verdict"] == api.audit(copy)["verdict"]


def test_frames(whole):
    pytest.importorskip("pandas", reason="pandas is not installed")
    frames = api.load_run(whole).to_frames()
    assert list(frames["preferences"].p_a) == [pair.p_a for pair in api.load_run(whole).preferences()]
    assert set(frames) == {"prompts", "revisions", "pairs", "judgments", "preferences"}


def test_stages_inside_an_event_loop_give_what_the_run_gave(tiny_world, whole, tmp_path):
    finished, config = api.load_run(whole), load_run(tiny_world / "run.yaml")

    async def notebook():
        again = api.run(tiny_world / "run.yaml", whole)
        pairs = finished.pairs()
        labelled = api.label(pairs, config.label.labeler, tiny_world / "constitution.yaml")
        prompts = [chain.prompt for chain in finished.revisions()]
        chains = api.critique_revise(
            prompts, config.model, tiny_world / "constitution.yaml", rounds=2, max_new_tokens=8, batch_size=4
        )
        trained = api.train_reward(
            finished.preferences(), config.model, tmp_path / "reward", batch_size=4, learning_rate=1e-3
        )
        return again, labelled, chains, trained

    again, labelled, chains, trained = asyncio.run(notebook())
    assert again.figures() == finished.figures()
    soft = {row.pair.id: row.outcome for row in labelled if not isinstance(row.outcome, Abstention)}
    assert soft == {pair.id: pair.p_a for pair in finished.preferences()}
    # temperatures of a run's critiques and revisions are the api's; rows draw from the same seeds
    assert chains == finished.revisions()
    assert trained["num_train"] + trained["num_held_out"] + trained["num_left_out"] == len(finished.preferences())
    assert (tmp_path / "reward" / "5-reward" / "model" / "model.safetensors").is_file()


def test_plain_text_will_do(tiny_world):
    (row,) = api.label([("help me ?", "yes .", "no .")], str(tiny_world / "labeler"), tiny_world / "constitution.yaml")
    assert isinstance(row.pair, ResponsePair) and row.pair.prompt.messages[0].content == "help me ?"
    assert len(row.judgments) == 4  # two principles in both orders
    (chain,) = api.critique_revise(
        ["help me ?"], tiny_world / "helpful", tiny_world / "constitution.yaml", rounds=1, max_new_tokens=4
    )
    assert len(chain.rounds) == 1


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda world: api.load_run(world / "none"), StoreError, "no run folder there"),
        (lambda world: api.label([], {"kind": "constitutionl"}, "general"), ConfigError, "constitutionl"),
        (lambda world: api.label([], {"kind": "plain", "model": {"source": "x"}, "vots": 3}, "general"), ConfigError, "did you mean 'votes'"),
        (lambda world: api.label([("p", "a", "b")], "./no-model", "general"), CharterError, "no-model"),
        (lambda world: api.train_reward([PreferencePair("x", None, "", "", 0.5)], "x", world, epoch=1), ConfigError, "epoch"),
        (lambda world: api.critique_revise([], "x", "generl"), CharterError, "no shipped constitution"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line(tiny_world, call, error, says):
    with pytest.raises(error, match=says) as told:
        call(tiny_world)
    assert "\n" not in str(told.value)


def test_importing_it_loads_nothing_heavy():
    code = "import sys, charter.api; assert not {'torch', 'transformers', 'pandas', 'pydantic'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
