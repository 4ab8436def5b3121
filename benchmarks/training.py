"""Charter's training loops against TRL's, side by side: same model, data, precision and settings, step by step in turn.

    python benchmarks/training.py [--size 3M|30M] [--threads 1] [--steps 6] [--only sft,reward,grpo,ppo]
                                    [--trl-ppo DIR]

Needs TRL 1.16 (pip install trl==1.16.0 accelerate datasets). Each of TRL's steps is followed by one of ours on the same
examples; the ratio is the median over the steps. With one thread, time is that of the process alone, so that neighbours on
the machine don't count; with more it is the clock's. The last line is one JSON object with the ratios.

The models are random, with one exception: the end of turn has probability 1/25 at every step, so that responses end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = {
    "3M": dict(vocab_size=1024, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4),
    "30M": dict(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8),
}
PAD, END, ASSISTANT = "<pad>", "<|end|>", "<|assistant|>"
PROMPTS, GROUP, MAX_NEW_TOKENS, KL_COEF, BATCH = 8, 8, 48, 0.04, 32
END_LOGIT_FEATURE = 16.0  # of the embedding's first coordinate, which no layer changes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="3M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", default="sft,reward,grpo,ppo")
    parser.add_argument("--trl-ppo", default="", metavar="DIR", help="where pip --target put TRL 1.12, which has PPO")
    parser.add_argument("--in-ppo-process", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---------------------------------------------------------------- model and data


def build(size: str, folder: Path) -> None:
    """Write a policy, a reward model and their tokenizer."""
    import math

    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

    shape = SIZES[size]
    names = [PAD, END, ASSISTANT, "<unk>"]
    names += [f"w{i}" for i in range(shape["vocab_size"] - len(names))]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, eos_token=END, unk_token="<unk>", padding_side="left"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        **shape, num_key_value_heads=shape["num_attention_heads"], max_position_embeddings=2048, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, num_labels=1,
    )  # fmt: skip
    policy = LlamaForCausalLM(config)
    with torch.no_grad():
        policy.model.embed_tokens.weight[:, 0] = END_LOGIT_FEATURE
        for layer in policy.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        normed = END_LOGIT_FEATURE / math.sqrt(END_LOGIT_FEATURE**2 / shape["hidden_size"])
        policy.lm_head.weight[:, 0] = 0
        policy.lm_head.weight[0] = 0
        policy.lm_head.weight[1, 0] = math.log(shape["vocab_size"] / 24) / normed
    policy.generation_config.eos_token_id, policy.generation_config.pad_token_id = 1, 0
    reward_model = LlamaForSequenceClassification(config)
    reward_model.model.load_state_dict(policy.model.state_dict())
    for model, name in ((policy, "policy"), (reward_model, "reward")):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


class World:
    """The models, and text of random words with the lengths of short conversations."""

    def __init__(self, folder: Path, size: str) -> None:
        import numpy as np
        from transformers import AutoTokenizer

        self.folder = folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "policy", trust_remote_code=False)
        self.num_words = SIZES[size]["vocab_size"] - 4
        self.random = np.random.default_rng(7)

    def words(self, low: int, high: int) -> str:
        count = int(self.random.integers(low, high + 1))
        return " ".join(f"w{i}" for i in self.random.integers(0, self.num_words, count))

    def prompt(self) -> str:
        return f"{self.words(16, 64)} {ASSISTANT}"

    def response(self, mean: int, longest: int) -> str:
        count = int(min(longest, max(1, self.random.geometric(1 / mean))))
        return self.words(count, count)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def policy(self, dtype: str = "float32") -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        place = self.folder / "policy"
        return AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, dtype), trust_remote_code=False)

    def reward_model(self, dtype: str = "float32") -> Any:
        import torch
        from transformers import AutoModelForSequenceClassification

        place = self.folder / "reward"
        return AutoModelForSequenceClassification.from_pretrained(
            place, dtype=getattr(torch, dtype), trust_remote_code=False
        )


# ---------------------------------------------------------------- alternating runs


class Clock:
    """Times TRL's steps from inside its trainer, and runs one of ours after each."""

    def __init__(self, threads: int, ours: Callable[[int], int], work_of_trl: Callable[[], float]) -> None:
        self.now = time.process_time if threads == 1 else time.perf_counter
        self.ours, self.work_of_trl = ours, work_of_trl
        self.rates: list[tuple[float, float]] = []

    def callback(self) -> Any:
        from transformers import TrainerCallback

        outer = self

        class Alternate(TrainerCallback):
            began = 0.0
            step = 0

            def on_train_begin(self, *_: Any, **__: Any) -> None:
                self.began = outer.now()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                theirs = outer.work_of_trl() / (outer.now() - self.began)
                began = outer.now()
                own = outer.ours(self.step) / (outer.now() - began)
                if self.step:  # the first warms up
                    outer.rates.append((own, theirs))
                self.step += 1
                self.began = outer.now()

        return Alternate()

    def figures(self, unit: str) -> dict[str, float]:
        own, theirs = (statistics.median(column) for column in zip(*self.rates, strict=True))
        ratio = statistics.median(a / b for a, b in self.rates)
        each = [a / b for a, b in self.rates]
        return {
            f"charter_{unit}": own,
            f"trl_{unit}": theirs,
            "ratio": ratio,
            "lowest": min(each),
            "highest": max(each),
        }


