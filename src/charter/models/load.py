"""Load a causal language model from a folder, a Python package or the Hub; never pickles, never remote code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from charter.config import ModelConfig
from charter.errors import ModelError
from charter.models.local import LocalModel
from charter.store.hashing import hash_folder, hash_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def load_model(config: ModelConfig, *, base_dir: Path | None = None) -> LocalModel:
    """Load ``config.source``.

    Raises:
        ModelError: no tokenizer, no config, pickled or missing weights, remote code, NaN; or the Hub can't be reached.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place = _place(config.source, base_dir)
    if place.is_dir():
        _check_folder(place)
    location = str(place) if place.is_dir() else config.source
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            location, dtype=_dtype(config), trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {config.source!r} can't be loaded: {first_line}; name a folder with config, "
                         "tokenizer and safetensors, or a hub id that this machine can reach") from error  # fmt: skip
    _check_finite(model, config.source)
    fingerprint = (
        hash_folder(place) if place.is_dir() else hash_json([config.source, getattr(model.config, "_commit_hash", "")])
    )
    return LocalModel(model.to(_device(config)), tokenizer, config.source, fingerprint)


def _place(source: str, base_dir: Path | None) -> Path:
    if ":" in source and not source.startswith((".", "/")):
        from charter.sources import resolve_python

        value = resolve_python(source)
        return Path(value() if callable(value) else value)
    path = Path(source).expanduser()
    return path if path.is_absolute() or base_dir is None else base_dir / path


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {folder}: no config.json; save the model with save_pretrained first")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"model folder {folder}: no tokenizer; save it beside the model with tokenizer.save_pretrained"
        )
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"model folder {folder}: no safetensors weights (pickled weights are refused); convert them first"
        )
    settings = json.loads((folder / "config.json").read_text())
    if "auto_map" in settings:
        raise ModelError(f"model folder {folder}: config.json asks for remote code (auto_map), which is never run; use a "
                         "model that Transformers knows")  # fmt: skip


def _dtype(config: ModelConfig) -> Any:
    import torch

    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    on_gpu = _device(config) == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if on_gpu else torch.float32


def _device(config: ModelConfig) -> str:
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"model {config.source!r}: device cuda is asked for and there is no GPU; write device: auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device


def _check_finite(model: Any, source: str) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"model {source!r}: weight {name} has NaN or infinite values; use an undamaged checkpoint")
