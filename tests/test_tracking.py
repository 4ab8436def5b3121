"""What a tracker shows is what metrics.jsonl says."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    rows = [{"step": 1, "loss": 0.5, "kl_k1": 0.0, "note": "x", "gold": None}, {"step": 2, "loss": 0.25, "kl_k1": 1.5}]
    (tmp_path / "6-policy").mkdir()
    write_jsonl(tmp_path / "6-policy" / "metrics.jsonl", rows)
    assert [track(tmp_path, "6-policy") for _ in range(2)] == [4, 4]  # the second as after a resumed run
    assert _read_back(tmp_path / "tensorboard" / "6-policy") == {
        "6-policy/loss": [(1, 0.5), (2, 0.25)],
        "6-policy/kl_k1": [(1, 0.0), (2, 1.5)],
    }


def test_a_stage_without_metrics_gets_no_folder(tmp_path: Path) -> None:
    assert track(tmp_path, "1-revise") == 0
    assert not (tmp_path / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charter.tracking.find_spec", lambda name: None)
    check_tracker(None)
    with pytest.raises(ConfigError, match=r"tracker: tensorboard is not installed: pip install 'charter\[tensorboard\]'"):
        check_tracker("tensorboard")
