"""Option probabilities for K principles in both orders, against one padded forward pass per question.

    python benchmarks/labels.py [--threads N] [--repeats N]

The peer is what a judge loop over ``generate`` computes: batches of padded questions through the Transformers model, logits
of the last token alone. Same questions, same process, runs alternating, medians. Questions are random tokens of the stated
lengths (drawn from 0.8 to 1.2 times each): a conversation, two responses in either order, a principle; the work doesn't
depend on what they say. Two models: the shipped starter, and a random Llama of about 30 million parameters. ``village``
takes the starter's own questions as text, tokenisation included for ours alone, and says what bfloat16 does to its labels.

``limit`` is (P + S) / (P / K + S), the most that sharing the text before the principle can give, with P and S the mean
numbers of tokens before and after it. Sharing the conversation between both orders as well can pass it. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import charter.village
from charter.config import ModelConfig
from charter.constitution.load import load_constitution
from charter.models.choose import option_logprobs
from charter.models.load import load_model
from charter.models.local import LocalModel
from charter.models.protocol import Question
from charter.models.tree import grow
from charter.records import Message
from charter.village.prompts import make_request
from charter.village.replies import make_pair, text_of
from charter.village.skills import question

ROOT = Path(__file__).resolve().parents[1]

LABELS = (5, 6)  # two tokens that stand for A and B
BATCH = 32


@dataclass(frozen=True)
class Case:
    """K principles; tokens of the conversation, of both responses together, and of a principle."""

    key: str
    num_pairs: int
    num_principles: int
    conversation: int
    responses: int
    principle: int


STARTER = (
    Case("8_principles_80_tokens", 32, 8, 40, 40, 15),
    Case("16_principles_80_tokens", 16, 16, 40, 40, 15),
    Case("16_principles_600_tokens", 6, 16, 540, 60, 20),
)
LARGER = (
    Case("8_principles_100_tokens_30m", 2, 8, 50, 50, 15),
    Case("16_principles_600_tokens_30m", 1, 16, 540, 60, 20),
)


def questions(case: Case, vocab_size: int) -> tuple[list[list[int]], float]:
    """Token ids of every question, principles innermost, and the mean number of tokens before the principle."""
    rng = np.random.default_rng(0)

    def draw(mean: int) -> list[int]:
        low, high = round(0.8 * mean), round(1.2 * mean)
        return rng.integers(7, vocab_size, rng.integers(low, high + 1)).tolist()

    principles = [draw(case.principle) for _ in range(case.num_principles)]
    found, shared = [], []
    for _ in range(case.num_pairs):
        conversation = draw(case.conversation)
        for _order in "ab", "ba":
            beginning = conversation + draw(case.responses)
            shared.append(len(beginning))
            found += [beginning + principle for principle in principles]
    return found, statistics.mean(shared)


@torch.no_grad()
def padded(model: Any, prompts: list[list[int]]) -> list[list[float]]:
    """The peer: log-probabilities of both labels by one padded row per question."""
    found: list[list[float]] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        length = max(map(len, batch))
        ids = torch.tensor([[0] * (length - len(p)) + p for p in batch])
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in batch])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False
        ).logits
        found += logits[:, -1].float().log_softmax(-1)[:, list(LABELS)].tolist()
    return found


def shared(model: Any, prompts: list[list[int]]) -> list[list[float]]:
    """Charter's way."""
    return option_logprobs(model, prompts, [[[label] for label in LABELS]] * len(prompts))


