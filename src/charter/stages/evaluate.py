"""Sample every policy on held-out prompts and read what it says.

reads   held-out prompts; the folders of the policies
writes  responses/NAME.jsonl   EvaluatedResponse without readings (the unit of resuming)
        NAME.jsonl             EvaluatedResponse: reading by gold, judge or nobody; KL to SL-CAI per response

All policies answer the same prompts with the same seeds, so that differences between them are paired. KL is taken on
these samples, and only where they are drawn at temperature 1: at another one they aren't samples of the policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.config import EvaluateConfig, ModelConfig
from charter.models.local import LocalModel
from charter.models.protocol import Generation
from charter.progress import Progress
from charter.records import EvaluatedResponse, Prompt, Reading
from charter.stages.chunks import append_in_chunks
from charter.stages.kl import Spoken, kl_per_response
from charter.stages.readings import Reader
from charter.stages.saved import Load
from charter.stages.seeds import row_seed
from charter.store.jsonl import read_jsonl, write_jsonl
from charter.summary import MAIN_POLICIES, policy_figures

STAGE = "evaluate"
REFERENCE = "sl-cai"
UNSEEN = ("harmful_rate", "correct_rate")


@dataclass(frozen=True, slots=True)
class Policy:
    """A model to evaluate; ``step`` counts updates of reinforcement learning, None where it has none."""

    name: str
    model: ModelConfig
    step: int | None = None


def sample_policies(
    config: EvaluateConfig,
    folder: Path,
    *,
    policies: Sequence[Policy],
    prompts: Sequence[Prompt],
    load: Load,
    seed: int,
    progress: Progress,
) -> None:
    """Write the responses of each policy; one policy and the reference are in memory at a time."""
    reference = next((policy.model for policy in policies if policy.name == REFERENCE), None)
    anchor = reference if config.sampling.temperature == 1.0 else None
    for policy in policies:
        path = folder / "responses" / f"{policy.name}.jsonl"
        with _sampler(config, policy, anchor, load, seed) as sampler:
            size = config.sampling.batch_size
            append_in_chunks(path, prompts, size, sampler.answer_together, progress, f"{STAGE} {policy.name}")
        del sampler  # it holds the models


@contextmanager
def _sampler(
    config: EvaluateConfig, policy: Policy, anchor: ModelConfig | None, load: Load, seed: int
) -> Iterator[Sampler]:
    with load(policy.model) as model:
        if anchor is None or anchor == policy.model:
            yield Sampler(config, policy.name, model, model if anchor else None, seed)
        else:
            with load(anchor) as loaded_anchor:
                yield Sampler(config, policy.name, model, loaded_anchor, seed)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Answers chunks of prompts by one policy; ``anchor`` is SL-CAI, None where KL can't be known."""

    config: EvaluateConfig
    name: str
    model: LocalModel
    anchor: LocalModel | None
    seed: int

    def answer_together(self, prompts: Sequence[Prompt]) -> list[EvaluatedResponse]:
        """One response to each prompt, unread."""
        sampling = self.config.sampling
        generations = self.model.generate(
            [prompt.messages for prompt in prompts],
            seeds=[row_seed(self.seed, STAGE, prompt.id) for prompt in prompts],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
        )
        kl = self._kl(prompts, generations)
        return [
            EvaluatedResponse(
                self.name,
                prompt,
                generation.text,
                Reading(),
                num_words=len(generation.text.split()),
                num_tokens=generation.num_completion_tokens,
                truncated=generation.finish_reason == "length",
                kl_k1=k1,
                kl_k3=k3,
            )
            for prompt, generation, (k1, k3) in zip(prompts, generations, kl, strict=True)
        ]

    def _kl(
        self, prompts: Sequence[Prompt], generations: Sequence[Generation]
    ) -> Sequence[tuple[float | None, float | None]]:
        if self.anchor is None:
            return [(None, None)] * len(prompts)
        if self.anchor is self.model:
            return [(0.0, 0.0)] * len(prompts)
        spoken = [
            Spoken(prompt.messages, generation.text, generation.finish_reason == "length")
            for prompt, generation in zip(prompts, generations, strict=True)
        ]
        return kl_per_response(self.model, self.anchor, spoken)


def read_policies(
    config: EvaluateConfig, folder: Path, *, policies: Sequence[Policy], reader: Reader, progress: Progress
) -> dict[str, Any]:
    """Read all responses, write them with their readings, and return the figures of each policy by name."""
    figures: dict[str, Any] = {}
    num_tokens = 0
    progress.start(f"{STAGE}: reading by {reader.name}", len(policies), "policies")
    for policy in policies:
        rows = list(read_jsonl(folder / "responses" / f"{policy.name}.jsonl", EvaluatedResponse))
        readings = reader.read_all([row.prompt for row in rows], [row.response for row in rows])
        read = [dataclasses.replace(row, reading=reading) for row, reading in zip(rows, readings, strict=True)]
        write_jsonl(folder / f"{policy.name}.jsonl", read)
        figures[policy.name] = policy_figures(read, reader.name, _why_no_kl(config, policies))
        num_tokens += sum(row.num_tokens for row in rows)
        progress.advance()
    steps = {policy.name: policy.step for policy in policies if policy.step is not None}
    return {"policies": figures, "steps": steps, "reader": reader.name, "num_tokens": num_tokens}


def held_out_figures(
    folder: Path, held_out: Sequence[Prompt], seen: set[str], evaluated: dict[str, Any]
) -> dict[str, Any]:
    """How many held-out prompts are training prompts too, and the main policies' figures on the others."""
    names = [name for name in MAIN_POLICIES if name in evaluated["policies"]]
    unseen = on_unseen(folder, names, seen, evaluated["reader"])
    return {"num_prompts": len(held_out), "num_seen": len(seen), "unseen": unseen}


def on_unseen(folder: Path, names: Sequence[str], seen: set[str], reader: str) -> dict[str, Any]:
    """``UNSEEN`` of each policy over the held-out prompts that are no training prompts; nothing where none is such, or all."""
    if not seen:
        return {}
    found = {}
    for name in names:
        rows = [row for row in read_jsonl(folder / f"{name}.jsonl", EvaluatedResponse) if row.prompt.id not in seen]
        if rows:
            figures = policy_figures(rows, reader, None)
            found[name] = {key: figures[key] for key in UNSEEN}
    return found


def _why_no_kl(config: EvaluateConfig, policies: Sequence[Policy]) -> str | None:
    if REFERENCE not in {policy.name for policy in policies}:
        return "this run makes no SL-CAI"
    if config.sampling.temperature != 1.0:
        return f"responses are sampled at temperature {config.sampling.temperature:g}, not 1"
    return None
