"""Train the starter model on the village's corpus: ``charter village build-starter OUT``.

Muon for the matrices inside the blocks, AdamW for the rest; bf16 compute on fp32 weights; learning rate held, then decayed
linearly to zero. Drills have a large share of the first tokens. Seeded; about 40 minutes on one core with AVX-512 bf16.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from charter.village.packing import batches
from charter.village.tokenizer import END, PAD, USER, make_tokenizer, vocabulary


@dataclass(frozen=True)
class BuildConfig:
    """Defaults are those of the shipped starter."""

    seed: int = 0
    num_tokens: int = 22_000_000
    early_tokens: int = 5_000_000  # the weaker checkpoint is kept here
    tokens_per_batch: int = 3072
    hidden_size: int = 128
    num_layers: int = 6
    num_heads: int = 4
    intermediate_size: int = 384
    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 3e-3
    warmup_steps: int = 60
    decay_from: float = 0.45  # fraction of the tokens after which the learning rate falls
    drill_tokens: int = 1_500_000


def new_model(config: BuildConfig, num_words: int, index: dict[str, int]) -> Any:
    """A small Qwen3 with tied embeddings, seeded."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(config.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=num_words,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            head_dim=config.hidden_size // config.num_heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            pad_token_id=index[PAD],
            bos_token_id=index[USER],
            eos_token_id=index[END],
        )
    )


def block_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float = 1.0, **_: Any
) -> tuple[Tensor, None]:
    """Plain attention: on a CPU its bf16 backward pass is twice as fast as that of the fused one."""
    scores = (query @ key.transpose(-1, -2)) * scaling
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def weighted_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Weighted mean NLL in nats over the tokens that have a weight; the first token of a branch has none."""
    hidden_BLD = model.model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    weights = batch["weights_BL"][:, 1:]
    chosen = weights > 0
    logits = model.lm_head(hidden_BLD[:, :-1][chosen]).float()
    nll = F.cross_entropy(logits, batch["input_ids"][:, 1:][chosen], reduction="none")
    return (nll * weights[chosen]).sum() / weights[chosen].sum()


def build_starter(out: Path, config: BuildConfig = BuildConfig(), log: Callable[[str], None] = print) -> None:
    """Train and save the starter to ``out`` and its earlier checkpoint to ``out``-early, in Hugging Face format."""
    from transformers import AttentionInterface

    vocab = vocabulary()
    index = {word: i for i, word in enumerate(vocab)}
    AttentionInterface.register("village_block", block_attention)
    model = new_model(config, len(vocab), index)
    model.set_attn_implementation("village_block")
    tokenizer = make_tokenizer(vocab)
    inner = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inner_ids = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in inner_ids]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(inner, lr=config.muon_learning_rate, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(outer, lr=config.adam_learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    seen = {"num_tokens": 0, "num_steps": 0}

    def drill_share() -> float:
        return 0.6 if seen["num_tokens"] < config.drill_tokens else 0.08

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        facts = {"config": asdict(config), **seen}
        (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")

    started, running, early_saved = time.monotonic(), 0.0, False
    for step, batch in enumerate(batches(config.seed + 1, index, config.tokens_per_batch, drill_share), start=1):
        done = seen["num_tokens"] / config.num_tokens
        if done >= 1:
            break
        scale = min(1.0, step / config.warmup_steps) * min(1.0, (1 - done) / (1 - config.decay_from) + 0.005)
        for optimizer, base in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = peak * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = weighted_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen["num_steps"] = step
        seen["num_tokens"] += int((batch["branch_BL"] >= 0).sum())
        running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
        if step % 100 == 0:
            rate = seen["num_tokens"] / (time.monotonic() - started)
            left = (config.num_tokens - seen["num_tokens"]) / rate / 60
            log(
                f"step {step}  {seen['num_tokens'] / 1e6:.2f}M tokens  {rate:.0f}/s  loss {running:.4f}  {left:.1f} minutes left"
            )
        if not early_saved and seen["num_tokens"] >= config.early_tokens:
            save(out.with_name(out.name + "-early"))
            early_saved = True
    save(out)
