"""Runs that lack stages: the audit says what it can, and why not the rest."""

import shutil

import pytest

from charter.audit.run import audit_run
from charter.audit.table import table


@pytest.mark.parametrize(
    "missing",
    [
        ("5-reward",),  # preferences straight into the policy
        ("3-sample", "4-label", "5-reward"),  # a check or a score is the reward
        ("3-sample", "4-label", "5-reward", "6-policy", "7-evaluate"),
    ],
)
def test_a_run_without_stages(clean_run, tmp_path, missing):
    folder = tmp_path / "run"
    shutil.copytree(clean_run, folder, ignore=lambda path, names: [name for name in names if name in missing])
    found = audit_run(folder)
    told = found["reward_model"]["label_agreement"]
    assert told["value"] is None and told["reason"]
    assert found["probes"]["reason"] or found["probes"]["models"]["reward model"]["reason"]
    assert found["chain"]["links"] or found["chain"]["reason"]
    assert "at fault" in table(found)
