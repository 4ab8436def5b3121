"""Several processes train as one does: the same curves and weights; a killed one is replaced; nothing hangs."""

import json
import sys
from pathlib import Path

import pytest
import torch

from charter.config import ScaleConfig
from charter.errors import ConfigError, TrainingError
from charter.training import distributed
from charter.training.launch import launch
from charter.training.optimise import Trainer

from . import ranks
from .tiny import make_model

SCRIPT = str(Path(__file__).with_name("ranks.py"))
LOOPS = "sft,reward,dpo,grpo,ppo"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def together(folder, sharding, loops, *more, **settings):
    folder.mkdir(exist_ok=True)
    told = []
    config = ScaleConfig(processes=2, sharding=sharding, **settings)
    found = launch(config, [SCRIPT, str(folder), "2", sharding, loops, *more], folder, told.append, 1)
    return found, told


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return {loop: json.loads(json.dumps(ranks.train(loop, folder))) for loop in LOOPS.split(",")}


def assert_alike(found, alone, loop):
    """Every metric of every step, and every weight, to 1e-4 of its size."""
    ours, theirs = found[loop], alone[loop]
    assert [row.keys() for row in ours["rows"]] == [row.keys() for row in theirs["rows"]]
    for row, expected in zip(ours["rows"], theirs["rows"], strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-5), loop
    assert ours["weights"] == pytest.approx(theirs["weights"], rel=1e-4), loop


@pytest.mark.parametrize(("sharding", "starter"), [("ddp", ()), ("fsdp", TORCHRUN)])
def test_two_processes_find_what_one_does(sharding, starter, alone, tmp_path):
    found, told = together(tmp_path, sharding, LOOPS, launch=starter)
    assert told == []
    assert len(found["sft"]["rows"]) == 9 and found["sft"]["rows"][0]["loss"] != found["sft"]["rows"][-1]["loss"]
    for loop in LOOPS.split(","):
        assert_alike(found, alone, loop)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_train_the_same_adapters(sharding, tmp_path):
    """By PPO policy and value model are trained, over one base."""
    pytest.importorskip("peft", reason="PEFT is not installed")
    loops = ["lora", "lora-sft", "lora-reward"]
    alone = {loop: json.loads(json.dumps(ranks.train(loop, tmp_path / "alone"))) for loop in loops}
    found, _ = together(tmp_path / "together", sharding, ",".join(loops))
    for loop in loops:
        assert_alike(found, alone, loop)
        assert any("lora_B" in name and size > 0 for name, size in found[loop]["weights"].items())


def test_a_killed_process_is_replaced_and_the_curve_is_the_same(alone, tmp_path):
    found, told = together(tmp_path, "fsdp", "sft", "5")
    assert len(told) == 1 and "SIGKILL" in told[0]
    assert len(found["sft"]["rows"]) == 5, "it went on from the checkpoint after 4 of 9 updates"
    rows = [json.loads(line) for line in (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()]
    found["sft"]["rows"] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert_alike(found, alone, "sft")


def test_one_process_goes_on_from_the_checkpoint_of_two(alone, tmp_path):
    with pytest.raises(TrainingError, match=r"a process was ended by SIGKILL, 1 times in all: read .*processes.log"):
        together(tmp_path, "fsdp", "sft", "5", restarts=0)
    assert (tmp_path / "sft" / "checkpoint" / "step-00000004" / "shards").is_dir()
    found = {"sft": ranks.train("sft", tmp_path)}
    assert len(found["sft"]["rows"]) == 5
    found["sft"]["rows"] = alone["sft"]["rows"][:4] + found["sft"]["rows"]
    assert_alike(found, alone, "sft")


def test_silence_counts_as_death(tmp_path):
    config = ScaleConfig(processes=2, sharding="ddp", restarts=1, stall_seconds=0.5)
    told = []
    with pytest.raises(TrainingError, match="no sign of life for 0 s, 2 times in all"):
        launch(config, ["-c", "import time; time.sleep(60)"], tmp_path, told.append, 1)
    assert len(told) == 1


def test_what_the_user_can_mend_is_told_at_once(tmp_path):
    code = f"from charter.errors import DataError; from charter.training.launch import *; tell_error(Path({str(tmp_path)!r}), DataError('no data: get some')); exit(2)"
    with pytest.raises(Exception, match="no data: get some") as caught:
        launch(ScaleConfig(processes=2, sharding="ddp"), ["-c", code], tmp_path, pytest.fail, 1)
    assert type(caught.value).__name__ == "DataError"


def test_the_number_of_processes_is_asserted(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ConfigError, match="scale.processes is 2, but 1 were started"):
        distributed.join(2, "ddp", 5)


@pytest.mark.parametrize("settings", [{"processes": 2}, {"sharding": "fsdp"}])
def test_processes_and_sharding_go_together(settings):
    with pytest.raises(ValueError, match="several processes need ddp or fsdp"):
        ScaleConfig(**settings)


def test_alone_nothing_is_shared(tmp_path):
    model = make_model()
    trainer = Trainer(model, tmp_path, num_steps=1, learning_rate=1e-3, warmup_fraction=0, settings=[])
    assert trainer.model is model and distributed.share([1, 2]) == ([1, 2], 0) and distributed.gathered([3]) == [3]
    value = torch.ones(2)
    assert distributed.total(value) is value and distributed.total(1.5) == 1.5


def test_rows_are_dealt_out_evenly(monkeypatch):
    from charter.training.packing import PackedRow

    rows = [PackedRow([1], [[1] * (1 + i % 7)]) for i in range(20)]
    dealt = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "_world", distributed.World(rank, 3, "ddp"))
        dealt.append([i for piece, _ in distributed.passes(rows, 1000) for i in piece])
        assert distributed.share(range(10))[0] == list(range(10))[10 * rank // 3 : 10 * (rank + 1) // 3]
    assert sorted(sum(dealt, [])) == list(range(20))
    loads = [sum(len(rows[i]) for i in own) for own in dealt]
    assert max(loads) - min(loads) <= 8
