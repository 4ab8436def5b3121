"""Charter's training loops against TRL's, side by side: same model, data, precision and settings, step by step in turn.

    python benchmarks/training.py [--size 3M|30M] [--threads 1] [--steps 6] [--group 8]
                                    [--only sft,reward,grpo,ppo] [--trl-ppo DIR]

Needs TRL 1.16 (pip install trl==1.16.0 accelerate datasets). Each side runs in a process of its own, with its own memory, and
takes a step when its turn comes: TRL's, then ours on the same examples; the ratio is the median over the steps. With one
thread, time is that of the process alone, so that neighbours on the machine don't count; with more it is the clock's.
The last line is one JSON object: the ratios, the peaks in MB [Charter, TRL], and what share of the rate of a plain matrix
product Charter reaches, by the products of weights and tokens that its step can't do without.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = {
    "1M": dict(vocab_size=1024, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=2),
    "3M": dict(vocab_size=1024, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4),
    "10M": dict(vocab_size=2048, hidden_size=384, intermediate_size=1056, num_hidden_layers=5, num_attention_heads=6),
    "30M": dict(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8),
}
PAD, END, ASSISTANT = "<pad>", "<|end|>", "<|assistant|>"
PROMPTS, GROUP, MAX_NEW_TOKENS, KL_COEF, BATCH = 8, 8, 48, 0.04, 32
MEAN_PROMPT, MEAN_RESPONSE = 41, 24.5  # tokens
NO_PPO = (
    "TRL 1.16 has no PPO: pip install --no-deps --target DIR 'trl==1.12.*', then --trl-ppo DIR (or CHARTER_TRL_PPO=DIR)"
)
END_LOGIT_FEATURE = 16.0  # of the embedding's first coordinate, which no layer changes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="3M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--group", type=int, default=GROUP, help="responses to a prompt in GRPO")
    parser.add_argument("--only", default="sft,reward,grpo,ppo")
    parser.add_argument("--trl-ppo", default="", metavar="DIR", help="where pip --target put TRL 1.12, which has PPO")
    parser.add_argument("--side", choices=["charter", "trl"], help=argparse.SUPPRESS)  # be one, in a process of its own
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
        shape = SIZES[size]
        self.num_words = shape["vocab_size"] - 4
        wide, deep = shape["hidden_size"], shape["num_hidden_layers"]
        # floating-point operations per token of all products with weights; of those with the head apart
        self.body = 2 * deep * (4 * wide * wide + 3 * wide * shape["intermediate_size"])
        self.head = 2 * wide * shape["vocab_size"]
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

MARK = "@ "  # before what a side tells; its libraries print too


def tell(**what: Any) -> None:
    print(MARK + json.dumps(what), flush=True)


class Turns:
    """Makes TRL's trainer wait for its turn before each step, and tell its rate after it."""

    def __init__(self, now: Callable[[], float], work: Callable[[], float]) -> None:
        self.now, self.work, self.began = now, work, 0.0

    def callback(self) -> Any:
        from transformers import TrainerCallback

        turns = self

        class Wait(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                turns.wait()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                tell(rate=turns.work() / (turns.now() - turns.began))
                turns.wait()

        return Wait()

    def wait(self) -> None:
        sys.stdin.readline()
        self.began = self.now()


class Side:
    """One side of a pairing in a process of its own, from here."""

    def __init__(self, name: str, side: str, args: argparse.Namespace, place: str) -> None:
        command = [sys.executable, __file__, "--only", name, "--side", side, "--size", args.size]
        command += ["--threads", str(args.threads), "--steps", str(args.steps), "--group", str(args.group)]
        paths = os.pathsep.join([*([place] if place else []), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        env = os.environ | {"PYTHONPATH": paths, "TRL_EXPERIMENTAL_SILENCE": "1"}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        self.told = self._hear()

    def rate(self) -> float:
        """Let it take a step."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return float(self._hear()["rate"])

    def peak_mb(self) -> int:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return int(self._hear()["peak_mb"])

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line[len(MARK) :])  # type: ignore[no-any-return]
        self.process.wait()
        self.errors.seek(0)
        raise RuntimeError(f"its process failed: {self.errors.read().strip().splitlines()[-1]}")


@dataclass(frozen=True)
class Pairing:
    """The same work for both sides, each made when it is needed.

    Attributes:
        unit: what is counted.
        ours: makes a function that takes one of our steps and returns how many units it did.
        theirs: makes TRL's trainer.
        work: makes, of the trainer, a function that says how many units its last step did.
        flops: multiply-adds x 2 of one unit that no implementation can leave out (products of weights and tokens).
        dtype: precision of the weights' products.
    """

    unit: str
    ours: Callable[[], Callable[[int], int]]
    theirs: Callable[[], Any]
    work: Callable[[Any], Callable[[], float]]
    flops: float
    dtype: str = "float32"

    def serve(self, side: str, now: Callable[[], float]) -> None:
        """Be one side: a step for each line that comes in."""
        tell(unit=self.unit, flops=self.flops)
        if side == "trl":
            trainer = self.theirs()
            trainer.add_callback(Turns(now, self.work(trainer)).callback())
            trainer.train()
        else:
            step = self.ours()
            for index, _ in enumerate(sys.stdin):
                began = now()
                units = step(index)
                tell(rate=units / (now() - began))
        tell(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


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


def sft(world: World, args: argparse.Namespace, *, best: bool) -> Pairing:
    """Tokens; ``best``: TRL packed with one row a batch, its fastest setting."""
    count = BATCH * (args.steps + 2) * (8 if best else 1)
    texts = [(world.prompt(), " " + world.response(60, 200)) for _ in range(count)]

    def ours() -> Callable[[int], int]:
        from charter.training.packing import TOKENS_PER_FORWARD, PackedRow
        from charter.training.sft import accumulate_sft

        rows = [PackedRow(world.ids(prompt), [[*world.ids(response), 1]]) for prompt, response in texts]
        model = world.policy().train()
        trainer = our_trainer(model)

        def step(index: int) -> int:
            batch = rows[BATCH * index : BATCH * (index + 1)]
            trainer.update(accumulate_sft(model, batch, TOKENS_PER_FORWARD)["loss"])
            return sum(map(len, batch))

        return step

    def theirs() -> Any:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        more: dict[str, Any] = dict(per_device_train_batch_size=BATCH, packing=False)
        if best:
            more = dict(packing=True, per_device_train_batch_size=1, gradient_accumulation_steps=8)
        settings = SFTConfig(**trl_settings(world.folder, args.steps, max_length=512, **more))
        dataset = Dataset.from_dict({"prompt": [p for p, _ in texts], "completion": [r for _, r in texts]})
        return SFTTrainer(model=world.policy(), args=settings, train_dataset=dataset, processing_class=world.tokenizer)

    # the head is needed at the tokens of responses, six in ten
    return Pairing("tokens a second", ours, theirs, tokens_since_last, 3 * (world.body + 0.6 * world.head))


def tokens_since_last(trainer: Any) -> Callable[[], float]:
    seen = 0.0

    def count() -> float:
        nonlocal seen
        before, seen = seen, float(trainer._total_train_tokens)
        return seen - before

    return count


def reward(world: World, args: argparse.Namespace) -> Pairing:
    """Pairs."""
    texts = [(world.prompt(), *(" " + world.response(25, 48) for _ in "ab")) for _ in range(BATCH * (args.steps + 2))]
    each = sum(len(world.ids(p)) + len(world.ids(a)) + len(world.ids(b)) + 2 for p, a, b in texts) / len(texts)

    def ours() -> Callable[[int], int]:
        from charter.training.packing import TOKENS_PER_FORWARD
        from charter.training.reward import EncodedPair, accumulate_reward

        pairs = [EncodedPair(world.ids(p), [*world.ids(a), 1], [*world.ids(b), 1], 1.0) for p, a, b in texts]
        model = world.reward_model().train()
        trainer = our_trainer(model)

        def step(index: int) -> int:
            batch = pairs[BATCH * index : BATCH * (index + 1)]
            trainer.update(accumulate_reward(model, batch, 0.0, TOKENS_PER_FORWARD)["loss"])
            return len(batch)

        return step

    def theirs() -> Any:
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer

        settings = RewardConfig(
            **trl_settings(world.folder, args.steps, max_length=512, per_device_train_batch_size=BATCH)
        )
        columns = zip(*texts, strict=True)
        dataset = Dataset.from_dict(dict(zip(("prompt", "chosen", "rejected"), map(list, columns), strict=True)))
        return RewardTrainer(
            model=world.reward_model(), args=settings, train_dataset=dataset, processing_class=world.tokenizer
        )

    return Pairing("pairs a second", ours, theirs, lambda _: lambda: BATCH, 3 * world.body * each)


def scorer(judge: Any, group: int) -> Callable[[list[Any]], list[float | None]]:
    """A reward function by a reward model, as the pipeline's own."""
    from charter.training.reward import score

    def rewards(rollouts: list[Any]) -> list[float | None]:
        groups = [rollouts[i : i + group] for i in range(0, len(rollouts), group)]
        scored = score(judge, [g[0].prompt_ids for g in groups], [[r.response_ids for r in g] for g in groups])
        return [value for one in scored for value in one]

    return rewards


def grpo(world: World, args: argparse.Namespace, dtype: str) -> Pairing:
    """Completions; reward by a reward model, KL penalty to a reference."""
    group = args.group
    prompts = [world.prompt() for _ in range(PROMPTS * (args.steps + 2))]
    count = PROMPTS * group

    def ours() -> Callable[[int], int]:
        from charter.config import PolicyConfig
        from charter.training.grpo import EncodedPrompt, GroupUpdate
        from charter.training.policy_loop import Callbacks, PolicyLoop

        policy, reference, judge = world.policy(dtype), world.policy(dtype).eval(), world.reward_model(dtype).eval()
        config = PolicyConfig(
            prompts_per_step=PROMPTS, group_size=group, max_new_tokens=MAX_NEW_TOKENS, kl_coef=KL_COEF,
            learning_rate=1e-6,
        )  # fmt: skip
        encoded = [EncodedPrompt(str(i), world.ids(prompt)) for i, prompt in enumerate(prompts)]
        update = GroupUpdate(policy, reference, config)
        loop = PolicyLoop(policy, update, scorer(judge, group), encoded, config, 0, [1], Callbacks())
        trainer = our_trainer(policy)

        def step(index: int) -> int:
            loop._step(trainer, index + 1)
            return count

        return step

    def theirs() -> Any:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        settings = GRPOConfig(
            **trl_settings(
                world.folder, args.steps, per_device_train_batch_size=count, num_generations=group, beta=KL_COEF,
                max_completion_length=MAX_NEW_TOKENS, bf16=dtype == "bfloat16", shuffle_dataset=False,
            )
        )  # fmt: skip
        return GRPOTrainer(
            model=str(world.folder / "policy"), reward_funcs=str(world.folder / "reward"), args=settings,
            train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=world.tokenizer,
            reward_processing_classes=world.tokenizer,
        )  # fmt: skip

    # sampled, scored, read by the reference, and forward and backward of the policy: six passes, the head in five of them
    tokens = MEAN_PROMPT / group + MEAN_RESPONSE
    flops = 6 * world.body * tokens + 5 * world.head * MEAN_RESPONSE
    return Pairing("completions a second", ours, theirs, lambda _: lambda: count, flops, dtype)


def ppo(world: World, args: argparse.Namespace) -> Pairing:
    """Completions, four updates a rollout; TRL has no groups: it gets each prompt as often as we answer it."""
    count = PROMPTS * GROUP
    prompts = [world.ids(world.prompt()) for _ in range(PROMPTS * (args.steps + 2))]

    def ours() -> Callable[[int], int]:
        import torch

        from charter.config import PolicyConfig
        from charter.training.policy_loop import Callbacks, PolicyLoop
        from charter.training.ppo import ActorCriticUpdate, value_model_from
        from charter.training.rollout import EncodedPrompt

        policy, reference, judge = world.policy(), world.policy().eval(), world.reward_model().eval()
        value_model = value_model_from(judge)
        config = PolicyConfig(
            algorithm="ppo", prompts_per_step=PROMPTS, group_size=GROUP, max_new_tokens=MAX_NEW_TOKENS, kl_coef=0.05,
            learning_rate=1e-6, updates_per_rollout=4,
        )  # fmt: skip
        encoded = [EncodedPrompt(str(i), ids) for i, ids in enumerate(prompts)]
        update = ActorCriticUpdate(policy, reference, value_model, config)
        loop = PolicyLoop(policy, update, scorer(judge, GROUP), encoded, config, 0, [1], Callbacks())
        trainer = our_trainer(torch.nn.ModuleDict({"policy": policy, "value": value_model}))

        def step(index: int) -> int:
            loop._step(trainer, index + 1)
            return count

        return step

    def theirs() -> Any:
        from datasets import Dataset
        from trl.experimental.ppo import PPOConfig, PPOTrainer

        settings = trl_settings(world.folder, args.steps, per_device_train_batch_size=count)
        del settings["max_steps"]
        repeated = [ids for ids in prompts for _ in range(GROUP)]
        return PPOTrainer(
            args=PPOConfig(
                **settings, gradient_accumulation_steps=1, num_mini_batches=1, num_ppo_epochs=4, stop_token="eos",
                total_episodes=count * (args.steps + 1), response_length=MAX_NEW_TOKENS, temperature=1.0, kl_coef=0.05,
                local_rollout_forward_batch_size=count, num_sample_generations=0,
            ),
            processing_class=world.tokenizer, model=world.policy(), ref_model=world.policy(),
            reward_model=world.reward_model(), value_model=world.reward_model(),
            train_dataset=Dataset.from_dict({"input_ids": repeated}),
        )  # fmt: skip

    # sampled, scored, read by reference and value model, and four times forward and backward of policy and value model
    tokens = MEAN_PROMPT / GROUP + MEAN_RESPONSE
    flops = 28 * world.body * tokens + 14 * world.head * MEAN_RESPONSE
    return Pairing("completions a second", ours, theirs, lambda _: lambda: count, flops)


PAIRINGS: dict[str, Callable[[World, argparse.Namespace], Pairing]] = {
    "sft": lambda world, args: sft(world, args, best=False),
    "sft_best": lambda world, args: sft(world, args, best=True),
    "reward": reward,
    "grpo_fp32": lambda world, args: grpo(world, args, "float32"),
    "grpo_bf16": lambda world, args: grpo(world, args, "bfloat16"),
    "ppo": ppo,
}


def be(args: argparse.Namespace) -> None:
    """What a ``Side`` asks for."""
    with tempfile.TemporaryDirectory() as folder:
        build(args.size, Path(folder))
        pairing = PAIRINGS[args.only](World(Path(folder), args.size), args)
        pairing.serve(args.side, clock(args.threads))


def side_by_side(name: str, args: argparse.Namespace, place: str) -> dict[str, Any]:
    """Rates and peaks of both, step by step in turn; the first step warms up."""
    trl, charter = (Side(name, side, args, place) for side in ("trl", "charter"))
    rates = [(trl.rate(), charter.rate()) for _ in range(args.steps + 1)][1:]
    each = [own / theirs for theirs, own in rates]
    theirs, own = (statistics.median(column) for column in zip(*rates, strict=True))
    found = {"ratio": statistics.median(each), "lowest": min(each), "highest": max(each), "charter": own, "trl": theirs}
    return found | charter.told | {"peaks": [charter.peak_mb(), trl.peak_mb()]}


def clock(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def matmul_gflops(dtype: str) -> float:
    """What one product of two 1024 x 1024 matrices reaches here, as these processes count time: the median of nine."""
    import torch

    a, b = (torch.randn(1024, 1024).to(getattr(torch, dtype)) for _ in "ab")
    now = clock(torch.get_num_threads())
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
    if args.side:
        be(args)
        return
    old_trl = args.trl_ppo or os.environ.get("CHARTER_TRL_PPO", "")
    told: dict[str, Any] = {"trl": trl.__version__, "size": args.size, "threads": args.threads, "range": {}}
    told["matmul_gflops"] = {dtype: round(matmul_gflops(dtype)) for dtype in ("float32", "bfloat16")}
    told |= {"share_of_matmul": {}, "peak_memory_mb": {}}
    asked = args.only.split(",")
    for name in (name for name in PAIRINGS if name in asked or name.split("_")[0] in asked):
        if name == "ppo" and not (old_trl and (Path(old_trl) / "trl").is_dir()):
            told |= {"ppo": None, "ppo_reason": NO_PPO}
            continue
        place = old_trl if name == "ppo" else ""
        try:
            show(name, side_by_side(name, args, place), told)
        except RuntimeError as error:
            told |= {name: None, f"{name}_reason": str(error)}
    print(json.dumps(told))


def show(name: str, found: dict[str, Any], told: dict[str, Any]) -> None:
    """Print a pairing and keep its ratio, with the lowest and highest of its steps."""
    matmul = told["matmul_gflops"]["bfloat16" if name.endswith("bf16") else "float32"]
    share = found["charter"] * found["flops"] / 1e9 / matmul
    told[name] = round(found["ratio"], 2)
    told["range"][name] = [round(found["lowest"], 2), round(found["highest"], 2)]
    told["share_of_matmul"][name], told["peak_memory_mb"][name] = round(share, 2), found["peaks"]
    print(
        f"{name}: {found['charter']:.2f} against {found['trl']:.2f} {found['unit']}: {found['ratio']:.2f} times"
        f" ({found['lowest']:.2f} to {found['highest']:.2f}), share of matmul {share:.2f},"
        f" peak {found['peaks'][0]} against {found['peaks'][1]} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