def trl_settings(folder: Path, steps: int, **more: Any) -> dict[str, Any]:
    settings = dict(
        output_dir=str(folder / "trl"), learning_rate=1e-6, use_cpu=True, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, max_steps=steps + 1, bf16=False, gradient_checkpointing=False,
        lr_scheduler_type="constant", dataloader_pin_memory=False,
    )  # fmt: skip
    return settings | more


def our_trainer(model: Any) -> Any:
    from charter.training.optimise import Trainer

    return Trainer(
        model, Path(tempfile.mkdtemp()), num_steps=1000, learning_rate=1e-6, warmup_fraction=0, settings=[], decay=False
    )


def sft(world: World, args: argparse.Namespace, *, best: bool) -> dict[str, float]:
    """Tokens per second; ``best``: TRL packed with one row a batch, its fastest setting."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from charter.training.packing import TOKENS_PER_FORWARD, PackedRow
    from charter.training.sft import accumulate_sft

    texts = [
        (world.prompt(), " " + world.response(60, 200)) for _ in range(BATCH * (args.steps + 2) * (8 if best else 1))
    ]
    rows = [PackedRow(world.ids(prompt), [[*world.ids(response), 1]]) for prompt, response in texts]
    model = world.policy().train()
    trainer = our_trainer(model)

    def ours(step: int) -> int:
        batch = rows[BATCH * step : BATCH * (step + 1)]
        trainer.update(accumulate_sft(model, batch, TOKENS_PER_FORWARD)["loss"])
        return sum(map(len, batch))

    more: dict[str, Any] = dict(per_device_train_batch_size=BATCH, packing=False)
    if best:
        more = dict(packing=True, per_device_train_batch_size=1, gradient_accumulation_steps=8)
    settings = SFTConfig(**trl_settings(world.folder, args.steps, max_length=512, **more))
    dataset = Dataset.from_dict({"prompt": [p for p, _ in texts], "completion": [r for _, r in texts]})
    theirs = SFTTrainer(model=world.policy(), args=settings, train_dataset=dataset, processing_class=world.tokenizer)
    clock = Clock(args.threads, ours, tokens_since_last(theirs))
    theirs.add_callback(clock.callback())
    theirs.train()
    return clock.figures("tokens_per_second")


def tokens_since_last(trainer: Any) -> Callable[[], float]:
    seen = 0.0

    def count() -> float:
        nonlocal seen
        before, seen = seen, float(trainer._total_train_tokens)
        return seen - before

    return count


def reward(world: World, args: argparse.Namespace) -> dict[str, float]:
    """Pairs per second."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    from charter.training.packing import TOKENS_PER_FORWARD
    from charter.training.reward import EncodedPair, accumulate_reward

    texts = [(world.prompt(), *(" " + world.response(25, 48) for _ in "ab")) for _ in range(BATCH * (args.steps + 2))]
    pairs = [EncodedPair(world.ids(p), [*world.ids(a), 1], [*world.ids(b), 1], 1.0) for p, a, b in texts]
    model = world.reward_model().train()
    trainer = our_trainer(model)

    def ours(step: int) -> int:
        batch = pairs[BATCH * step : BATCH * (step + 1)]
        trainer.update(accumulate_reward(model, batch, 0.0, TOKENS_PER_FORWARD)["loss"])
        return len(batch)

    settings = RewardConfig(**trl_settings(world.folder, args.steps, max_length=512, per_device_train_batch_size=BATCH))
    columns = zip(*texts, strict=True)
    dataset = Dataset.from_dict(dict(zip(("prompt", "chosen", "rejected"), map(list, columns), strict=True)))
    theirs = RewardTrainer(
        model=world.reward_model(), args=settings, train_dataset=dataset, processing_class=world.tokenizer
    )
    clock = Clock(args.threads, ours, lambda: BATCH)
    theirs.add_callback(clock.callback())
    theirs.train()
    return clock.figures("pairs_per_second")


