"""What all policy optimisation shares: draw prompts, roll out, reward, update, watch the KL, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch

from charter.config import PolicyConfig
from charter.errors import ModelError, TrainingError
from charter.objectives.kl import adaptive_kl_coef
from charter.training import distributed
from charter.training.monitor import text_figures
from charter.training.optimise import Trainer
from charter.training.rollout import (
    EachAlone,
    EncodedPrompt,
    RewardFunction,
    Rollout,
    Sampler,
    StepRewards,
    draw_prompts,
    known_rewards,
    roll_out,
)


class Update(Protocol):
    """All updates on one rollout (a frozen dataclass); returns what they measured, with ``kl_k1`` in nats per response."""

    def __call__(
        self, trainer: Trainer, rollouts: list[Rollout], rewards: Sequence[float | None]
    ) -> dict[str, float]: ...


class Watcher(Protocol):
    """Looks for what goes wrong; asked in the first process only."""

    def after_step(self, rows: Sequence[dict[str, Any]]) -> None:
        """Metrics of all steps so far."""
        ...

    def after_checkpoint(self, step: int) -> None: ...

    def stop_reason(self, step: int) -> str | None:
        """Why training should end after so many steps; None: it should go on."""
        ...


@dataclass
class Callbacks:
    """What a stage does along the way. Steps count from 1.

    ``on_checkpoint`` comes before the state is saved: after a crash it may be called again for the same step, with the
    same policy.
    """

    on_step: Callable[[dict[str, Any]], None] | None = None
    on_checkpoint: Callable[[int], None] | None = None
    on_rollouts: Callable[[int, list[Rollout], list[float | None]], None] | None = None
    watcher: Watcher | None = None
    describe: Callable[[list[Rollout]], dict[str, float | None]] | None = None
    """More figures of a step's rollouts: such as need their text."""


@dataclass(frozen=True)
class PolicyLoop:
    """The loop over steps; ``update`` is the algorithm."""

    policy: Any
    update: Update
    reward_function: RewardFunction | StepRewards
    prompts: Sequence[EncodedPrompt]
    config: PolicyConfig
    seed: int
    stop_ids: Sequence[int]
    callbacks: Callbacks
    sampler: Sampler | None = None

    def run(self, trainer: Trainer) -> dict[str, Any]:
        """Do the steps that are left.

        Returns:
            num_steps, num_tokens, kl (nats per response, k1, of the last step), stopped_by ("steps", "kl_budget", or what the
            watcher says).
        """
        config = self.config
        stopped_by = "steps"
        for step in range(1 + trainer.step // config.updates_per_rollout, config.steps + 1):
            reason = self._stop_reason(trainer, step - 1)
            if reason is not None:
                stopped_by = reason
                trainer.checkpoint()
                break
            self._step(trainer, step)
            if step % config.checkpoint_every == 0 or step == config.steps:
                if self.callbacks.on_checkpoint and distributed.is_main():
                    self.callbacks.on_checkpoint(step)
                if self.callbacks.watcher and distributed.is_main():
                    self.callbacks.watcher.after_checkpoint(step)
                trainer.checkpoint()
        rows = trainer.rows()
        return {
            "num_steps": len(rows),
            "num_tokens": sum(row["num_tokens"] for row in rows),
            "kl": _last_kl(trainer),
            "stopped_by": stopped_by,
        }

    def _stop_reason(self, trainer: Trainer, step: int) -> str | None:
        """Why to stop after ``step`` steps; all processes find the same."""
        if self.config.kl_budget is not None and _last_kl(trainer) > self.config.kl_budget:
            return "kl_budget"
        reason = None
        if self.callbacks.watcher and distributed.is_main():
            reason = self.callbacks.watcher.stop_reason(step)
        if self.config.monitor.on_alarm == "stop" and distributed.total(int(reason is not None)):
            return reason or "alarm"
        return None

    def _step(self, trainer: Trainer, step: int) -> None:
        started = time.monotonic()
        self.policy.eval()
        drawn = draw_prompts(self.prompts, self.config.prompts_per_step, self.seed, step - 1)
        rollouts, rewards, rewarding = self._roll_out(trainer, drawn, step)
        known = torch.tensor(known_rewards(rewards, step))
        update, adapted = self._adapted(trainer)
        measured = {**adapted, **update(trainer, rollouts, rewards)}
        trainer.gather()
        self.policy.eval()
        num_tokens = [len(rollout.response_ids) for rollout in rollouts]
        row = {
            "step": step,
            "num_updates": trainer.step,
            "reward_mean": float(known.mean()),
            "reward_std": float(known.std()) if len(known) > 1 else 0.0,
            "num_without_reward": len(rewards) - len(known),
            **rewarding,
            "response_length": sum(num_tokens) / len(num_tokens),
            "stopped_fraction": sum(rollout.stopped for rollout in rollouts) / len(rollouts),
            "num_tokens": sum(num_tokens) + sum(len(prompt.ids) for prompt in drawn),
            **text_figures([rollout.response_ids for rollout in rollouts]),
            **(self.callbacks.describe(rollouts) if self.callbacks.describe else {}),
            **measured,
            "seconds": time.monotonic() - started,
        }
        trainer.log(row)
        if self.callbacks.on_rollouts and distributed.is_main():
            self.callbacks.on_rollouts(step, rollouts, rewards)
        if self.callbacks.on_step and distributed.is_main():
            self.callbacks.on_step(row)
        if self.callbacks.watcher and distributed.is_main():
            self.callbacks.watcher.after_step(trainer.rows())

    def _roll_out(
        self, trainer: Trainer, drawn: Sequence[EncodedPrompt], step: int
    ) -> tuple[list[Rollout], list[float | None], dict[str, Any]]:
        """Each process samples and scores its share of the prompts; all of them then know all rollouts, and combine the scores."""
        own, place = distributed.share(drawn)
        try:
            rollouts = roll_out(
                self.policy, own, self.config, seed=self.seed, step=step, stop_ids=self.stop_ids, first_place=place,
                sampler=self.sampler,
            )  # fmt: skip
        except ModelError as error:
            raise TrainingError(
                f"step {step}: the policy can't be sampled ({error}); the last good state is in {trainer.checkpoints}; lower "
                f"the learning rate (now {self.config.learning_rate:g}) or raise policy.kl_coef, and run again"
            ) from error
        by = EachAlone(self.reward_function) if callable(self.reward_function) else self.reward_function
        scores = by.score(rollouts)
        if distributed.world().size > 1:
            rows = distributed.gathered([[asdict(r), score] for r, score in zip(rollouts, scores, strict=True)])
            rollouts, scores = [Rollout(**row) for row, _ in rows], [score for _, score in rows]
        return rollouts, *by.combine(scores)

    def _adapted(self, trainer: Trainer) -> tuple[Update, dict[str, float]]:
        """The update with the KL coefficient of this step, which follows from the metrics of the last one.

        So a resumed run goes on with the same coefficient.
        """
        if self.config.kl_target is None:
            return self.update, {}
        rows, coef = trainer.rows(), self.config.kl_coef
        if rows:
            coef = adaptive_kl_coef(rows[-1]["kl_coef"], rows[-1]["kl_k1"], self.config.kl_target)
        config = self.config.model_copy(update={"kl_coef": coef})
        return replace(self.update, config=config), {"kl_coef": coef}  # type: ignore[type-var]


def _last_kl(trainer: Trainer) -> float:
    rows = trainer.rows()
    return float(rows[-1]["kl_k1"]) if rows else 0.0
