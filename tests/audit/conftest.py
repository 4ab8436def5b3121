"""Worlds whose truth is known, from the benchmark that plants faults in them."""

import sys
from pathlib import Path

import pytest

from charter.audit.evidence import read_evidence

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def planted():
    import planted

    return planted


@pytest.fixture(scope="session")
def clean_run(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "run"
    planted.write(planted.draw_world(3), folder)
    return folder


@pytest.fixture
def read(planted, tmp_path):
    """Writes a world as a run folder and reads it as the audit does."""

    def read(world):
        planted.write(world, tmp_path / "run")
        return read_evidence(tmp_path / "run")

    return read
