"""Worlds whose truth is known, from the benchmark that plants faults in them."""

import sys
from pathlib import Path

import pytest

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