def grpo(world: World, args: argparse.Namespace, dtype: str) -> dict[str, float]:
    """Completions per second; reward by a reward model, KL penalty to a reference."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from charter.config import PolicyConfig
    from charter.training.grpo import EncodedPrompt, GroupUpdate
    from charter.training.policy_loop import Callbacks, PolicyLoop
    from charter.training.reward import score
    from charter.training.rollout import Rollout

    prompts = [world.prompt() for _ in range(PROMPTS * (args.steps + 2))]
    policy, reference, judge = world.policy(dtype), world.policy(dtype).eval(), world.reward_model(dtype).eval()
    config = PolicyConfig(
        prompts_per_step=PROMPTS, group_size=GROUP, max_new_tokens=MAX_NEW_TOKENS, kl_coef=KL_COEF, learning_rate=1e-6
    )

    def rewards(rollouts: list[Rollout]) -> list[float | None]:
        groups = [rollouts[i : i + GROUP] for i in range(0, len(rollouts), GROUP)]
        scored = score(judge, [g[0].prompt_ids for g in groups], [[r.response_ids for r in g] for g in groups])
        return [value for group in scored for value in group]

    encoded = [EncodedPrompt(str(i), world.ids(prompt)) for i, prompt in enumerate(prompts)]
    loop = PolicyLoop(policy, GroupUpdate(policy, reference, config), rewards, encoded, config, 0, [1], Callbacks())
    trainer = our_trainer(policy)

    def ours(step: int) -> int:
        loop._step(trainer, step + 1)
        return PROMPTS * GROUP

    settings = GRPOConfig(
        **trl_settings(
            world.folder, args.steps, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, beta=KL_COEF,
            max_completion_length=MAX_NEW_TOKENS, bf16=dtype == "bfloat16", shuffle_dataset=False,
        )
    )  # fmt: skip
    theirs = GRPOTrainer(
        model=str(world.folder / "policy"), reward_funcs=str(world.folder / "reward"), args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=world.tokenizer,
        reward_processing_classes=world.tokenizer,
    )  # fmt: skip
    clock = Clock(args.threads, ours, lambda: PROMPTS * GROUP)
    theirs.add_callback(clock.callback())
    theirs.train()
    figures = clock.figures("completions_per_second")
    figures["trl_response_length"] = theirs.state.log_history[-1]["completions/mean_length"]
    figures["charter_response_length"] = statistics.mean(row["response_length"] for row in trainer.rows())
    return figures


def ppo(world: World, args: argparse.Namespace) -> dict[str, float]:
    """Completions per second, four updates a rollout; TRL has no groups: it gets each prompt as often as we answer it."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from charter.config import PolicyConfig
    from charter.training.policy_loop import Callbacks, PolicyLoop
    from charter.training.ppo import ActorCriticUpdate, value_model_from
    from charter.training.reward import score
    from charter.training.rollout import EncodedPrompt, Rollout

    count = PROMPTS * GROUP
    encoded = [EncodedPrompt(str(i), world.ids(world.prompt())) for i in range(PROMPTS * (args.steps + 2))]
    policy, reference, judge = world.policy(), world.policy().eval(), world.reward_model().eval()
    value_model = value_model_from(judge)
    config = PolicyConfig(
        algorithm="ppo", prompts_per_step=PROMPTS, group_size=GROUP, max_new_tokens=MAX_NEW_TOKENS, kl_coef=0.05,
        learning_rate=1e-6, updates_per_rollout=4,
    )  # fmt: skip

    def rewards(rollouts: list[Rollout]) -> list[float | None]:
        groups = [rollouts[i : i + GROUP] for i in range(0, len(rollouts), GROUP)]
        scored = score(judge, [g[0].prompt_ids for g in groups], [[r.response_ids for r in g] for g in groups])
        return [value for group in scored for value in group]

    update = ActorCriticUpdate(policy, reference, value_model, config)
    loop = PolicyLoop(policy, update, rewards, encoded, config, 0, [1], Callbacks())
    import torch

    trainer = our_trainer(torch.nn.ModuleDict({"policy": policy, "value": value_model}))

    def ours(step: int) -> int:
        loop._step(trainer, step + 1)
        return count

    settings = trl_settings(world.folder, args.steps, per_device_train_batch_size=count)
    del settings["max_steps"]
    repeated = [prompt.ids for prompt in encoded for _ in range(GROUP)]
    theirs = PPOTrainer(
        args=PPOConfig(
            **settings, gradient_accumulation_steps=1, num_mini_batches=1, num_ppo_epochs=4, stop_token="eos",
            total_episodes=count * (args.steps + 1), response_length=MAX_NEW_TOKENS, temperature=1.0, kl_coef=0.05,
            local_rollout_forward_batch_size=count, num_sample_generations=0,
        ),
        processing_class=world.tokenizer, model=world.policy(), ref_model=world.policy(), reward_model=world.reward_model(),
        value_model=world.reward_model(), train_dataset=Dataset.from_dict({"input_ids": repeated}),
    )  # fmt: skip
    clock = Clock(args.threads, ours, lambda: count)
    theirs.add_callback(clock.callback())
    theirs.train()
    return clock.figures("completions_per_second")


