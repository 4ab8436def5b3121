"""A saved reward model scores the same here, in plain Transformers, and in TRL's two ways of reading one."""

from __future__ import annotations

import random

import pytest
import torch
from datasets import Dataset
from tests.models.tiny import CHATML, SPACED, bpe_tokenizer, save_tiny_model, word_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RewardTrainer
from trl import RewardConfig as TrlRewardConfig

from charter.audit.scoring import RewardScorer
from charter.config import ModelConfig, RewardConfig
from charter.models.chat import ChatEncoder, padded_apart
from charter.models.load import load_model
from charter.progress import QuietProgress
from charter.records import Message, PreferencePair, Prompt
from charter.stages import train_reward
from charter.stages.rewards import scores_of_model
from charter.stages.saved import load_reward_model, loaded
from charter.training.rollout import Rollout

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL and Transformers disagree on names
SAID = "the a is it to of and you me help".split()


def endless(tokenizer):
    """It pads with what ends a turn, as many models do."""
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


CLOSED = CHATML.replace("{% if add_gen", "{% if not add_generation_prompt %}<|endoftext|>{% endif %}{% if add_gen")
TOKENIZERS = {
    "words": lambda: word_tokenizer(SPACED),
    "a line break after the end": lambda: bpe_tokenizer(CHATML),
    "padding is the end": lambda: endless(bpe_tokenizer(CHATML.replace("<|im_end|>\n", "<|im_end|>"))),
    "padding closes a conversation": lambda: bpe_tokenizer(CLOSED),
}


def pairs(count):
    rng = random.Random(0)
    return [
        PreferencePair(
            str(i), Prompt(str(i), (Message("user", f"help me {' '.join(rng.choices(SAID, k=i % 5))} ?"),)),
            " ".join(rng.choices(SAID, k=rng.randint(1, 9))), " ".join(rng.choices(SAID, k=rng.randint(1, 9))),
            rng.random(),
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(params=TOKENIZERS.values(), ids=TOKENIZERS)
def trained(request, tmp_path):
    """The folder of a policy, and that of a reward model as the stage makes it."""
    start = save_tiny_model(tmp_path / "policy", "qwen3", request.param())
    train_reward.run(
        RewardConfig(learning_rate=1e-2, batch_size=8, epochs=2), tmp_path / "reward", preferences=pairs(24),
        start=ModelConfig(source=str(start), device="cpu"), load=loaded, gold=None, seed=0, progress=QuietProgress(),
    )  # fmt: skip
    return start, tmp_path / "reward" / "model"


def test_one_score_in_all_of_them(trained, tmp_path):
    start, folder = trained
    asked = pairs(12)
    talks = [
        [{"role": "user", "content": pair.prompt.messages[0].content}, {"role": "assistant", "content": text}]
        for pair in asked
        for text in (pair.response_a, pair.response_b)
    ]
    ours = RewardScorer(folder)([(p.prompt, text) for p in asked for text in (p.response_a, p.response_b)])
    assert max(ours) - min(ours) > 0.1
    assert of_rollouts(start, folder, asked) == pytest.approx(ours, abs=1e-5)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = tokenizer.apply_chat_template(
        talks, padding=True, return_tensors="pt", return_dict=True, tokenizer_kwargs={"padding_side": "right"}
    )
    with torch.no_grad():
        assert model(**batch).logits[:, 0].tolist() == pytest.approx(ours, abs=1e-5), "plain Transformers"

    assert by_reward_trainer(folder, talks, tmp_path) == pytest.approx(ours, abs=1e-5), "TRL's RewardTrainer"
    assert by_grpo_trainer(start, folder, talks, tmp_path) == pytest.approx(ours, abs=1e-5), "TRL's GRPOTrainer"


def of_rollouts(start, folder, asked):
    """As rollouts are rewarded: some stopped by themselves, some ran into the limit."""
    policy = load_model(ModelConfig(source=str(start), device="cpu"))
    rollouts = []
    for pair in asked:
        for stopped, text in ((True, pair.response_a), (False, pair.response_b)):
            ids = policy.encode_response(text)
            prompt = policy.encode_prompt(pair.prompt.messages)
            rollouts.append(Rollout(pair.prompt.id, prompt, ids if stopped else ids[:-1], stopped))
    return scores_of_model(load_reward_model(folder, policy.model), policy)(rollouts)


def by_reward_trainer(folder, talks, place):
    rows = [{"chosen": a, "rejected": b} for a, b in zip(talks[::2], talks[1::2], strict=True)]
    settings = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "per_device_eval_batch_size": len(rows),
        "max_length": None,
        "bf16": False,
    }
    trainer = RewardTrainer(
        str(folder), args=TrlRewardConfig(output_dir=str(place / "reward-trainer"), **settings),
        train_dataset=Dataset.from_list(rows), eval_dataset=Dataset.from_list(rows),
    )  # fmt: skip
    (batch,) = trainer.get_eval_dataloader()
    trainer.model.eval()
    with torch.no_grad():
        _, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    chosen, rejected = outputs.logits[:, 0].chunk(2)
    told = trainer.evaluate()
    assert told["eval_margin"] == pytest.approx(float((chosen - rejected).mean()), abs=1e-5)
    return [float(value) for pair in zip(chosen, rejected, strict=True) for value in pair]


def by_grpo_trainer(start, folder, talks, place):
    settings = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "per_device_train_batch_size": 2,
        "num_generations": 2,
        "bf16": False,
    }
    trainer = GRPOTrainer(
        str(start), reward_funcs=str(folder), args=GRPOConfig(output_dir=str(place / "grpo-trainer"), **settings),
        train_dataset=Dataset.from_list([{"prompt": talk[:1]} for talk in talks]),
    )  # fmt: skip
    inputs = [{"prompt": talk[:1]} for talk in talks]
    prompts, completions = [talk[:1] for talk in talks], [talk[1:] for talk in talks]
    return trainer._calculate_rewards(inputs, prompts, completions, [[0]] * len(talks))[:, 0].tolist()


def test_padding_is_never_what_ends_a_conversation():
    for make in TOKENIZERS.values():
        tokenizer = make()
        last = ChatEncoder(tokenizer).closing_ids[-1]
        own = padded_apart(tokenizer, last)
        assert own.pad_token_id not in (None, last)
        assert tokenizer.pad_token_id == make().pad_token_id, "the policy's own is left alone"
    bare = bpe_tokenizer(None)
    assert padded_apart(bare, bare.eos_token_id).pad_token_id != bare.eos_token_id


def test_what_is_saved_stops_where_we_do(tmp_path):
    tokenizer = bpe_tokenizer(CHATML)
    tokenizer.eos_token = "<|endoftext|>"  # as where a base model was given a chat template
    save_tiny_model(tmp_path / "first", "llama", tokenizer)
    model = load_model(ModelConfig(source=str(tmp_path / "first"), device="cpu"))
    assert model.stop_ids == [0, 2]
    model.model.save_pretrained(tmp_path / "second")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "second")
    assert again.generation_config.eos_token_id == [0, 2]
