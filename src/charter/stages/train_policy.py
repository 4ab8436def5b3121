"""Reinforcement learning against the reward model, with a KL penalty to the model that it starts from.

reads   prompts; SL-CAI (or the helpful model) as policy and frozen reference; 5-reward/model, a check, a labeler's scores
        (stages/rewards.py)
writes  model/               Hugging Face folder of the trained policy; with LoRA adapter/ too, PEFT's folder
        checkpoints/step-N/  the policy on the way, Hugging Face folders too
        metrics.jsonl        one row per update
        warnings.jsonl, holdout.jsonl   what went wrong on the way (stages/watch.py)
        rollouts.jsonl       {step, prompt, response, reward}: the first rollout of some groups of each step

Bai et al. 2022 (arXiv:2212.08073), section 4.1, by GRPO (Shao et al. 2024, arXiv:2402.03300), RLOO, or PPO as there. In
memory are policy, reference and reward model, and for PPO the value model; the labeler is not: its verdicts are in the reward
model. Only where its scores are chosen as the reward (d-RLAIF, Lee et al. 2023, arXiv:2309.00267) is it there. A response that
ran into the token limit is scored as if it ended there, since the reward model reads rewards at the end of a turn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charter.config import LoraConfig, ModelConfig, PolicyConfig
from charter.errors import DataError
from charter.models.adapters import is_adapted
from charter.models.local import LocalModel
from charter.models.served import TokenServer
from charter.phrases import refusal_rates
from charter.progress import Progress
from charter.records import Prompt
from charter.stages.readings import Reader
from charter.stages.rewards import RewardPart, name_of, rewards_of
from charter.stages.saved import Load, print_notice, referred, save_model, save_trained, step_reporter
from charter.stages.watch import PolicyWatch
from charter.store.jsonl import JsonlAppender, read_rows
from charter.training import trl_engine
from charter.training.distributed import is_main
from charter.training.grpo import Callbacks, EncodedPrompt, Rollout, train_grpo
from charter.training.lora import adapted, own_copy
from charter.training.ppo import train_ppo, value_model_from
from charter.training.reward import reward_model_from_policy
from charter.training.served import ServedPolicy

STAGE = "policy"
STEP = re.compile(r"step-(\d+)")
ROLLOUTS_PER_STEP = 8


def run(
    config: PolicyConfig,
    folder: Path,
    *,
    prompts: Sequence[Prompt],
    start: ModelConfig,
    reward: Sequence[RewardPart],
    load: Load,
    seed: int,
    progress: Progress,
    reader: Reader | None = None,
    trl: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a policy from ``start`` against a reward; return counts and the KL reached.

    Args:
        reward: the sources of reward; they are normalised where the run file names a list.
        reader: gold or judge, who reads rollouts at each checkpoint; None: nobody.
        trl: settings for TRL's trainer, where it trains instead of our loops.

    Raises:
        DataError: no prompt fits into the model's context.
    """
    with load(start) as policy:
        fitting = _fitting(config, policy, prompts)

        def save_step(step: int) -> None:
            save_model(policy.model, policy.tokenizer, folder / "checkpoints" / f"step-{step}")

        if trl is not None:  # it begins anew
            (folder / "rollouts.jsonl").unlink(missing_ok=True)
        watch = PolicyWatch(config.monitor, folder, reader, progress)
        recorder = RolloutRecorder(folder / "rollouts.jsonl", policy, prompts, config.group_size)
        rewards, reward_model = rewards_of(reward, policy, prompts, config)
        told = step_reporter(progress, STAGE, config.steps, "reward_mean")
        settings: dict[str, Any] = {
            "seed": seed,
            "folder": folder,
            "stop_ids": policy.stop_ids,
            "callbacks": Callbacks(told, save_step, recorder.record, watch, recorder.refusals),
        }
        if trl is not None:  # TRL loads the reference itself
            if config.lora is not None:
                policy.model = adapted(policy.model, config.lora, seed)
            trained = trl_engine.train_grpo(policy.model, policy.tokenizer, rewards, fitting, config, trl, **settings)
        else:
            value_model = _value_model(reward_model, policy, config.lora, seed) if config.algorithm == "ppo" else None
            with (
                referred(policy, start, load, config.lora, seed) as reference,
                served(config, policy, folder) as sampler,
            ):
                models = [policy.model, reference, *([] if value_model is None else [value_model])]
                train: Callable[..., dict[str, Any]] = train_ppo if config.algorithm == "ppo" else train_grpo
                trained = train(*models, rewards, fitting, config, **settings, sampler=sampler)
        save_trained(policy.model, policy, folder)
    counts = {"num_prompts": len(fitting), "num_too_long": len(prompts) - len(fitting)}
    return {**trained, **counts, "warnings": watch.warnings, "reward": ", ".join(name_of(part.by) for part in reward)}


