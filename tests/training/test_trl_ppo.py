"""A whole PPO step has the gradients of TRL 1.12's PPO, the last TRL that has one, on random rollouts.

Rewards with KL, values, advantages, whitening, both clipped losses, two updates. Where TRL 1.12 isn't there, test_ppo.py's plain
loop stands for it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLACE = os.environ.get("CHARTER_TRL_PPO", "")
pytestmark = pytest.mark.skipif(
    not (PLACE and (Path(PLACE) / "trl").is_dir()),
    reason="TRL 1.12 is not there: pip install --no-deps --target DIR 'trl==1.12.*', and CHARTER_TRL_PPO=DIR",
)


def test_both_updates_have_the_gradients_of_trl(tmp_path):
    paths = os.pathsep.join([PLACE, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("trl_ppo.py")), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths, "TRL_EXPERIMENTAL_SILENCE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found["apart"]) == 2
    for update in found["apart"]:
        assert update == pytest.approx({"policy.": 0, "value.": 0}, abs=1e-5)
    assert 0.1 < found["clipped"]["ours"] == pytest.approx(found["clipped"]["theirs"])
    assert found["values_clipped"] > 0.1
