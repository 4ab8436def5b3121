"""Direct preference optimisation instead of reinforcement learning: the policy learns from the labelled pairs themselves.

reads   4-label/preferences.jsonl   PreferencePair; SL-CAI (or the helpful model) as policy and frozen reference
writes  model/               Hugging Face folder of the trained policy
        checkpoints/step-N/  the policy on the way, Hugging Face folders too
        metrics.jsonl        one row per update: loss, accuracy; nothing is sampled, so no reward and no KL

Rafailov et al. 2023 (arXiv:2305.18290), with soft labels. No reward model is needed to train, but stage 5 trains one on the
same pairs all the same: the audit and best-of-n read it. The pairs that it holds out are held out here too, so that what the
audit reads off them is new to both models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import DpoConfig, ModelConfig
from charter.progress import Progress
from charter.records import PreferencePair
from charter.stages.saved import Load, referred, save_model, save_trained, step_reporter
from charter.stages.train_reward import encode_pairs, split_by_prompt
from charter.training.dpo import train_dpo

STAGE = "dpo"


def run(
    config: DpoConfig,
    folder: Path,
    *,
    preferences: Sequence[PreferencePair],
    holdout_fraction: float,
    start: ModelConfig,
    load: Load,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Train a policy from ``start`` on soft labels; return counts and the loss.

    Args:
        holdout_fraction: that of the reward model.

    Raises:
        DataError: too few prompts to train and hold out.
    """
    with load(start) as policy, referred(policy, start, load, config.lora, seed) as reference:
        encoded, fitting = encode_pairs(policy, preferences, policy.encode_response)
        train, held_out = split_by_prompt(fitting, holdout_fraction, seed)

        def save_step(step: int) -> None:
            save_model(policy.model, policy.tokenizer, folder / "checkpoints" / f"step-{step}")

        num_steps = config.epochs * -(-len(train) // config.batch_size)
        trained = train_dpo(
            policy.model,
            reference,
            [encoded[pair.id] for pair in train],
            config,
            seed=seed,
            folder=folder,
            on_step=step_reporter(progress, f"{STAGE}: training", num_steps, "loss"),
            on_checkpoint=save_step,
        )
        save_trained(policy.model, policy, folder)
    num_too_long = len(preferences) - len(fitting)
    return {"num_train": len(train), "num_held_out": len(held_out), "num_too_long": num_too_long, **trained}
