"""JSON files are whole or absent, and a broken line is named."""

import errno
import json
import os

import pytest

from charter.errors import DataError, StoreError
from charter.records import Message, Prompt
from charter.store import disk
from charter.store.jsonl import JsonlAppender, read_json, read_jsonl, read_spans, write_json, write_jsonl

PROMPTS = [Prompt(f"p{i}", (Message("user", f"line\u2028{i} é"),), harmful=bool(i % 2)) for i in range(40)]


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "prompts.jsonl"
    write_jsonl(path, PROMPTS)
    assert list(read_jsonl(path, Prompt)) == PROMPTS
    assert [p.name for p in path.parent.iterdir()] == ["prompts.jsonl"]


def test_spans_of_the_first_row_of_each_group_and_of_those_that_tell(tmp_path):
    ids, path = ["é", "é", "b", "b", "b", "\ud800", "\ud800"], tmp_path / "rows.jsonl"
    rows = [{"id": id, "why": "failed" if place == 3 else None} for place, id in enumerate(ids)]
    write_jsonl(path, rows)
    whole = path.read_bytes()
    starts = [0, *(place + 1 for place, byte in enumerate(whole) if byte == 10)]
    path.write_bytes(whole + b'{"id": "c", "wh')  # torn
    found = list(read_spans(path, "id", ["failed"]))
    assert found == [(starts[place], rows[place]) for place in (0, 2, 3, 5, 6)]  # what isn't UTF-8 is always read


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "p", "messages": [{"role": "user", "content": "a"}]}\r\n')
    assert [prompt.id for prompt in read_jsonl(tmp_path / "a.jsonl", Prompt)] == ["p"]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]


@pytest.mark.parametrize(
    "told", [OSError(errno.EIO, "Input/output error"), Exception("Input/output error (os error 5)")]
)
def test_a_broken_disk_is_told_in_one_line_by_whichever_library(told, tmp_path):
    with (
        pytest.raises(StoreError, match="model: input/output error: check the disk"),
        disk.store_errors(tmp_path / "model"),
    ):
        raise told
    with pytest.raises(ValueError, match="other"), disk.store_errors(tmp_path):
        raise ValueError("other")
    with pytest.raises(DataError), disk.store_errors(tmp_path):
        raise DataError("a row says (os error 5)")


def test_lone_surrogate_survives(tmp_path):
    prompt = Prompt("p", (Message("user", "bad \ud800 end"),))
    write_jsonl(tmp_path / "a.jsonl", [prompt])
    assert list(read_jsonl(tmp_path / "a.jsonl", Prompt)) == [prompt]


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b"\xff", b'{"id": "x"}', b'{"id": "x", "messages": [], "extra": 1}', b"[" * 100_000]
)
def test_broken_line_17_is_named(tmp_path, line):
    path = tmp_path / "prompts.jsonl"
    good = json.dumps(PROMPTS[0].to_json()).encode()
    path.write_bytes(b"\n".join([good] * 16 + [line] + [good] * 3))
    with pytest.raises(DataError, match=r"prompts\.jsonl:17: ") as caught:
        list(read_jsonl(path, Prompt))
    assert "\n" not in str(caught.value)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, PROMPTS)
    before = path.read_bytes()

    def rows():
        yield PROMPTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"x": [1, "é"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, "é"]}


def test_appender_mends_a_torn_tail(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonlAppender(path) as file:
        file.append(PROMPTS[:2])
        file.append(PROMPTS[2:3])
    with path.open("ab") as torn:
        torn.write(b'{"id": "half' + b"x" * 200_000)
    with JsonlAppender(path) as file:
        file.append(PROMPTS[3:4])
    assert list(read_jsonl(path, Prompt)) == PROMPTS[:4]


def test_appender_takes_back_what_did_not_fit(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    real = os.write
    with JsonlAppender(path) as file:
        file.append(PROMPTS[:2])
        calls = []

        def full(descriptor, data):
            calls.append(1)
            if len(calls) == 1:
                return real(descriptor, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="no space left.*free some space"):
            file.append(PROMPTS[2:])
    monkeypatch.undo()
    assert list(read_jsonl(path, Prompt)) == PROMPTS[:2]


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(StoreError, match="no space left on device: free some space"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []
