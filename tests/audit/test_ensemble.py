"""Members of an ensemble: counted by hand."""

import shutil

import pytest

from charter.audit.ensemble import audit_ensemble
from charter.audit.evidence import read_evidence
from charter.errors import DataError
from charter.store.jsonl import write_jsonl


@pytest.fixture
def run(clean_run, tmp_path):
    return shutil.copytree(clean_run, tmp_path / "run")


def held_out(run, *margins):
    rows = [{"id": f"x{i}", "margin": 1.0, "member_margins": own} for i, own in enumerate(margins)]
    write_jsonl(run / "5-reward" / "held_out.jsonl", rows)


def test_members_that_disagree(run):
    pairs = read_evidence(run).pairs
    held_out(run, [1.0, 3.0], [1.0, -1.0], [-2.0, -2.0], [0.5, 0.5])
    found = audit_ensemble(run, pairs)
    assert found["num_members"] == 2 and found["disagreement"]["value"] == 0.25
    assert found["spread"]["value"] == pytest.approx((2**0.5 + 2**0.5) / 4)


def test_one_model_has_nobody_to_disagree_with(run):
    found = audit_ensemble(run, read_evidence(run).pairs)
    assert found["disagreement"]["value"] is None and "one reward model" in found["disagreement"]["reason"]


def test_broken_margins_name_their_line(run):
    pairs = read_evidence(run).pairs
    held_out(run, [1.0, 3.0], ["x", 1.0])
    with pytest.raises(DataError, match="held_out.jsonl:2"):
        audit_ensemble(run, pairs)
