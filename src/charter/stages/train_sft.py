"""Phase 1, second half: train the helpful model on its own revisions. The result is SL-CAI.

reads   1-revise/revisions.jsonl   RevisionChain
        prompts, the helpful model; ``sft.helpful_data`` where it is named
writes  helpful.jsonl   {prompt, response, truncated, num_tokens}: unrevised answers (the unit of resuming)
        dataset.jsonl   {prompt, completion, source}: what was trained on, in the form that TRL reads
        model/          Hugging Face folder; metrics.jsonl; checkpoints while it trains

Bai et al. 2022 (arXiv:2212.08073), section 3.2: revisions of all rounds, mixed with helpful answers so that the model
doesn't forget how to help. Departures: revisions unfit to train on are dropped (stages/filters.py); an answer to a
prompt that also has a revision chain is its initial response, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import SamplingConfig, SftConfig
from charter.models.protocol import LanguageModel
from charter.progress import Progress
from charter.records import Conversation, Message, Prompt, RevisionChain
from charter.stages.chunks import append_in_chunks, num_tokens
from charter.stages.filters import fit_revisions
from charter.stages.seeds import row_seed, shuffled
from charter.store.jsonl import read_rows, write_jsonl

STAGE = "sft"

Example = tuple[Conversation, str]


def sample_helpful(
    num: int,
    folder: Path,
    *,
    prompts: Sequence[Prompt],
    chains: Sequence[RevisionChain],
    sampling: SamplingConfig,
    model: LanguageModel,
    seed: int,
    progress: Progress,
) -> None:
    """Write up to ``num`` unrevised answers of the helpful model to prompts not known to be harmful."""
    known = {chain.prompt.id: chain for chain in chains}
    candidates = [prompt for prompt in prompts if prompt.harmful is not True]
    # prompts that were answered before come first: their answers are there already
    candidates = [p for p in candidates if p.id in known] + [p for p in candidates if p.id not in known]

    def answer_together(chunk: Sequence[Prompt]) -> list[dict[str, Any]]:
        missing = [prompt for prompt in chunk if prompt.id not in known]
        answers = model.generate(
            [prompt.messages for prompt in missing],
            seeds=[row_seed(seed, STAGE, prompt.id, "helpful") for prompt in missing],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
        )
        answered = dict(zip((prompt.id for prompt in missing), answers, strict=True))
        rows = []
        for prompt in chunk:
            if prompt.id in known:
                chain = known[prompt.id]
                rows.append(_helpful_row(prompt, chain.initial_response, chain.initial_truncated, 0))
            else:
                answer = answered[prompt.id]
                rows.append(_helpful_row(prompt, answer.text, answer.finish_reason == "length", num_tokens(answer)))
        return rows

    path = folder / "helpful.jsonl"
    append_in_chunks(path, candidates[:num], sampling.batch_size, answer_together, progress, f"{STAGE}: helpful answers")


def _helpful_row(prompt: Prompt, response: str, truncated: bool, spent: int) -> dict[str, Any]:
    return {"prompt": prompt.to_json(), "response": response, "truncated": truncated, "num_tokens": spent}


def read_helpful(folder: Path) -> tuple[list[Example], int]:
    """The whole answers of ``helpful.jsonl``, and the tokens spent on the file."""
    path = folder / "helpful.jsonl"
    rows = [row for _, row in read_rows(path)] if path.exists() else []
    whole = [row for row in rows if row["response"].strip() and not row["truncated"]]
    examples = [(Prompt.from_json(row["prompt"]).messages, row["response"]) for row in whole]
    return examples, sum(row["num_tokens"] for row in rows)


def build_dataset(
    config: SftConfig, folder: Path, *, chains: Sequence[RevisionChain], up_to: int, helpful: Sequence[Example], seed: int
) -> tuple[list[Example], dict[str, Any]]:
    """Mix fit revisions of rounds 1 to ``up_to`` with helpful answers, shuffled by seed; write them; return them with counts."""
    revisions = fit_revisions(list(chains), config.rounds, up_to)
    rows = [(example, "revision") for example in revisions.rows] + [(example, "helpful") for example in helpful]
    rows = shuffled(rows, seed, STAGE, "order")
    write_jsonl(folder / "dataset.jsonl", [_trl_row(example, source) for example, source in rows])
    counts = {
        "num_examples": len(rows),
        "num_revisions": len(revisions.rows),
        "num_helpful": len(helpful),
        "filters": dict(sorted(revisions.counts.items())),
    }
    return [example for example, _ in rows], counts


def _trl_row(example: Example, source: str) -> dict[str, Any]:
    conversation, response = example
    completion = [Message("assistant", response).to_json()]
    return {"prompt": [m.to_json() for m in conversation], "completion": completion, "source": source}
