"""Rollouts by a server that holds a copy of the policy (vLLM): new weights before each step, and a look whether they arrived.

The weights go through a folder that the server sees. Its arithmetic is another than ours, so the log-probabilities with which
it sampled are the old ones of the update: the policy's ratio to them corrects for the difference.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from charter.errors import TrainingError
from charter.models.decode import Sampled
from charter.models.served import TokenServer
from charter.training import distributed
from charter.training.packing import PackedRow, response_logprobs

FOLDER = ".served"  # hidden: no content of a stage
LOOKED_AT = 8  # responses
MAX_DIFFERENCE = {torch.float32: 1e-3}  # nats per token; another arithmetic makes some 1e-6
MAX_ROUNDED = 0.1  # in other precisions


class ServedPolicy:
    """Samples in the place of ``decode.sample_tokens``. Of several processes the first one hands the weights over."""

    def __init__(self, server: TokenServer, folder: Path, save: Callable[[Path], None]) -> None:
        """``save`` writes the policy as any Hugging Face model; ``folder`` is the stage's."""
        self._server, self._folder, self._save = server, (folder / FOLDER).absolute(), save

    def __call__(
        self,
        policy: Any,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        stop_ids: Sequence[int],
    ) -> Sampled:
        """See ``decode.sample_tokens``.

        Raises:
            EndpointError: the server can't be reached, or takes no weights.
            TrainingError: what it samples from isn't the policy.
        """
        self._save(self._folder)
        if distributed.is_main():
            self._server.take_weights(self._folder)
        distributed.barrier()
        sampled = self._server.sample(
            prompts, seeds=seeds, max_new_tokens=max_new_tokens, temperature=temperature, stop_ids=stop_ids
        )
        self._look(policy, prompts, sampled, temperature)
        return sampled

    @torch.no_grad()
    def _look(self, policy: Any, prompts: Sequence[Sequence[int]], sampled: Sampled, temperature: float) -> None:
        """Are the log-probabilities those of the policy?"""
        rows = [PackedRow(list(p), [ids]) for p, ids in zip(prompts[:LOOKED_AT], sampled.ids, strict=False)]
        found = response_logprobs(policy, rows, temperature=temperature)
        theirs_RT = torch.zeros_like(found.logprobs_RT)
        for row, values in enumerate(sampled.logprobs[: len(rows)]):
            theirs_RT[row, : len(values)] = torch.tensor(values)
        apart = float((found.logprobs_RT - theirs_RT).abs().sum() / found.mask_RT.sum())
        most = MAX_DIFFERENCE.get(next(policy.parameters()).dtype, MAX_ROUNDED)
        if not apart < most:  # NaN neither
            mode = "" if temperature == 1 else ", at a temperature that isn't 1 with --logprobs-mode processed_logprobs"
            tied = (
                "; on CPUs vLLM keeps the old head of a model whose embeddings are tied: leave policy.rollouts out then"
            )
            raise TrainingError(
                f"{self._server.name}: its log-probabilities are {apart:.3g} nats per token from the policy's (at most {most:g}): "
                f"start it with this run's model in the same precision{mode}{tied if policy.config.tie_word_embeddings else ''}"
            )

    def close(self) -> None:
        """Remove the folder that the server read from."""
        if distributed.is_main():
            shutil.rmtree(self._folder, ignore_errors=True)
