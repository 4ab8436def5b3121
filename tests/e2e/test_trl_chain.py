"""``engine: trl``: the whole chain, so that evaluation, audit and report find what they look for."""

from __future__ import annotations

import pytest

pytest.importorskip("trl", reason="TRL is not installed")
pytest.importorskip("peft", reason="PEFT is not installed")

from charter.audit.run import audit_run
from charter.config import ModelConfig
from charter.models.load import load_model
from charter.pipeline import run
from charter.progress import QuietProgress
from charter.run_file import load_run
from charter.stages.saved import load_reward_model
from charter.store.jsonl import read_rows

SETTINGS = (
    "engine=trl", "revise.rounds=1", "sft.epochs=1", "reward.epochs=1", "evaluate.sl_rounds=[]", "policy.lora={rank: 2}",
    "policy.learning_rate=0.02",
)  # fmt: skip


def test_the_chain_completes_and_leaves_the_same_files(tiny_world, tmp_path):
    summary = run(load_run(tiny_world / "run.yaml", SETTINGS), tmp_path, QuietProgress())
    assert set(summary["policies"]) == {"initial", "sl-cai", "rl-cai", "rl-step-2"}
    assert summary["policies"]["rl-cai"]["kl_to_sl_cai"]["value"] != 0
    policy = load_model(ModelConfig(source=str(tmp_path / "6-policy" / "model")))
    assert load_reward_model(tmp_path / "5-reward" / "model", policy.model).config.num_labels == 1
    assert sorted(path.name for path in (tmp_path / "6-policy" / "checkpoints").iterdir()) == [
        f"step-{step}" for step in (1, 2, 3, 4)
    ]
    rollouts = [row for _, row in read_rows(tmp_path / "6-policy" / "rollouts.jsonl")]
    assert [row["step"] for row in rollouts] == [step for step in (1, 2, 3, 4) for _ in range(3)]
    assert all(row["prompt"]["id"].startswith("train-") and row["reward"] is not None for row in rollouts)
    assert [point["kl_k1"] for point in summary["curves"]["rl"]] == [None] * 4
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.pt*"))  # no pickles
    saved = {p.name for p in (tmp_path / "6-policy" / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "base.json"} <= saved, "the policy was trained by an adapter"
    assert audit_run(tmp_path)["findings"] is not None
