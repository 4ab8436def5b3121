"""One process per run folder, manifests last, verify names what flipped."""

import os
import subprocess
import sys
import time

import pytest

from charter.errors import StoreError
from charter.store.folder import RunFolder, verify
from charter.store.hashing import hash_folder, hash_json
from charter.store.jsonl import read_rows, write_json, write_jsonl
from charter.store.whole import WHOLE, close, note, reopen, unknown, unverified

HOLD = (
    "import sys, time, pathlib; from charter.store.folder import RunFolder\n"
    "with RunFolder.open(pathlib.Path(sys.argv[1])) as run:\n    print('held', flush=True); time.sleep(60)"
)


def test_second_process_is_told_who_works_here(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(StoreError, match=rf"process {holder.pid} on .*--out"):
                RunFolder.open(tmp_path)
        finally:
            holder.kill()
    with RunFolder.open(tmp_path):  # a killed process holds nothing
        pass


def _finished(run, name="1-revise", key="k1"):
    stage = run.stage(name)
    with stage.attempt():
        write_jsonl(stage.path / "rows.jsonl", [{"a": 1}, {"a": 2}])
        (stage.path / "model").mkdir()
        (stage.path / "model" / "weights.bin").write_bytes(bytes(1000))
        stage.finish(key, {"num_rows": 2})
    return stage


def test_a_stage_is_done_under_its_key_only(tmp_path):
    with RunFolder.open(tmp_path) as run:
        stage = run.stage("1-revise")
        assert not stage.is_done("k1") and stage.done_key() is None
        with pytest.raises(StoreError, match="isn't finished"):
            stage.summary()
        stage = _finished(run)
        assert stage.is_done("k1") and not stage.is_done("k2") and stage.done_key() == "k1"
        assert stage.summary()["num_rows"] == 2 and stage.summary()["wall_seconds"] >= 0
        stage.clear()
        assert not stage.is_done("k1") and list(stage.path.iterdir()) == []


def test_what_a_killed_process_had_half_written_is_swept_away(tmp_path):
    with RunFolder.open(tmp_path) as run:
        stage = _finished(run)
    ended = subprocess.Popen(["true"])
    ended.wait()
    (stage.path / f".done.json.{ended.pid}.tmp").write_text("{")
    theirs = stage.path / f".rows.jsonl.{os.getppid()}.tmp"  # somebody's who lives
    theirs.write_text("")
    assert [line for line in verify(tmp_path) if "done.json" in line]
    with RunFolder.open(tmp_path):
        assert not [path for path in stage.path.iterdir() if f".{ended.pid}." in path.name] and theirs.exists()
    theirs.unlink()
    assert verify(tmp_path) == []


def test_a_clock_that_is_set_back_takes_no_time_away(tmp_path, monkeypatch):
    with RunFolder.open(tmp_path) as run:
        stage = run.stage("1-revise")
        with stage.attempt():
            monkeypatch.setattr(time, "time", lambda: 1000.0)  # on the wall; the monotonic one goes on
            stage.finish("k1", {})
        assert 0 <= stage.summary()["wall_seconds"] < 60
        (row,) = [row for _, row in read_rows(stage.path / "attempts.jsonl") if row["end"] is not None]
        assert row["end"] >= row["start"]


def test_time_is_summed_over_attempts_and_a_killed_one_counts(tmp_path):
    with RunFolder.open(tmp_path) as run:
        stage = run.stage("1-revise")
        now = time.time()
        write_jsonl(
            stage.path / "attempts.jsonl",
            [
                {"start": now - 500, "end": now - 400, "host": "h", "pid": 1},
                {"start": now - 300, "end": None, "host": "h", "pid": 2},
            ],
        )
        (stage.path / "rows.jsonl").write_text("")
        for path in stage.path.iterdir():
            os.utime(path, (now - 280, now - 280))
        assert 120 <= _finished(run).summary()["wall_seconds"] < 121
        assert [row["end"] is None for _, row in read_rows(stage.path / "attempts.jsonl")] == [
            False,
            True,
            False,
            True,
            False,
        ]


def test_missing_file_is_noticed_on_resume(tmp_path):
    with RunFolder.open(tmp_path) as run:
        stage = _finished(run)
        (stage.path / "model" / "weights.bin").unlink()
        with pytest.raises(StoreError, match=r"weights\.bin: changed or missing.*delete"):
            stage.is_done("k1")


def test_verify_names_each_changed_file(tmp_path):
    with RunFolder.open(tmp_path) as run:
        first, second = _finished(run), _finished(run, "2-sft")
    assert verify(tmp_path) == []
    weights = bytearray((first.path / "model" / "weights.bin").read_bytes())
    weights[500] ^= 1
    (first.path / "model" / "weights.bin").write_bytes(weights)
    (second.path / "rows.jsonl").unlink()
    (second.path / "more.jsonl").write_text("")
    assert verify(tmp_path) == [
        "1-revise/model/weights.bin: content changed since the stage was finished",
        "2-sft/rows.jsonl: missing",
        "2-sft/more.jsonl: not there when the stage was finished",
    ]


def test_verify_notices_a_doctored_manifest(tmp_path):
    with RunFolder.open(tmp_path) as run:
        path = _finished(run).path / "done.json"
    path.write_text(path.read_text().replace('"num_rows": 2', '"num_rows": 3'))
    assert verify(tmp_path) == ["1-revise/done.json: the manifest itself was changed"]
    path.write_text("{")
    assert "done.json:1: not valid JSON" in verify(tmp_path)[0]


def test_bad_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        RunFolder.open(tmp_path / "file")
    with pytest.raises(StoreError, match="no run folder"):
        verify(tmp_path / "nowhere")
    with RunFolder.open(tmp_path / "run") as run, pytest.raises(ValueError, match="no stage name"):
        run.stage("../elsewhere")


def test_hashes_follow_content_not_order_or_caches(tmp_path):
    assert hash_json({"a": 1, "b": [1.5, "é"]}) == hash_json({"b": [1.5, "é"], "a": 1})
    # sha256 of {"a":1}
    assert hash_json({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    write_json(tmp_path / "x" / "a.json", 1)
    before = hash_folder(tmp_path)
    write_json(tmp_path / "__pycache__" / "a.json", 1)
    assert hash_folder(tmp_path) == before
    (tmp_path / "x").rename(tmp_path / "y")
    assert hash_folder(tmp_path) != before


def test_a_closed_run_is_verified_to_the_last_byte(tmp_path):
    with RunFolder.open(tmp_path) as run:
        _finished(run)
    for name in ("summary.json", "run.yaml", "ledger.sqlite", "8-audit/audit.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": [1,\n 2]}\n')
    assert verify(tmp_path) == []
    close(tmp_path)
    assert verify(tmp_path) == []
    for path in [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".")]:
        before = path.read_bytes()
        for at in {0, len(before) // 2, len(before) - 1}:
            path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
            name = path.relative_to(tmp_path).as_posix()
            assert any(name in line for line in verify(tmp_path)), (name, at)
        path.write_bytes(before)
    (tmp_path / "run.yaml").unlink()
    assert verify(tmp_path) == ["run.yaml: missing"]


def test_a_file_written_anew_is_noted_and_blesses_no_other(tmp_path):
    for name in ("report.html", "summary.json"):
        (tmp_path / name).write_text("before")
    note(tmp_path, ["report.html"])
    assert not (tmp_path / WHOLE).exists()  # the run isn't closed
    close(tmp_path)
    for name in ("report.html", "summary.json"):
        (tmp_path / name).write_text("after")
    note(tmp_path, ["report.html"])
    assert verify(tmp_path) == ["summary.json: content changed since the run was finished"]
    reopen(tmp_path)
    assert verify(tmp_path) == []


def test_every_file_is_known_or_told(tmp_path):
    run = tmp_path / "run"
    with RunFolder.open(run) as folder:
        stage = _finished(folder).path
    (stage / ".key").write_text("k1")
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / ".settings").write_text("of the tracker")
    (run / "wandb" / "latest").symlink_to("run-1")  # as trackers do
    assert verify(run) == [] and unverified(run) == ["1-revise/attempts.jsonl", "wandb/.settings"]
    close(run)
    assert verify(run) == [] and unverified(run) == []

    (run / "sitecustomize.py").write_text("print()")
    (run / ".hidden").mkdir()
    (run / ".hidden" / "a").write_text("")
    (stage / ".more").write_text("")
    (stage / ".key").write_text("k2")
    (run / "8-audit").symlink_to(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes((stage / "rows.jsonl").read_bytes())  # the same content, for now
    (stage / "rows.jsonl").unlink()
    (stage / "rows.jsonl").symlink_to(tmp_path / "rows.jsonl")
    os.mkfifo(run / "pipe")
    expected = [
        f"1-revise/rows.jsonl: a link to {tmp_path / 'rows.jsonl'}, no file of the run",
        f"8-audit: a link to {tmp_path}, no file of the run",
        "pipe: no plain file",
        "1-revise/.key: not the key under which the stage was finished",
        "1-revise/.more: not there when the stage was finished",
        ".hidden/a: not there when the run was finished",
        "sitecustomize.py: not there when the run was finished",
    ]
    assert verify(run) == expected
    reopen(run)
    assert unknown(unverified(run)) == [".hidden/a", "sitecustomize.py"]


def test_writes_beside_a_database_are_not_verified(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("x")
    close(tmp_path)
    (tmp_path / "ledger.sqlite-wal").write_text("")
    assert (verify(tmp_path), unverified(tmp_path)) == ([], [])
    (tmp_path / "ledger.sqlite-wal").write_text("pages")
    assert (verify(tmp_path), unverified(tmp_path)) == ([], ["ledger.sqlite-wal"])