def p_first(logprobs: list[list[float]]) -> np.ndarray:
    """Probability of the first of the two labels."""
    values = np.array(logprobs)
    return 1 / (1 + np.exp(values[:, 1] - values[:, 0]))


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def matmul_rate(repeats: int = 5) -> float:
    """float32 multiply-adds of this machine, in GFLOP/s: a square product of 1,024."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    a @ b
    return 2 * 1024**3 / min(seconds(lambda: a @ b) for _ in range(repeats)) / 1e9


def measure(model: Any, case: Case, repeats: int) -> dict[str, float]:
    """Ratio, its share of the limit, the largest difference in probability, and the rates of work."""
    prompts, before = questions(case, model.config.vocab_size)
    mean_length = statistics.mean(map(len, prompts))
    own = mean_length - before
    limit = mean_length / (before / case.num_principles + own)
    difference = float(np.abs(p_first(shared(model, prompts)) - p_first(padded(model, prompts))).max())
    times: dict[str, list[float]] = {"padded": [], "shared": []}
    for _ in range(repeats):
        times["padded"].append(seconds(lambda: padded(model, prompts)))
        times["shared"].append(seconds(lambda: shared(model, prompts)))
    slow, fast = (statistics.median(times[name]) for name in ("padded", "shared"))
    computed = sum(tree.num_tokens for tree in grow(prompts, [1] * len(prompts)))
    weights = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    return {
        "ratio": slow / fast,
        "limit": limit,
        "share_of_limit": slow / fast / limit,
        "max_difference": difference,
        "questions_per_second": len(prompts) / fast,
        "tokens_computed": computed / (len(prompts) * mean_length),
        "gflops": 2 * weights * computed / fast / 1e9,  # matrix products with weights alone, without attention
    }


def village_questions(model: LocalModel, num_pairs: int = 60) -> list[Question]:
    """What the labeler of the default run asks: every principle of the village, both orders, of drawn pairs."""
    principles = load_constitution(ROOT / "constitutions" / "village.yaml").principles
    rng = random.Random(0)
    found = []
    for _ in range(num_pairs):
        request = make_request(rng, "combinations")
        first, second = (text_of(reply) for reply in make_pair(rng, request))
        for shown in ((first, second), (second, first)):
            texts = (question(request.messages(), *shown, principle) for principle in principles)
            found += [Question((Message("user", text),), ("A", "B")) for text in texts]
    return found


def measure_village(exact: LocalModel, rough: LocalModel, repeats: int) -> dict[str, float]:
    """Whole calls of ``choose``, text in, on the starter's own questions; and what bfloat16 does to its labels."""
    asked = village_questions(exact)
    p_exact, p_rough = (p_first([list(c.logprobs or ()) for c in model.choose(asked)]) for model in (exact, rough))
    prompts = [exact.encode_prompt(q.conversation) for q in asked]
    times: dict[str, list[float]] = {"padded": [], "exact": [], "rough": []}
    for _ in range(repeats):
        times["padded"].append(seconds(lambda: padded(exact.model, prompts)))
        times["exact"].append(seconds(lambda: exact.choose(asked)))
        times["rough"].append(seconds(lambda: rough.choose(asked)))
    slow, fast, half = (statistics.median(times[name]) for name in ("padded", "exact", "rough"))
    flipped, near = (p_exact > 0.5) != (p_rough > 0.5), np.abs(p_exact - 0.5) < 0.05
    return {
        "ratio": slow / fast,
        "questions_per_second": len(asked) / fast,
        "bfloat16_speedup": fast / half,
        "bfloat16_mean_difference": float(np.abs(p_exact - p_rough).mean()),
        "bfloat16_flipped": float(flipped.mean()),
        "near_ties": float(near.mean()),
        "bfloat16_flipped_of_near_ties": float(flipped[near].mean()) if near.any() else 0.0,
    }


def larger_model() -> Any:
    """A random Llama of about 30 million parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
            num_key_value_heads=8, max_position_embeddings=2048, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Option probabilities with shared beginnings against padded questions."
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rate = matmul_rate()
    world = Path(charter.village.__file__).parent
    exact, rough = (
        load_model(ModelConfig(source="starter", device="cpu", dtype=dtype), base_dir=world)  # type: ignore[arg-type]
        for dtype in ("float32", "bfloat16")
    )
    results: dict[str, Any] = {"threads": options.threads, "matmul_gflops": rate}
    for model, cases in ((exact.model, STARTER), (larger_model(), LARGER)):
        for case in cases:
            found = measure(model, case, options.repeats)
            print(f"{case.key}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()), flush=True)
            results[f"ratio_{case.key}"] = found["ratio"]
            results |= {f"{name}_{case.key}": found[name] for name in ("limit", "share_of_limit", "max_difference")}
            results[f"matmul_share_{case.key}"] = found["gflops"] / rate
    found = measure_village(exact, rough, options.repeats)
    print("village: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    print(json.dumps(results | {f"village_{name}": value for name, value in found.items()}))


if __name__ == "__main__":
    main()
