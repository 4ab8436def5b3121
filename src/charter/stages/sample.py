"""Phase 2, first step: two responses of SL-CAI to each prompt.

reads   prompts, 2-sft/model
writes  samples.jsonl   {pair, num_tokens, num_truncated}, one per prompt (the unit of resuming)
        pairs.jsonl     ResponsePair, without the pairs of equal texts

Bai et al. 2022 (arXiv:2212.08073), section 4.1. Departure: pairs of equal texts are dropped and counted, since a label on
them says nothing but the labeler's bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import SampleConfig
from charter.models.protocol import Generation, LanguageModel
from charter.progress import Progress
from charter.records import Prompt, ResponsePair
from charter.stages.chunks import Execute, append_in_chunks, num_tokens
from charter.stages.seeds import row_seed
from charter.store.jsonl import read_rows, write_jsonl

STAGE = "sample"


def run(
    config: SampleConfig,
    folder: Path,
    *,
    prompts: Sequence[Prompt],
    model: LanguageModel | None,
    seed: int,
    progress: Progress,
    execute: Execute | None = None,
) -> dict[str, Any]:
    """Write the response pairs; return counts. ``execute``: who samples where there is no model here."""

    def together(chunk: Sequence[Prompt]) -> list[dict[str, Any]]:
        assert model is not None
        return sample_together(config, model, seed, chunk)

    size = config.sampling.batch_size
    append_in_chunks(folder / "samples.jsonl", prompts, size, together, progress, STAGE, execute)
    samples = [row for _, row in read_rows(folder / "samples.jsonl")]
    sampled = [ResponsePair.from_json(row["pair"]) for row in samples]
    pairs = [pair for pair in sampled if pair.response_a.strip() != pair.response_b.strip()]
    write_jsonl(folder / "pairs.jsonl", pairs)
    return {
        "num_prompts": len(samples),
        "num_pairs": len(pairs),
        "num_identical": len(samples) - len(pairs),
        "num_truncated": sum(row["num_truncated"] for row in samples),
        "num_tokens": sum(row["num_tokens"] for row in samples),
    }


def sample_together(
    config: SampleConfig, model: LanguageModel, seed: int, chunk: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """The rows of a chunk of prompts."""
    twice = [(prompt, side) for prompt in chunk for side in ("a", "b")]
    generations = model.generate(
        [prompt.messages for prompt, _ in twice],
        seeds=[row_seed(seed, STAGE, prompt.id, side) for prompt, side in twice],
        max_new_tokens=config.sampling.max_new_tokens,
        temperature=config.sampling.temperature,
    )
    return [_row(prompt, generations[2 * i], generations[2 * i + 1]) for i, prompt in enumerate(chunk)]


def _row(prompt: Prompt, a: Generation, b: Generation) -> dict[str, Any]:
    return {
        "pair": ResponsePair(f"pair-{prompt.id}", prompt, a.text, b.text).to_json(),
        "num_tokens": num_tokens(a) + num_tokens(b),
        "num_truncated": sum(g.finish_reason == "length" for g in (a, b)),
    }
