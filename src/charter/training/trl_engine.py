"""``engine: trl``: SFT, reward model and GRPO by TRL's trainers, with the files in and out that our own loops have.

Token ids are ours (models/chat.py), so that text never becomes a control token; batches, optimiser and losses are TRL's. What
``trl`` in the run file says goes to TRL's own configuration. The lines of metrics.jsonl carry our names where the meaning is
the same, and nothing else; KL is TRL's k3 alone, in nats per response.

TRL's checkpoints hold pickles: none is written, and a stage that was killed begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from charter.config import PolicyConfig, RewardConfig, SftConfig
from charter.errors import ModelError, TrainingError
from charter.training.batching import Step
from charter.training.monitor import text_figures
from charter.training.policy_loop import Callbacks
from charter.training.reward import EncodedPair
from charter.training.rollout import EachAlone, EncodedPrompt, RewardFunction, Rollout, StepRewards
from charter.training.trl_trainer import Lines, Scratch, arguments, of_trl, shared, train, with_padding


def train_sft(
    model: Any,
    tokenizer: Any,
    examples: Sequence[tuple[list[int], list[int]]],
    config: SftConfig,
    settings: dict[str, Any],
    *,
    seed: int,
    folder: Path,
    on_step: Step | None = None,
) -> dict[str, Any]:
    """As training.sft.train_sft, by TRL's SFTTrainer."""
    Dataset = import_module("datasets").Dataset

    rows = [
        {"input_ids": [*prompt, *response], "completion_mask": [0] * len(prompt) + [1] * len(response)}
        for prompt, response in examples
    ]
    num_steps = config.epochs * -(-len(rows) // config.batch_size)
    own = {
        **shared(model, config, num_steps, seed),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "max_length": None,
        "completion_only_loss": True,
    }
    with Scratch(folder) as scratch:
        trainer = of_trl("SFTTrainer")(
            model, arguments("sft", own, settings, scratch), train_dataset=Dataset.from_list(rows),
            processing_class=with_padding(tokenizer),
        )  # fmt: skip
        return train(trainer, model, folder, Lines(folder, lambda logs: {"loss": logs["loss"]}, on_step))


def train_reward(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[EncodedPair],
    config: RewardConfig,
    settings: dict[str, Any],
    *,
    seed: int,
    folder: Path,
    on_step: Step | None = None,
) -> dict[str, Any]:
    """As training.reward.train_reward, by TRL's RewardTrainer, which knows no soft labels.

    A pair's likelier side counts as chosen, whatever its probability; ties are left out (``num_ties``).

    Raises:
        ModelError: the end of a turn is what fills up a batch: a classifier would then read the reward before it.
        TrainingError: all labels are ties.
    """
    Dataset = import_module("datasets").Dataset

    if pairs and model.config.pad_token_id in (pairs[0].a_ids[-1], None):
        raise ModelError(
            "engine: trl fills batches up with the token that ends a turn, since the tokenizer has no other pad_token: set one"
        )
    rows = []
    for pair in pairs:
        chosen, rejected = (pair.a_ids, pair.b_ids) if pair.p_a > 0.5 else (pair.b_ids, pair.a_ids)
        if pair.p_a != 0.5:
            rows.append({"chosen_ids": [*pair.prompt_ids, *chosen], "rejected_ids": [*pair.prompt_ids, *rejected]})
    if not rows:
        raise TrainingError("all labels are ties, and TRL's reward trainer learns from none of them: leave engine out")
    num_steps = config.epochs * -(-len(rows) // config.batch_size)
    own = {
        **shared(model, config, num_steps, seed),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "max_length": None,
        "center_rewards_coefficient": config.centering_coef or None,
    }
    with Scratch(folder) as scratch:
        trainer = of_trl("RewardTrainer")(
            model, args=arguments("reward", own, settings, scratch), train_dataset=Dataset.from_list(rows),
            processing_class=with_padding(tokenizer),
        )  # fmt: skip
        log = Lines(folder, lambda logs: {"loss": logs["loss"], "accuracy": logs["accuracy"]}, on_step)
        return {**train(trainer, model, folder, log), "num_ties": len(pairs) - len(rows)}


def train_grpo(
    model: Any,
    tokenizer: Any,
    reward_function: RewardFunction | StepRewards,
    prompts: Sequence[EncodedPrompt],
    config: PolicyConfig,
    settings: dict[str, Any],
    *,
    seed: int,
    folder: Path,
    stop_ids: Sequence[int],
    callbacks: Callbacks,
) -> dict[str, Any]:
    """As training.grpo.train_grpo, by TRL's GRPOTrainer; the reference is loaded from where the model came from.

    Adapters are PEFT's layers in the model that is given: TRL takes it for any model, of which a part is frozen.

    Returns:
        kl is None: TRL measures no KL by k1.
    """
    Dataset = import_module("datasets").Dataset

    model.generation_config.eos_token_id = list(stop_ids)  # TRL asks there what ends a response
    copies = -(-config.prompts_per_step // len(prompts))  # TRL leaves a step that isn't full out
    own = {
        **shared(model, config, config.steps, seed),
        "lr_scheduler_type": "constant_with_warmup",
        "max_steps": config.steps * config.updates_per_rollout,
        "logging_steps": config.updates_per_rollout,
        "per_device_train_batch_size": config.prompts_per_step * config.group_size,
        "num_generations": config.group_size,
        "num_iterations": config.updates_per_rollout,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "beta": config.kl_coef,
        "epsilon": config.clip,
        "entropy_coef": config.entropy_coef,
        "scale_rewards": config.scale_advantages,
    }

    def on_step(row: dict[str, Any]) -> None:
        if callbacks.on_step:
            callbacks.on_step(row)
        if callbacks.watcher:
            callbacks.watcher.after_step(log.rows)

    rewarding = _Rewarding(prompts, reward_function, set(stop_ids), config, callbacks)
    log = Lines(
        folder, rewarding.metrics, on_step, config.updates_per_rollout, callbacks.on_checkpoint, config.checkpoint_every
    )  # fmt: skip
    with Scratch(folder) as scratch:
        trainer = _grpo_trainer(
            model, reward_funcs=rewarding, args=arguments("grpo", own, settings, scratch),
            train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(len(prompts))] * copies),
            processing_class=with_padding(tokenizer),
        )  # fmt: skip
        trainer.encoded = [prompt.ids for prompt in prompts]
        found = train(trainer, model, folder, log)
    return {"num_steps": found["num_steps"], "num_tokens": found["num_tokens"], "kl": None, "stopped_by": "steps"}


def _grpo_trainer(*arguments: Any, **settings: Any) -> Any:
    class OurPrompts(of_trl("GRPOTrainer")):  # type: ignore[misc]
        """Prompts are numbers of encoded ones: TRL would let a message spell control tokens."""

        encoded: Sequence[list[int]]

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [list(self.encoded[int(prompt)]) for prompt in prompts], None, {}

    return OurPrompts(*arguments, **settings)


class _Rewarding:
    """TRL's reward function over ours, which also remembers what no metric of TRL says."""

    def __init__(
        self,
        prompts: Sequence[EncodedPrompt],
        reward_function: RewardFunction | StepRewards,
        stop_ids: set[int],
        config: PolicyConfig,
        callbacks: Callbacks,
    ) -> None:
        self.__name__ = "reward"  # TRL asks for it
        self._prompts, self._reward_function, self._stop_ids = prompts, reward_function, stop_ids
        self._config, self._callbacks = config, callbacks
        self._num_missing = 0
        self._rewarding: dict[str, Any] = {}
        self._described: dict[str, float | None] = {}

    def __call__(
        self, prompts: list[str], completion_ids: list[list[int]], trainer_state: Any, **_: Any
    ) -> list[float | None]:
        chosen = [self._prompts[int(prompt)] for prompt in prompts]
        rollouts = [
            Rollout(prompt.id, prompt.ids, list(ids), ids[-1] in self._stop_ids)
            for prompt, ids in zip(chosen, completion_ids, strict=True)
        ]
        by = EachAlone(self._reward_function) if callable(self._reward_function) else self._reward_function
        rewards, self._rewarding = by.combine(by.score(rollouts))
        self._num_missing = sum(reward is None for reward in rewards)
        self._described = {
            **text_figures([rollout.response_ids for rollout in rollouts]),
            **(self._callbacks.describe(rollouts) if self._callbacks.describe else {}),
        }
        if self._num_missing == len(rewards):
            raise TrainingError("no rollout got a reward; look at the reward function's abstentions")
        if self._callbacks.on_rollouts:
            self._callbacks.on_rollouts(
                1 + trainer_state.global_step // self._config.updates_per_rollout, rollouts, rewards
            )
        return rewards

    def metrics(self, logs: dict[str, Any]) -> dict[str, Any]:
        """One step's metrics of TRL under our names."""
        length = logs["completions/mean_length"]
        return {
            "reward_mean": logs["reward"],
            "reward_std": logs["reward_std"],
            "num_without_reward": self._num_missing,
            **self._rewarding,
            "response_length": length,
            "stopped_fraction": 1 - logs["completions/clipped_ratio"],
            **self._described,
            "loss": logs["loss"],
            "kl_k1": None,
            "kl_k3": logs["kl"] * length if "kl" in logs else None,  # TRL's is per token
            "entropy": logs["entropy"],
            "clip_fraction": logs["clip_ratio/region_mean"],
        }
