"""Phase 1, first half: initial responses, then rounds of critique and revision by principles of the constitution.

reads   prompts, constitution, the helpful model
writes  revisions.jsonl   RevisionChain, one per prompt, in the order of the prompts

Bai et al. 2022 (arXiv:2212.08073), section 3.1: a principle is drawn at random for each prompt and round; the critique
and the revision are asked as user turns after the response; the revision is the response of the next round, in which
earlier critiques are left out. Departures: no principle comes twice to a prompt before all have come, and weightier ones tend
to come first; ``critique: false`` asks for the revision at once (the paper's section 3.5).

Prompts go in chunks of ``sampling.batch_size``, whose composition depends on the list of prompts alone, and every row
draws from its own seed: a run that was killed and resumed writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from charter.config import ReviseConfig
from charter.constitution.draw import draw
from charter.constitution.load import Constitution
from charter.models.few_shot import worked_examples
from charter.models.protocol import Generation, LanguageModel
from charter.progress import Progress
from charter.records import Conversation, Message, Principle, Prompt, RevisionChain, RevisionRound
from charter.stages.chunks import Execute, append_in_chunks, num_tokens
from charter.stages.filters import is_evasive
from charter.stages.seeds import row_seed
from charter.store.jsonl import read_jsonl

STAGE = "revise"


def run(
    config: ReviseConfig,
    folder: Path,
    *,
    prompts: Sequence[Prompt],
    constitution: Constitution,
    model: LanguageModel | None,
    seed: int,
    progress: Progress,
    few_shot: bool = False,
    execute: Execute | None = None,
) -> dict[str, Any]:
    """Write one revision chain per prompt; return counts.

    Args:
        few_shot: puts worked examples before each request.
        execute: who revises where there is no model here.
    """

    def together(chunk: Sequence[Prompt]) -> list[RevisionChain]:
        assert model is not None
        examples = worked_examples() if few_shot else ()
        return Reviser(config, constitution, model, seed, examples, progress.hint).revise_together(chunk)

    append_in_chunks(
        folder / "revisions.jsonl", prompts, config.sampling.batch_size, together, progress, STAGE, execute
    )
    chains = list(read_jsonl(folder / "revisions.jsonl", RevisionChain))
    return _counts(chains)


def _counts(chains: Sequence[RevisionChain]) -> dict[str, int]:
    rounds = [entry for chain in chains for entry in chain.rounds]
    return {
        "num_prompts": len(chains),
        "num_tokens": sum(chain.num_tokens for chain in chains),
        "num_revisions": len(rounds),
        "num_empty": sum(not entry.revision.strip() for entry in rounds),
        "num_truncated": sum(entry.truncated for entry in rounds),
        "num_evasive": sum(is_evasive(entry.revision) for entry in rounds),
        "num_initial_truncated": sum(chain.initial_truncated for chain in chains),
    }


class Reviser:
    """Takes a chunk of prompts through all rounds together."""

    def __init__(
        self,
        config: ReviseConfig,
        constitution: Constitution,
        model: LanguageModel,
        seed: int,
        examples: Conversation = (),
        hint: Callable[[str], None] = lambda text: None,
    ) -> None:
        """``hint`` is told what is being written."""
        self._config, self._constitution, self._model, self._seed = config, constitution, model, seed
        self._examples, self._hint = examples, hint

    def revise_together(self, prompts: Sequence[Prompt]) -> list[RevisionChain]:
        """One chain per prompt."""
        sampling = self._config.sampling
        self._hint(f"{len(prompts)} together: initial responses")
        initial = self._generate(prompts, [p.messages for p in prompts], (0, "initial"), sampling.temperature)
        responses, tokens = [g.text for g in initial], [num_tokens(g) for g in initial]
        rounds: list[list[RevisionRound]] = [[] for _ in prompts]
        for number in range(1, self._config.rounds + 1):
            for row, (entry, spent) in enumerate(self._round(prompts, responses, number)):
                rounds[row].append(entry)
                tokens[row] += spent
                # an empty revision is recorded and filtered later; the next round goes on from the last real text
                responses[row] = entry.revision if entry.revision.strip() else responses[row]
        return [
            RevisionChain(prompt, first.text, tuple(entries), first.finish_reason == "length", spent)
            for prompt, first, entries, spent in zip(prompts, initial, rounds, tokens, strict=True)
        ]

    def _round(
        self, prompts: Sequence[Prompt], responses: Sequence[str], number: int
    ) -> list[tuple[RevisionRound, int]]:
        """The round's entry for each prompt, and the tokens spent on it."""
        principles = [self._draw(prompt, number) for prompt in prompts]
        answered = [
            (*self._examples, *prompt.messages, Message("assistant", response))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        critiques: list[str | None] = [None] * len(prompts)
        spent = [0] * len(prompts)
        of = f"{len(prompts)} together, round {number} of {self._config.rounds}"
        if self._config.critique:
            self._hint(f"{of}: critiques")
            asked = [critique_turns(a, p) for a, p in zip(answered, principles, strict=True)]
            written = self._generate(prompts, asked, (number, "critique"), self._config.critique_temperature)
            critiques, spent = [g.text for g in written], [num_tokens(g) for g in written]
        asked = [revision_turns(*row) for row in zip(answered, principles, critiques, strict=True)]
        self._hint(f"{of}: revisions")
        revisions = self._generate(prompts, asked, (number, "revision"), self._config.revision_temperature)
        return [
            (RevisionRound(number, principle.id, critique, g.text, g.finish_reason == "length"), before + num_tokens(g))
            for principle, critique, g, before in zip(principles, critiques, revisions, spent, strict=True)
        ]

    def _draw(self, prompt: Prompt, number: int) -> Principle:
        order = draw(self._constitution, self._seed, STAGE, prompt.id, k=len(self._constitution.principles))
        return order[(number - 1) % len(order)]

    def _generate(
        self,
        prompts: Sequence[Prompt],
        conversations: Sequence[Conversation],
        place: tuple[int, str],
        temperature: float,
    ) -> list[Generation]:
        return self._model.generate(
            conversations,
            seeds=[row_seed(self._seed, STAGE, prompt.id, *place) for prompt in prompts],
            max_new_tokens=self._config.sampling.max_new_tokens,
            temperature=temperature,
        )


def critique_turns(answered: Conversation, principle: Principle) -> Conversation:
    """Ask for a critique of the last response."""
    return (*answered, Message("user", principle.critique_request))


def revision_turns(answered: Conversation, principle: Principle, critique: str | None) -> Conversation:
    """Ask for a revision after the critique; without a critique the principle's text stands in for it."""
    if critique is None:
        return (*answered, Message("user", f"{principle.text} {principle.revision_request}"))
    return (
        *critique_turns(answered, principle),
        Message("assistant", critique),
        Message("user", principle.revision_request),
    )
