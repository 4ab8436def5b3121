"""What a tracker shows is what metrics.jsonl says."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from charter import tracking
from charter.errors import ConfigError
from charter.store.jsonl import write_jsonl
from charter.tracking import check_tracker, track


def _read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra tensorboard"
    )
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_every_number_of_the_metrics_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    rows = [
        {"step": 1, "loss": 0.5, "kl_k1": 0.0, "note": "x", "gold": None},
        {"step": 2, "loss": 0.25, "kl_k1": 1.5, "sources": {"check": {"mean": 0.5}}},
    ]
    (tmp_path / "6-policy").mkdir()
    write_jsonl(tmp_path / "6-policy" / "metrics.jsonl", rows)
    assert [track(tmp_path, "6-policy") for _ in range(2)] == [(5, None)] * 2  # the second as after a resumed run
    assert _read_back(tmp_path / "tensorboard" / "6-policy") == {
        "6-policy/loss": [(1, 0.5), (2, 0.25)],
        "6-policy/kl_k1": [(1, 0.0), (2, 1.5)],
        "6-policy/sources/check/mean": [(2, 0.5)],
    }


def test_a_stage_without_metrics_gets_no_folder(tmp_path: Path) -> None:
    assert track(tmp_path, "1-revise") == (0, None)
    assert not (tmp_path / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charter.tracking.find_spec", lambda name: None)
    check_tracker(None)
    with pytest.raises(
        ConfigError, match=r"tracker: tensorboard is not installed: pip install 'charter\[tensorboard\]'"
    ):
        check_tracker("tensorboard")


def _metrics(folder: Path) -> None:
    (folder / "5-reward").mkdir()
    write_jsonl(folder / "5-reward" / "metrics.jsonl", [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])


def test_trackio_writes_into_the_run_folder(tmp_path: Path) -> None:
    """In a process of its own, since trackio finds its folder when it is imported."""
    pytest.importorskip("trackio", reason="needs the extra trackio")
    _metrics(tmp_path)
    code = "import sys, pathlib; from charter.tracking import track; print(track(pathlib.Path(sys.argv[1]), '5-reward', 'trackio', 'mine'))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "(2, None)", done.stdout + done.stderr
    with sqlite3.connect(next((tmp_path / "trackio").glob("*.db"))) as database:
        assert [row[0] for row in database.execute("select step from metrics order by step")] == [1, 2]


def test_mlflow_shows_a_stage_once(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    from mlflow.tracking import MlflowClient

    _metrics(tmp_path)
    assert [track(tmp_path, "5-reward", "mlflow", "mine") for _ in range(2)] == [(2, None)] * 2
    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    history = client.get_metric_history(run.info.run_id, "5-reward/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]


def test_wandb_writes_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    _metrics(tmp_path)
    assert track(tmp_path, "5-reward", "wandb", "mine") == (2, None)
    assert list((tmp_path / "wandb").glob("wandb/offline-run-*/*.wandb"))


def test_a_tracker_that_fails_is_told_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no disk\nleft")

    monkeypatch.setitem(tracking._WRITERS, "wandb", broken)
    assert track(tmp_path, "5-reward", "wandb") == (0, "RuntimeError: no disk left")
