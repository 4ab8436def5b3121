"""docs/training.md names every setting of training with its default, and every figure of metrics.jsonl."""

import json
import re
from pathlib import Path

import pytest
import torch

from charter.config import DpoConfig, LoraConfig, PolicyConfig, RewardConfig, SftConfig
from charter.training.ppo import train_ppo

from .test_grpo import PROMPTS, likes_a_token
from .test_ppo import make_value_model
from .tiny import END

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
NAMED = {name.rpartition(".")[2] for name in re.findall(r"`([a-z0-9_.]+)", PAGE)}


@pytest.mark.parametrize("section", [SftConfig, RewardConfig, DpoConfig, PolicyConfig, LoraConfig])
def test_every_setting_is_there(section):
    assert section.model_fields.keys() <= NAMED


@pytest.mark.parametrize(
    ("name", "section"),
    [("sft", SftConfig), ("reward", RewardConfig), ("dpo", DpoConfig), ("policy", PolicyConfig), ("lora", LoraConfig)],
)
def test_numbers_are_the_defaults(name, section):
    """Rows of one setting with a plain number; and the learning rates."""
    for field, info in section.model_fields.items():
        row = re.search(rf"^\| `(?:{name}\.)?{field}` \| ([0-9.e-]+)(?: steps)?[ ,|]", PAGE, re.M)
        if row is not None and field not in ("learning_rate", "checkpoint_every"):
            assert float(row[1]) == info.default, field
    rates = re.search(r"\| `learning_rate` \| (\S+) \(`sft`, `reward`\), (\S+) \(`dpo`, `policy`\)", PAGE)
    assert [SftConfig().learning_rate, DpoConfig().learning_rate] == [float(rate) for rate in rates.groups()]
    assert RewardConfig().learning_rate == float(rates[1]) and PolicyConfig().learning_rate == float(rates[2])


def test_every_figure_is_there(policy, tmp_path):
    config = PolicyConfig(algorithm="ppo", steps=1, prompts_per_step=2, group_size=2, max_new_tokens=4, kl_target=1.0)
    common = {"seed": 0, "folder": tmp_path, "stop_ids": [END]}
    torch.manual_seed(0)
    train_ppo(policy, policy, make_value_model(), likes_a_token, PROMPTS, config, **common)
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert row.keys() | {"accuracy", "reward_spread", "sources"} <= NAMED
