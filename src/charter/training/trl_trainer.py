"""What all of TRL's trainers get from Charter: settings, a folder to litter, a float32 model, and an ear for what they log."""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from charter.config import PolicyConfig, RewardConfig, RunConfig, SftConfig
from charter.errors import ConfigError, TrainingError
from charter.store.jsonl import JsonlAppender
from charter.training.batching import Step
from charter.training.optimise import BETAS, MAX_GRAD_NORM

CONFIGS = {"sft": "SFTConfig", "reward": "RewardConfig", "grpo": "GRPOConfig"}
OURS = {
    "output_dir", "report_to", "save_strategy", "logging_strategy", "logging_steps", "logging_nan_inf_filter", "max_steps",
    "disable_tqdm", "eval_strategy", "remove_unused_columns", "push_to_hub", "trust_remote_code", "model_init_kwargs",
    "resume_from_checkpoint", "load_best_model_at_end",
}  # fmt: skip
"""Settings of TRL that the files in and out depend on."""

Rename = Callable[[dict[str, Any]], dict[str, Any]]


def check_engine(config: RunConfig) -> None:
    """Before any work: is TRL there, and does it know the settings that the run file hands it?

    Raises:
        ConfigError: it isn't, or doesn't.
    """
    if config.engine != "trl":
        return
    for kind, settings in config.trl.model_dump().items():
        known = {field.name for field in fields(of_trl(CONFIGS[kind]))}
        for name in settings:
            if name not in known:
                raise ConfigError(f"trl.{kind}.{name}: TRL's {CONFIGS[kind]} has no such setting: check the spelling")
            if name in OURS:
                raise ConfigError(f"trl.{kind}.{name} is set by Charter, which needs it for its files: leave it out")


def of_trl(name: str) -> Any:
    try:
        datasets = import_module("datasets")
        import trl
        from huggingface_hub import constants
    except ImportError as error:
        raise ConfigError(
            f"engine: trl is not installed ({error}): pip install 'charter[trl]', or leave the key out"
        ) from error
    datasets.disable_progress_bars()
    constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL reports each trainer that is made; a run tells nobody
    return getattr(trl, name)


class Scratch:
    """A folder in which TRL may write what it likes; what an earlier attempt left in the stage goes too."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._scratch = folder, folder / ".trl"

    def __enter__(self) -> Path:
        for name in ("checkpoints", ".trl"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        (self._folder / "metrics.jsonl").unlink(missing_ok=True)
        self._scratch.mkdir(parents=True)
        return self._scratch

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


def shared(model: Any, config: SftConfig | RewardConfig | PolicyConfig, num_steps: int, seed: int) -> dict[str, Any]:
    """What our own loops do too (training/optimise.py), in TRL's words."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return {
        "learning_rate": config.learning_rate,
        "warmup_steps": round(config.warmup_fraction * num_steps),
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": 0.0,
        "max_grad_norm": MAX_GRAD_NORM,
        "gradient_checkpointing": config.gradient_checkpointing,
        "bf16": next(model.parameters()).dtype == torch.bfloat16,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "seed": seed,
        "logging_steps": 1,
    }


def arguments(kind: str, own: dict[str, Any], settings: dict[str, Any], scratch: Path) -> Any:
    """TRL's configuration: what the run file says of it goes before what follows from the rest of the run file."""
    fixed = {
        "output_dir": str(scratch), "report_to": "none", "save_strategy": "no", "logging_strategy": "steps",
        "logging_nan_inf_filter": False, "disable_tqdm": True,
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # names that TRL and Transformers don't agree on yet
            return of_trl(CONFIGS[kind])(**{**own, **settings, **fixed})
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"trl.{kind}: {str(error).strip().splitlines()[0]}") from error


def with_padding(tokenizer: Any) -> Any:
    """A copy that TRL may change."""
    own = deepcopy(tokenizer)
    own.padding_side = "left"
    if own.pad_token is None:
        own.pad_token = own.eos_token
    return own


def train(trainer: Any, model: Any, folder: Path, log: Lines) -> dict[str, Any]:
    """Train in float32 (under autocast where the model is bfloat16) what trains; returns num_steps, num_tokens, the last loss."""
    from transformers import PrinterCallback

    trained = [(parameter, parameter.dtype) for parameter in model.parameters() if parameter.requires_grad]
    for parameter, _ in trained:  # a frozen base stays as it is: other models may stand on it
        parameter.data = parameter.data.float()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(log.callback())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer.train()
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if any(parameter.numel() == 0 for parameter in model.parameters()):
        raise TrainingError(
            "TRL split the weights and gives them back in pieces: use ZeRO-1 or 2, which Charter can save"
        )
    for parameter, dtype in trained:
        parameter.data = parameter.data.to(dtype)
    model.eval()
    rows = log.rows
    tail = rows[-max(1, len(rows) // 10) :]
    return {
        "num_steps": len(rows),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "loss": sum(row["loss"] for row in tail) / max(1, len(tail)),
    }


class Lines:
    """Turns what TRL logs into lines of metrics.jsonl, and says when a checkpoint is due."""

    def __init__(
        self,
        folder: Path,
        rename: Rename,
        on_step: Step | None,
        updates_per_step: int = 1,
        on_checkpoint: Callable[[int], None] | None = None,
        checkpoint_every: int = 1,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._path, self._rename, self._on_step = folder / "metrics.jsonl", rename, on_step
        self._updates, self._on_checkpoint, self._every = updates_per_step, on_checkpoint, checkpoint_every
        self._num_tokens, self._started = 0.0, time.monotonic()

    def line(self, logs: dict[str, Any], num_updates: int, num_steps: int) -> None:
        """Write the line of a step."""
        if "loss" not in logs:  # the summary at the end
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs["grad_norm"]):
            raise TrainingError(
                f"step {num_updates}: loss {logs['loss']} and gradient norm {logs['grad_norm']} are not finite; lower the "
                "learning rate and run again"
            )
        step, now = num_updates // self._updates, time.monotonic()
        row = {
            "step": step,
            **({"num_updates": num_updates} if self._on_checkpoint else {}),
            **self._rename(logs),
            "num_tokens": round(logs["num_tokens"] - self._num_tokens),
            "grad_norm": float(logs["grad_norm"]),
            "seconds": now - self._started,
        }
        self._num_tokens, self._started = logs["num_tokens"], now
        self.rows.append(row)
        with JsonlAppender(self._path) as file:
            file.append([row])
        if self._on_step:
            self._on_step(row)
        if self._on_checkpoint and (step % self._every == 0 or num_updates == num_steps):
            self._on_checkpoint(step)

    def callback(self) -> Any:
        """The same as TRL wants it."""
        from transformers import TrainerCallback

        log = self

        class Listener(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.is_world_process_zero:
                    log.line(kwargs["logs"], state.global_step, state.max_steps)

        return Listener()
