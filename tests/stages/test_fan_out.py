"""Generation and labelling on Ray Data: the bytes of one process, each row once, though a worker is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="Ray is not installed")
pytest.importorskip("psutil", reason="psutil finds the workers to kill")

import psutil
from tests.e2e.conftest import WORDS, make_tiny_model

from charter.config import (
    CheckConfig,
    ConstitutionalConfig,
    LabelConfig,
    ModelConfig,
    ReviseConfig,
    SampleConfig,
    SamplingConfig,
    ScaleConfig,
)
from charter.constitution.load import load_constitution
from charter.errors import ModelError
from charter.labelers.make import make_labeler
from charter.progress import QuietProgress
from charter.records import Message, Prompt, ResponsePair
from charter.stages import fan_out, label, revise, sample
from charter.stages.labeler_models import LabelerModels
from charter.stages.saved import loaded
from charter.store.ledger import Ledger

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns of settings that it makes itself

SCALE = ScaleConfig(fan_out="ray", workers=2)
SAMPLING = SamplingConfig(max_new_tokens=200, batch_size=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelConfig:
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", seed=0)
    return ModelConfig(source=str(folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    words = WORDS.split()
    return [
        Prompt(f"p{i}", (Message("user", f"how do i {words[i % 20]} {words[i // 3 % 20]} ?"),), None) for i in range(25)
    ]


def workers() -> set[int]:
    """Processes that make chunks: descendants of this one, by the name that Ray gives them."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if line and line[0].startswith("ray::") and "Worker" in line[0]:
            found.add(process.pid)
    return found


class KillsOne(QuietProgress):
    """Kills a worker when the first chunk has come back."""

    killed: int | None = None
    calls = 0

    def resume(self, num: int) -> None:
        self.advance(num)

    def advance(self, num: int = 1, note: str = "") -> None:
        self.calls += 1
        if self.calls == 2:  # the first call tells what was done before
            self.killed = min(workers())
            os.kill(self.killed, signal.SIGKILL)


def sampled(folder: Path, prompts, model, task=None, progress=None) -> bytes:
    folder.mkdir(exist_ok=True)
    config, progress = SampleConfig(sampling=SAMPLING), progress or QuietProgress()
    settings = {"prompts": prompts, "seed": 3, "progress": progress}
    if task is None:
        with loaded(model) as own:
            sample.run(config, folder, model=own, **settings)
    else:
        with fan_out.ray_workers(SCALE, task, 1) as execute:
            sample.run(config, folder, model=None, execute=execute, **settings)
    return (folder / "samples.jsonl").read_bytes()


def test_a_killed_worker_changes_no_byte(tmp_path, prompts, model):
    here = sampled(tmp_path / "here", prompts, model)
    killer = KillsOne()
    task = fan_out.sample_task(SampleConfig(sampling=SAMPLING), model, 3)
    (tmp_path / "ray").mkdir()
    # the first three rows are there from an earlier attempt: one chunk, and half of one
    torn = b"".join(here.splitlines(keepends=True)[:3])
    (tmp_path / "ray" / "samples.jsonl").write_bytes(torn)
    away = sampled(tmp_path / "ray", prompts, model, task, killer)
    assert killer.killed is not None and not psutil.pid_exists(killer.killed)
    assert away == here
    ids = [json.loads(line)["pair"]["prompt"]["id"] for line in away.splitlines()]
    assert ids == [prompt.id for prompt in prompts]


def test_labelling_on_ray_with_a_killed_worker_changes_no_byte(tmp_path, prompts, model):
    (tmp_path / "constitution.yaml").write_text(
        "name: tiny\nprinciples:\n- {id: kind, text: be kind .}\n- {id: help, text: help me ., weight: 2}\n"
    )
    constitution = load_constitution(tmp_path / "constitution.yaml")
    words = WORDS.split()
    pairs = [
        ResponsePair(f"pair-{p.id}", p, f"{words[i % 7]} {words[i % 11]}", words[i % 13]) for i, p in enumerate(prompts)
    ]
    labeler = ConstitutionalConfig(model=model, batch_size=2)
    config = LabelConfig(labeler=labeler, check=CheckConfig(num_controls=2), min_coverage=0)

    def label_in(folder: Path, execute=None, progress=None) -> bytes:
        folder.mkdir(exist_ok=True)
        with Ledger(folder / "ledger.sqlite") as ledger, LabelerModels(ledger) as models:
            label.run(
                config, folder, pairs=pairs, labeler=make_labeler(labeler, models, constitution, 3), gold=None,
                progress=progress or QuietProgress(), execute=execute,
            )  # fmt: skip
        return (folder / "judgments.jsonl").read_bytes()

    here, killer = label_in(tmp_path / "here"), KillsOne()
    task = fan_out.label_task(config, 3, tmp_path / "constitution.yaml")
    assert task is not None
    with fan_out.ray_workers(SCALE, task, 1) as execute:
        away = label_in(tmp_path / "ray", execute, killer)
    assert killer.killed is not None and not psutil.pid_exists(killer.killed)
    assert away == here
    assert (tmp_path / "ray" / "preferences.jsonl").read_bytes() == (
        tmp_path / "here" / "preferences.jsonl"
    ).read_bytes()


def test_labelers_behind_an_endpoint_stay_in_one_place(tmp_path):
    far = ConstitutionalConfig(model=ModelConfig(source="http://127.0.0.1:9/v1#judge"))
    assert fan_out.label_task(LabelConfig(labeler=far), 0, tmp_path / "constitution.yaml") is None


def test_revising_on_ray_and_what_the_user_can_mend(tmp_path, prompts, model):
    (tmp_path / "constitution.yaml").write_text(
        "name: tiny\nprinciples:\n- {id: kind, text: be kind .}\n- {id: help, text: help me ., weight: 2}\n"
    )
    constitution = load_constitution(tmp_path / "constitution.yaml")
    config = ReviseConfig(rounds=2, sampling=SamplingConfig(max_new_tokens=6, batch_size=4))
    settings = {"prompts": prompts[:10], "constitution": constitution, "seed": 3, "progress": QuietProgress()}
    for name in ("here", "ray", "broken"):
        (tmp_path / name).mkdir()
    with loaded(model) as own:
        here = revise.run(config, tmp_path / "here", model=own, **settings)
    task = fan_out.revise_task(config, model, 3, tmp_path / "constitution.yaml")
    with fan_out.ray_workers(SCALE, task, 1) as execute:
        away = revise.run(config, tmp_path / "ray", model=None, execute=execute, **settings)
        gone = {**task, "model": {**task["model"], "source": str(tmp_path / "gone")}}
        broken = fan_out.chunks_on_ray(SCALE, gone, 1)
        with pytest.raises(ModelError, match="there is no folder"):
            revise.run(config, tmp_path / "broken", model=None, execute=broken, **settings)
    assert away == here
    assert (tmp_path / "ray" / "revisions.jsonl").read_bytes() == (tmp_path / "here" / "revisions.jsonl").read_bytes()