def _fitting(config: PolicyConfig, policy: LocalModel, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
    """The prompts that leave room for a response, and for what stands behind it where its reward is read."""
    encoded = [EncodedPrompt(prompt.id, policy.encode_prompt(prompt.messages)) for prompt in prompts]
    longest = config.max_new_tokens + len(policy.closing_ids)
    fitting = [prompt for prompt in encoded if len(prompt.ids) + longest <= policy.context]
    if not fitting:
        raise DataError(
            f"policy: no prompt leaves room for {config.max_new_tokens} tokens: lower policy.max_new_tokens"
        )
    return fitting


@contextmanager
def served(config: PolicyConfig, policy: LocalModel, folder: Path) -> Iterator[ServedPolicy | None]:
    """Who samples in the policy's name, where the run file names a server."""
    if config.rollouts is None:
        yield None
        return
    server = TokenServer(config.rollouts, print_notice)
    sampler = ServedPolicy(server, folder, lambda place: save_model(policy.model, policy.tokenizer, place))
    try:
        yield sampler
    finally:
        sampler.close()


def _value_model(reward_model: Any, policy: LocalModel, lora: LoraConfig | None, seed: int) -> Any:
    """PPO's value model starts as the reward model, or else as the policy with a new head.

    With LoRA it goes on from the reward model's adapter, where that has one, or else gets one over its weights.
    """
    if lora is None:
        return value_model_from(reward_model or reward_model_from_policy(policy.model, policy.tokenizer))
    if reward_model is not None and is_adapted(reward_model):
        return own_copy(reward_model)
    base = reward_model or reward_model_from_policy(policy.model, policy.tokenizer, shared=True)
    return adapted(base, lora, seed)


class RolloutRecorder:
    """Reads rollouts, and writes a sample of each step's; steps that are done again after a crash are not written twice."""

    def __init__(self, path: Path, policy: LocalModel, prompts: Sequence[Prompt], group_size: int) -> None:
        self._path, self._policy, self._group_size = path, policy, group_size
        self._prompts = {prompt.id: prompt for prompt in prompts}
        self._written: Counter[int] = Counter()
        if is_main():
            with JsonlAppender(path):  # repairs a torn last line
                self._written = Counter(row["step"] for _, row in read_rows(path))

    def refusals(self, rollouts: list[Rollout]) -> dict[str, float | None]:
        """Shares of all rollouts of a step that decline in stock words."""
        texts = [self._policy.decode(rollout.response_ids) for rollout in rollouts]
        return refusal_rates(texts, [self._prompts[rollout.prompt_id].harmful for rollout in rollouts])

    def record(self, step: int, rollouts: list[Rollout], rewards: list[float | None]) -> None:
        """Append the first rollout of the first few groups."""
        firsts = range(0, len(rollouts), self._group_size)[:ROLLOUTS_PER_STEP]
        rows = [
            {
                "step": step,
                "prompt": self._prompts[rollouts[i].prompt_id].to_json(),
                "response": self._policy.decode(rollouts[i].response_ids),
                "reward": rewards[i],
            }
            for i in firsts
        ]
        with JsonlAppender(self._path) as file:
            file.append(rows[self._written[step] :])


def spread_checkpoints(folder: Path, count: int) -> list[tuple[int, Path]]:
    """At most ``count`` checkpoints (step, folder), spread evenly, the last one left out: it is the trained policy."""
    steps = sorted((int(m[1]), path) for path in folder.glob("step-*") if (m := STEP.fullmatch(path.name)))[:-1]
    if count == 0 or not steps:
        return []
    if len(steps) <= count:
        return steps
    return [steps[round((i + 1) * len(steps) / (count + 1)) - 1] for i in range(count)]
