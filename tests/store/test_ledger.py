"""Nothing is asked twice: the first answer stays, whoever writes."""

import subprocess
import sys

import pytest

from charter.errors import StoreError
from charter.store.ledger import Ledger

WRITE = (
    "import sys, pathlib; from charter.store.ledger import Ledger\n"
    "with Ledger(pathlib.Path(sys.argv[1])) as ledger:\n"
    "    for i in range(100): ledger.put_many({f'{j}': {'by': sys.argv[2]} for j in range(i * 5, i * 5 + 10)})"
)


def test_first_write_wins(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.put_many({"a": {"text": "é\ud800"}})
        ledger.put_many({"a": {"text": "other"}, "b": {"text": "b"}})
        assert ledger.get_many(["a", "b", "c"]) == {"a": {"text": "é\ud800"}, "b": {"text": "b"}}
        assert ledger.count() == 2


def test_many_keys(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        answers = {str(i): {"i": i} for i in range(2345)}
        ledger.put_many(answers)
        assert ledger.get_many([str(i) for i in range(5000)]) == answers


def test_two_processes_write_at_once(tmp_path):
    path = tmp_path / "ledger.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    with Ledger(path) as ledger:
        assert ledger.count() == 505


def test_a_bad_answer_leaves_nothing_of_its_batch(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(ValueError, match="JSON"):
            ledger.put_many({"a": {}, "b": {"x": float("nan")}})
        assert ledger.count() == 0


def test_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"ledger\.sqlite: .*delete it"):
        Ledger(path)