def ppo_apart(args: argparse.Namespace) -> tuple[dict[str, float] | None, str]:
    """PPO's pairing in a process of its own, with the TRL that still has PPO; else None and the reason."""
    place = args.trl_ppo or os.environ.get("CHARTER_TRL_PPO", "")
    if not (Path(place) / "trl").is_dir() or not place:
        return None, (
            "TRL 1.16 has no PPO: pip install --no-deps --target DIR 'trl==1.12.*', then --trl-ppo DIR (or CHARTER_TRL_PPO=DIR)"
        )
    command = [sys.executable, __file__, "--only", "ppo", "--size", args.size, "--threads", str(args.threads)]
    command += ["--steps", str(args.steps), "--in-ppo-process"]
    paths = os.pathsep.join([place, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths, "TRL_EXPERIMENTAL_SILENCE": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        return None, f"the process with TRL's PPO failed: {done.stderr.strip().splitlines()[-1]}"
    return json.loads(done.stdout.strip().splitlines()[-1]), ""


def matmul_gflops(dtype: str) -> float:
    """What one product of two 1024 x 1024 matrices reaches here, as these processes count time: the median of nine."""
    import torch

    a, b = (torch.randn(1024, 1024).to(getattr(torch, dtype)) for _ in "ab")
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    rates = []
    for _ in range(9):
        began = now()
        for _ in range(4):
            a @ b
        rates.append(4 * 2 * 1024**3 / (now() - began) / 1e9)
    return statistics.median(rates)


def main() -> None:
    """Run what was asked for and print a line per pairing, then the ratios."""
    args = parse()
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        import trl
    except ImportError:
        sys.exit("benchmarks/training.py compares with TRL: pip install trl==1.16.0 accelerate datasets")
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    runs: dict[str, tuple[str, Callable[[World], dict[str, float]]]] = {
        "sft": ("sft", lambda world: sft(world, args, best=False)),
        "sft_best": ("sft", lambda world: sft(world, args, best=True)),
        "reward": ("reward", lambda world: reward(world, args)),
        "grpo_fp32": ("grpo", lambda world: grpo(world, args, "float32")),
        "grpo_bf16": ("grpo", lambda world: grpo(world, args, "bfloat16")),
    }
    asked = args.only.split(",")
    ratios: dict[str, Any] = {"trl": trl.__version__, "size": args.size, "threads": args.threads}
    with tempfile.TemporaryDirectory() as place:
        build(args.size, Path(place))
        world = World(Path(place), args.size)
        if args.in_ppo_process:
            print(json.dumps(ppo(world, args)))
            return
        for name, (family, run) in runs.items():
            if family in asked or name in asked:
                show(name, run(world), ratios)
    if "ppo" in asked:
        figures, reason = ppo_apart(args)
        if figures is None:
            ratios |= {"ppo": None, "ppo_reason": reason}
        else:
            show("ppo", figures, ratios)
    ratios["matmul_gflops"] = {dtype: round(matmul_gflops(dtype)) for dtype in ("float32", "bfloat16")}
    ratios["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(ratios))


def show(name: str, figures: dict[str, float], ratios: dict[str, Any]) -> None:
    """Print a pairing and keep its ratio, with the lowest and highest of its steps."""
    ratios[name] = round(figures["ratio"], 2)
    ratios.setdefault("range", {})[name] = [round(figures["lowest"], 2), round(figures["highest"], 2)]
    print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
