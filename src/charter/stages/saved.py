"""Models out of folders for as long as they are needed, and into folders that any Transformers, TRL or vLLM loads."""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from charter.config import LoraConfig, ModelConfig
from charter.errors import ModelError
from charter.models.adapters import is_adapted, merged
from charter.models.endpoint import EndpointModel, is_endpoint
from charter.models.load import load_model
from charter.models.local import LocalModel
from charter.models.protocol import LanguageModel
from charter.progress import Progress
from charter.safe_text import safe_text
from charter.store.disk import store_errors
from charter.training.checkpoint import check_finite
from charter.training.distributed import is_main
from charter.training.lora import adapted, fits, load_adapter, save_adapter
from charter.training.reward import reward_model_from_policy

Load = Callable[[ModelConfig], AbstractContextManager[LocalModel]]
"""Loads a model for the length of a ``with`` block."""


@contextmanager
def loaded(config: ModelConfig) -> Iterator[LocalModel]:
    """A model that leaves memory when the block ends, provided that nobody else holds it."""
    model = load_model(config)
    try:
        yield model
    finally:
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def opened(config: ModelConfig) -> Iterator[LanguageModel]:
    """A model that is only asked, never trained: local, or behind a server."""
    if is_endpoint(config.source):
        yield EndpointModel(config, notice=print_notice)
        return
    with loaded(config) as model:
        yield model


def print_notice(line: str) -> None:
    """Tell the user, beside the progress display, that something outside holds the run up."""
    print(f"charter: {safe_text(line)}", file=sys.stderr)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer; the folder appears whole or not at all.

    Adapters are added to the weights: any Transformers loads the folder.
    Of several processes that hold the same model one writes.

    Raises:
        TrainingError: a weight is NaN or infinite; nothing is written.
        StoreError: the folder can't be written.
    """
    if not is_main():
        return
    check_finite(model.state_dict(), f"{folder} isn't written")
    if is_adapted(model):
        model = merged(model)
    draft = folder.with_name(f".draft-{folder.name}")
    with store_errors(folder):
        shutil.rmtree(draft, ignore_errors=True)
        model.save_pretrained(draft, safe_serialization=True)
        tokenizer.save_pretrained(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)


@contextmanager
def referred(policy: LocalModel, start: ModelConfig, load: Load, lora: LoraConfig | None, seed: int) -> Iterator[Any]:
    """The frozen model that the policy starts from.

    With LoRA it is the model that is there; what trains in its place, ``policy.model``, has the same weights and adapters.
    """
    if lora is None:
        with load(start) as reference:
            yield reference.model.requires_grad_(False)
    else:
        reference_model = policy.model
        policy.model = adapted(reference_model, lora, seed)
        yield reference_model


def save_trained(model: Any, base: LocalModel, folder: Path, tokenizer: Any = None) -> None:
    """Write ``folder``/model and, where adapters were trained on the model ``base``, ``folder``/adapter.

    Args:
        tokenizer: where it isn't that of ``base``.
    """
    if is_adapted(model):
        save_adapter(model, folder / "adapter", base)
    save_model(model, tokenizer or base.tokenizer, folder / "model")


def load_reward_model(folder: Path, like: Any, *, base: LocalModel | None = None) -> Any:
    """A saved reward model, on the device and in the precision of the model ``like``.

    Args:
        base: the reward model is but an adapter and a head over its weights, where it was trained as that.

    Raises:
        ModelError: it isn't there, or isn't a sequence classifier with one output.
    """
    from transformers import AutoModelForSequenceClassification

    adapter = folder.with_name("adapter")
    if base is not None and fits(adapter, base):
        return load_adapter(reward_model_from_policy(base.model, base.tokenizer, shared=True), adapter)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=like.dtype, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: no reward model that can be loaded ({reason}): train it again") from error
    if model.config.num_labels != 1:
        raise ModelError(f"{folder}: a classifier with {model.config.num_labels} outputs: a reward model has one")
    return model.to(like.device).eval()


def step_reporter(progress: Progress, label: str, num_steps: int, figure: str) -> Callable[[dict[str, Any]], None]:
    """A callback for training loops that shows their steps and one of their figures, from wherever they resume."""
    progress.start(label, num_steps, "steps")
    done: int | None = None

    def on_step(row: dict[str, Any]) -> None:
        nonlocal done
        if done is None:
            done = row["step"] - 1
            progress.resume(done)
        progress.advance(row["step"] - done, f"{figure} {row[figure]:.3f}")
        done = row["step"]

    return on_step
