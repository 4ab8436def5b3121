"""``engine: trl``: TRL's trainers start from our loss on the same batch, and write our files."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from charter.config import LoraConfig, PolicyConfig, RewardConfig, RunConfig, SftConfig
from charter.errors import ConfigError, TrainingError
from charter.training import trl_engine
from charter.training.lora import adapted, adapters_of
from charter.training.packing import PackedRow
from charter.training.policy_loop import Callbacks
from charter.training.reward import EncodedPair, accumulate_reward, reward_model_from_policy
from charter.training.rollout import EncodedPrompt
from charter.training.sft import accumulate_sft
from charter.training.trl_trainer import check_engine

from .tiny import END, VOCAB, assert_same, make_model, weights

WANTED = 7
LORA = LoraConfig(rank=4, alpha=16)


@pytest.fixture
def tokenizer():
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w2"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="w0", eos_token=f"w{END}", unk_token="w2")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_sft_counts_the_tokens_that_we_count(policy, tokenizer, examples, tmp_path):
    measured = accumulate_sft(make_model(), [PackedRow(p, [r]) for p, r in examples], 10_000)
    seen = []
    found = trl_engine.train_sft(
        policy, tokenizer, examples, SftConfig(epochs=8, batch_size=24, learning_rate=3e-3), {}, seed=0, folder=tmp_path,
        on_step=seen.append,
    )  # fmt: skip
    assert seen == lines(tmp_path) and len(seen) == found["num_steps"] == 8
    assert seen[0]["loss"] == pytest.approx(measured["loss"], abs=1e-4)
    assert seen[0]["num_tokens"] == measured["num_tokens"] and found["num_tokens"] == 8 * measured["num_tokens"]
    assert seen[-1]["loss"] < seen[0]["loss"] - 0.3
    assert not (tmp_path / ".trl").exists() and not policy.training


def test_reward_model_learns_the_likelier_side_and_leaves_ties_out(policy, tokenizer, pairs, tmp_path):
    torch.manual_seed(0)
    model = reward_model_from_policy(policy, tokenizer)
    torch.nn.init.normal_(model.score.weight, std=0.3)
    hard = [EncodedPair(p.prompt_ids, p.a_ids, p.b_ids, float(p.p_a > 0.5)) for p in pairs]
    measured = accumulate_reward(model, hard, 0.01, 10_000)
    model.zero_grad()
    ties = [EncodedPair(p.prompt_ids, p.a_ids, p.b_ids, 0.5) for p in pairs[:3]]
    config = RewardConfig(epochs=2, batch_size=24, learning_rate=1e-3, centering_coef=0.01)
    found = trl_engine.train_reward(model, tokenizer, [*ties, *pairs], config, {}, seed=0, folder=tmp_path)
    first, second = lines(tmp_path)
    assert found["num_ties"] == 3
    assert first["loss"] == pytest.approx(measured["loss"], abs=1e-4)
    assert first["accuracy"] == pytest.approx(measured["accuracy"])
    assert second["loss"] < first["loss"]
    with pytest.raises(TrainingError, match="all labels are ties"):
        trl_engine.train_reward(model, tokenizer, ties, config, {}, seed=0, folder=tmp_path)


def test_grpo_gets_our_prompts_and_learns_what_is_rewarded(tokenizer, tmp_path):
    make_model().save_pretrained(tmp_path / "start")  # TRL loads the reference from where the policy came from
    policy = type(make_model()).from_pretrained(tmp_path / "start")
    prompts = [EncodedPrompt(f"p{i}", [10 + i, 3, 20 + i]) for i in range(3)]
    seen, saved, rolled, looked = [], [], [], []

    class Looking:
        def after_step(self, rows):
            looked.append(rows[-1]["step"])

    def rewards(rollouts):
        assert all(r.prompt_ids == [10 + int(r.prompt_id[1]), 3, 20 + int(r.prompt_id[1])] for r in rollouts)
        assert all(r.stopped == (r.response_ids[-1] == END) for r in rollouts)
        shares = [r.response_ids.count(WANTED) / len(r.response_ids) for r in rollouts]
        return [None, *shares[1:]]  # one abstention

    config = PolicyConfig(
        steps=16, prompts_per_step=4, group_size=8, updates_per_rollout=2, learning_rate=1e-2, kl_coef=0.01,
        max_new_tokens=6, checkpoint_every=10,
    )  # fmt: skip
    callbacks = Callbacks(
        seen.append, saved.append, lambda step, rollouts, values: rolled.append((step, values)), Looking(),
        lambda rollouts: {"refusal_rate": sum(WANTED in r.response_ids for r in rollouts) / len(rollouts)},
    )  # fmt: skip
    before = weights(policy)
    found = trl_engine.train_grpo(
        policy, tokenizer, rewards, prompts, config, {}, seed=0, folder=tmp_path, stop_ids=[END], callbacks=callbacks
    )
    assert seen == lines(tmp_path)
    assert [row["step"] for row in seen] == list(range(1, 17)) == [step for step, _ in rolled]
    assert [row["num_updates"] for row in seen] == list(range(2, 33, 2))
    assert saved == [10, 16] and looked == list(range(1, 17))
    assert seen[0]["refusal_rate"] < seen[-1]["refusal_rate"] <= 1 and 0 < seen[-1]["distinct_2"] <= 1
    for row, (_, values) in zip(seen, rolled, strict=True):
        known = [value for value in values if value is not None]
        assert row["num_without_reward"] == 1 and len(values) == 32
        assert row["reward_mean"] == pytest.approx(sum(known) / 31, abs=1e-5)  # an abstention is no zero
    assert sum(row["reward_mean"] for row in seen[-4:]) > 1.5 * sum(row["reward_mean"] for row in seen[:4])
    assert all(row["kl_k1"] is None for row in seen) and seen[-1]["kl_k3"] > 0.01
    assert found["kl"] is None and found["stopped_by"] == "steps" and found["num_steps"] == 16
    assert any(not torch.equal(before[name], value) for name, value in weights(policy).items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_trained_and_nothing_else(dtype, tokenizer, examples, pairs, tmp_path):
    pytest.importorskip("peft", reason="PEFT is not installed")
    make_model(dtype=dtype).save_pretrained(tmp_path / "start")
    base = type(make_model()).from_pretrained(tmp_path / "start", dtype=dtype)
    before = weights(base)
    prompts = [EncodedPrompt(f"p{i}", [10 + i, 3, 20 + i]) for i in range(3)]
    fast = {"learning_rate": 3e-2, "lora": LORA}

    def by(kind):
        model = adapted(
            reward_model_from_policy(base, tokenizer, shared=True) if kind == "reward" else base, LORA, seed=0
        )
        common = {"seed": 0, "folder": tmp_path / kind}
        match kind:
            case "sft":
                trl_engine.train_sft(
                    model, tokenizer, examples, SftConfig(epochs=6, batch_size=24, **fast), {}, **common
                )
            case "reward":
                config = RewardConfig(epochs=6, batch_size=24, **fast)
                trl_engine.train_reward(model, tokenizer, pairs, config, {}, **common)
            case "grpo":
                config = PolicyConfig(steps=8, prompts_per_step=3, group_size=8, max_new_tokens=6, kl_coef=0.01, **fast)
                trl_engine.train_grpo(
                    model, tokenizer, lambda rs: [r.response_ids.count(WANTED) / len(r.response_ids) for r in rs], prompts,
                    config, {}, stop_ids=[END], callbacks=Callbacks(), **common,
                )  # fmt: skip
        return model

    for kind, figure, sign in (("sft", "loss", -1), ("reward", "loss", -1), ("grpo", "reward_mean", 1)):
        model = by(kind)
        rows = lines(tmp_path / kind)
        assert sign * (rows[-1][figure] - rows[0][figure]) > 0.05, kind
        moved = adapters_of(model)
        assert any(bool(p.any()) for name, p in moved.items() if "lora_B" in name)
        assert {p.dtype for p in moved.values()} == {torch.float32}
        assert_same({k: v.to(dtype) for k, v in weights(base).items()}, before)
        if kind == "grpo":
            assert rows[0]["kl_k3"] == pytest.approx(0, abs=1e-3) and rows[-1]["kl_k3"] > 0.01, (
                "the base is the reference"
            )


def run_config(**settings):
    place = {"source": "somewhere"}
    return RunConfig(
        name="r", constitution="c", model=place, prompts=place, label={"labeler": {"model": {"source": "other"}}},
        evaluate={"prompts": place}, engine="trl", **settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trl", "told"),
    [
        ({"grpo": {"use_vlm": True}}, "trl.grpo.use_vlm: TRL's GRPOConfig has no such setting"),
        ({"sft": {"save_strategy": "steps"}}, "trl.sft.save_strategy is set by Charter"),
    ],
)
def test_settings_that_trl_or_we_cannot_take_are_told_before_any_work(trl, told):
    with pytest.raises(ConfigError, match=told):
        check_engine(run_config(trl=trl))
    check_engine(run_config(trl={"grpo": {"use_vllm": True}, "sft": {"deepspeed": "zero2.json"}}))


@pytest.mark.parametrize(
    "policy", [{"algorithm": "ppo"}, {"kl_budget": 3}, {"kl_in": "reward"}, {"monitor": {"on_alarm": "stop"}}]
)
def test_what_trl_does_not_do_is_refused(policy):
    with pytest.raises(ValueError, match="engine trl knows grpo with a k3 penalty in the loss"):
        run_config(policy=policy)


def test_a_value_that_trl_refuses_is_one_line(policy, tokenizer, examples, tmp_path):
    with pytest.raises(ConfigError, match=r"^trl\.sft: .*nonsense") as told:
        trl_engine.train_sft(
            policy, tokenizer, examples, SftConfig(), {"lr_scheduler_type": "nonsense"}, seed=0, folder=tmp_path
        )
    assert "\n" not in str(told.value)
