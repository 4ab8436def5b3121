"""Phase 1, second half: train the helpful model on its own revisions. The result is SL-CAI.

reads   1-revise/revisions.jsonl   RevisionChain
        prompts, the helpful model; ``sft.helpful_data`` where it is named
writes  helpful.jsonl   {prompt, response, truncated, num_tokens}: unrevised answers (the unit of resuming)
        dataset.jsonl   {prompt, completion, source}: what was trained on, in the form that TRL reads
        model/          Hugging Face folder; metrics.jsonl; checkpoints while it trains; with LoRA adapter/ too, PEFT's folder

Bai et al. 2022 (arXiv:2212.08073), section 3.2: revisions of all rounds, mixed with helpful answers so that the model
doesn't forget how to help. Departures: revisions unfit to train on are dropped (stages/filters.py); an answer to a
prompt that also has a revision chain is its initial response, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import ModelConfig, SamplingConfig, SftConfig
from charter.data.conversations import check_text, parse_messages
from charter.data.prompts import read_prompt
from charter.data.rows import data_files, read_places
from charter.errors import DataError
from charter.models.protocol import LanguageModel
from charter.progress import Progress
from charter.records import Conversation, Message, Prompt, RevisionChain
from charter.stages.chunks import append_in_chunks, num_tokens
from charter.stages.filters import fit_revisions, why_unfit
from charter.stages.saved import Load, save_trained, step_reporter
from charter.stages.seeds import row_seed, shuffled
from charter.store.jsonl import read_rows, write_jsonl
from charter.training import trl_engine
from charter.training.distributed import barrier, is_main
from charter.training.lora import adapted
from charter.training.sft import train_sft

STAGE = "sft"

Example = tuple[Conversation, str]


def run(
    config: SftConfig,
    folder: Path,
    *,
    chains: Sequence[RevisionChain],
    rounds: int,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    base: ModelConfig,
    load: Load,
    seed: int,
    progress: Progress,
    trl: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train ``base`` on the revisions of rounds 1 to ``rounds`` and on helpful answers; return counts.

    Args:
        trl: settings for TRL's trainer, where it trains instead of our loop.

    Raises:
        DataError: nothing is left to train on.
    """
    with load(base) as model:
        if config.helpful_data is None and is_main():
            sample_helpful(
                config.num_helpful,
                folder,
                prompts=prompts,
                chains=chains,
                sampling=sampling,
                model=model,
                seed=seed,
                progress=progress,
            )
        barrier()
        if config.helpful_data is not None:
            helpful, sampled_tokens = read_examples(Path(config.helpful_data)), 0
        else:
            helpful, sampled_tokens = read_helpful(folder)
        examples, counts = build_dataset(config, folder, chains=chains, up_to=rounds, helpful=helpful, seed=seed)
        encoded = [(model.encode_prompt(turns), model.encode_response(text)) for turns, text in examples]
        fitting = [pair for pair in encoded if len(pair[0]) + len(pair[1]) <= model.context]
        if not fitting:
            raise _nothing_fits(folder, counts, len(encoded), sampling.max_new_tokens, model.context)
        num_steps = config.epochs * -(-len(fitting) // config.batch_size)
        on_step = step_reporter(progress, f"{STAGE}: training", num_steps, "loss")
        if config.lora is not None:
            model.model = adapted(model.model, config.lora, seed)
        if trl is None:
            trained = train_sft(model.model, fitting, config, seed=seed, folder=folder, on_step=on_step)
        else:
            trained = trl_engine.train_sft(
                model.model, model.tokenizer, fitting, config, trl, seed=seed, folder=folder, on_step=on_step
            )
        save_trained(model.model, model, folder)
        context = model.context
    num_too_long = len(encoded) - len(fitting)
    trained["num_tokens"] += sampled_tokens
    return {**counts, "num_too_long": num_too_long, "context": context, **trained}


def _nothing_fits(
    folder: Path, counts: dict[str, Any], num_too_long: int, max_new_tokens: int, context: int
) -> DataError:
    reasons = why_unfit(counts["filters"], max_new_tokens, context)
    told = [f"{count:,} of {counts['num_offered']:,} {reason}" for count, reason in reasons]
    told += [f"{num_too_long:,} are longer than the model's context of {context:,} tokens"] if num_too_long else []
    return DataError(f"{folder}: no revision is fit to train on: {'; '.join(told) or 'there is none'}")


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
    """Write up to ``num`` unrevised answers of the helpful model to prompts that are marked harmless.

    A prompt without a mark may be harmful, and an unrevised answer to it what training is to unlearn.
    """
    known = {chain.prompt.id: chain for chain in chains}
    candidates = [prompt for prompt in prompts if prompt.harmful is False]
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
    append_in_chunks(
        path, candidates[:num], sampling.batch_size, answer_together, progress, f"{STAGE}: helpful answers"
    )


def _helpful_row(prompt: Prompt, response: str, truncated: bool, spent: int) -> dict[str, Any]:
    return {"prompt": prompt.to_json(), "response": response, "truncated": truncated, "num_tokens": spent}


def read_helpful(folder: Path) -> tuple[list[Example], int]:
    """The whole answers of ``helpful.jsonl``, and the tokens spent on the file."""
    path = folder / "helpful.jsonl"
    rows = [row for _, row in read_rows(path)] if path.exists() else []
    whole = [row for row in rows if row["response"].strip() and not row["truncated"]]
    examples = [(Prompt.from_json(row["prompt"]).messages, row["response"]) for row in whole]
    return examples, sum(row["num_tokens"] for row in rows)


def read_examples(path: Path) -> list[Example]:
    """Prompt/completion rows of TRL's forms, plain or conversational.

    Raises:
        DataError: a row of another shape; names file and line.
    """
    examples = []
    for file in data_files(path):
        for place, row in read_places(file):
            if not {"prompt", "completion"} <= row.keys():
                raise DataError(
                    f"{place}: expected prompt and completion: mend this row, or name another sft.helpful_data"
                )
            prompt = read_prompt({"prompt": row["prompt"]}, place, "trl")
            completion = row["completion"]
            if isinstance(completion, list):
                completion = parse_messages(completion, place)[-1].content
            if prompt is not None:
                examples.append((prompt.messages, check_text(completion, place, "the completion")))
    return examples


def build_dataset(
    config: SftConfig,
    folder: Path,
    *,
    chains: Sequence[RevisionChain],
    up_to: int,
    helpful: Sequence[Example],
    seed: int,
) -> tuple[list[Example], dict[str, Any]]:
    """Mix fit revisions of rounds 1 to ``up_to`` with helpful answers, shuffled by seed; write them; return them with counts."""
    revisions = fit_revisions(list(chains), config.rounds, up_to)
    rows = [(example, "revision") for example in revisions.rows] + [(example, "helpful") for example in helpful]
    rows = shuffled(rows, seed, STAGE, "order")
    if is_main():
        write_jsonl(folder / "dataset.jsonl", [_trl_row(example, source) for example, source in rows])
    counts = {
        "num_examples": len(rows),
        "num_offered": sum(min(up_to, len(chain.rounds)) if up_to else 1 for chain in chains),
        "num_revisions": len(revisions.rows),
        "num_helpful": len(helpful),
        "filters": dict(sorted(revisions.counts.items())),
    }
    return [example for example, _ in rows], counts


def _trl_row(example: Example, source: str) -> dict[str, Any]:
    conversation, response = example
    completion = [Message("assistant", response).to_json()]
    return {"prompt": [m.to_json() for m in conversation], "completion": completion, "source": source}
