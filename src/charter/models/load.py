"""Load a causal language model from a folder, a Python package or the Hub; never pickles, never remote code."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from charter.config import ModelConfig
from charter.errors import CharterError, ModelError
from charter.models.chat import ChatEncoder
from charter.models.local import LocalModel
from charter.records import Message
from charter.sources import is_local, is_python, public_name, resolve_python
from charter.store.hashing import content_files, hash_file, hash_json
from charter.store.headers import tensor_shapes

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
CONTENT = {
    *TOKENIZER_FILES, "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "merges.txt", "chat_template.jinja", "model.safetensors.index.json",
}  # fmt: skip
WEIGHTS = ".safetensors"
LAYERS = re.compile(r"(n|num)_((hidden|decoder|encoder)_)?layers?|(decoder|encoder)_layers")
SIDES = re.compile(
    r"(hidden|intermediate|vocab|embedding)_size|head_dim|n_(embd|inner|head)|(d|ffn)_(model|dim)|num_\w*heads"
)
LFS_POINTER = b"version https://git-lfs"


def load_model(config: ModelConfig, *, base_dir: Path | None = None) -> LocalModel:
    """Load ``config.source``.

    Args:
        base_dir: what a relative path is relative to; None: the current folder.

    Raises:
        ModelError: no such model; no tokenizer, config or safetensors; damaged, missing or NaN weights; remote code.
        ConfigError: a Python source that can't be imported.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    causal_lm: Any = AutoModelForCausalLM  # its return types are too loose to check
    device = _device(config)
    folder = model_folder(config.source, base_dir)
    check_folder(folder)
    _check_size(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, report = causal_lm.from_pretrained(
            folder,
            dtype=_dtype(config, device),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged folder makes Transformers raise nearly anything
        raise ModelError(
            f"model {config.source!r} can't be loaded from {folder}: {_first_line(error)}; "
            "save it anew with save_pretrained, the tokenizer too"
        ) from error
    _check_weights(model, report, tokenizer, config.source)
    return _tried_out(model.to(device), tokenizer, config.source, folder)


def encoder_at_hand(source: str) -> ChatEncoder | None:
    """A model's tokenizer without its weights, where it needs no download; None: it isn't here, or can't be used."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        here = is_python(source) or Path(source).is_dir()
        return ChatEncoder(
            AutoTokenizer.from_pretrained(
                model_folder(source) if here else source, trust_remote_code=False, local_files_only=True
            )
        )
    except (
        Exception
    ):  # a damaged folder makes Transformers raise nearly anything; whoever loads the model says what it is
        return None


def _tried_out(model: Any, tokenizer: Any, source: str, folder: Path) -> LocalModel:
    """The model, once its settings have stood a first conversation: nobody checks them where they are read.

    Raises:
        ModelError: they haven't.
    """
    try:
        content = fingerprint(folder)
        made = LocalModel(model, tokenizer, public_model_name(source, content), content)
        ids = [*made.encode_prompt((Message("user", "Hello"),)), *made.encode_response("Hello"), *made.stop_ids]
        made.decode(ids)
    except CharterError:
        raise
    except Exception as error:  # as above
        raise ModelError(
            f"model {source!r} can't be used: {_first_line(error)}; look through the configs in {folder}, or save it anew"
        ) from error
    known = model.get_input_embeddings().num_embeddings
    wrong = [i for i in ids if not 0 <= i < known]
    if wrong:
        raise ModelError(f"model {source!r}: a token is {wrong[0]}, and the model knows {known}; save the tokenizer that "
                         "belongs to the model, and look at eos_token_id")  # fmt: skip
    return made


def public_model_name(source: str, content: str) -> str:
    """What artifacts call a model: a folder by its last part and the beginning of its content hash, never by its path."""
    return f"{public_name(source)}@{content[:8]}" if is_local(source) else source


def fingerprint(folder: Path) -> str:
    """SHA-256 over config, safetensors, tokenizer and chat template; other files don't count."""
    files = content_files(folder)
    return hash_json(
        {name: hash_file(path) for name, path in files.items() if name in CONTENT or name.endswith(WEIGHTS)}
    )


def model_folder(source: str, base_dir: Path | None = None) -> Path:
    """Where the model's files are: a folder, what a package provides, or the Hub's cache.

    Raises:
        ModelError: nowhere.
    """
    if source.startswith(("http://", "https://")):
        raise ModelError(
            f"model {source!r} is a server: a model that is trained, or samples, must be a folder or a hub id"
        )
    if is_python(source):
        value = resolve_python(source)
        return Path(value() if callable(value) else value)
    path = (base_dir or Path()) / Path(source).expanduser()
    if path.is_dir():
        return path
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ModelError(f"model {source!r}: there is no folder {path}; give a model folder or a hub id like org/name")
    return _from_hub(source, path)


def _from_hub(source: str, path: Path) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt"]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:  # no network, no such repository, no permission: a client of many layers
        raise ModelError(
            f"model {source!r}: there is no folder {path}, and the Hub doesn't give it: {_first_line(error)}; "
            "check the name and the connection"
        ) from error


def check_folder(folder: Path) -> None:
    """Can this folder hold a model that Charter loads? Looks at its files, loads nothing.

    Raises:
        ModelError: no config, tokenizer or safetensors; damaged or remote code.
    """
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
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_json(folder / name):
            raise ModelError(f"model folder {folder}: {name} asks for remote code (auto_map), which is never run; use a "
                             "model that Transformers knows")  # fmt: skip
    for shard in sorted(_named_shards(folder) | {path.name for path in folder.glob("*.safetensors")}):
        if not (folder / shard).is_file():
            raise ModelError(f"model folder {folder}: {shard} is missing; copy or download it again")
        with (folder / shard).open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(f"model folder {folder}: {shard} is a Git LFS pointer, not weights; run git lfs pull")


def _check_size(folder: Path) -> None:
    """A model is built as large as its config says before anything complains that its weights are of another size.

    Raises:
        ModelError: the config tells of more layers than there are weights, or of a side longer than all of them together.
    """
    try:
        shapes = tensor_shapes(folder).values()
        most = {LAYERS: len(shapes), SIDES: sum(math.prod(shape) for shape in shapes)}
    except Exception as error:  # a damaged header may be anything
        raise ModelError(
            f"model folder {folder}: a safetensors header can't be read ({_first_line(error)}); copy or download it again"
        ) from error
    config = _read_json(folder / "config.json")
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, value in part.items():
            for kind, limit in most.items():
                if kind.fullmatch(key) and isinstance(value, (int, float)) and value > limit:
                    raise ModelError(f"model folder {folder}: config.json has {key} {value:g}, too much for its weights; use "
                                     "the config that belongs to the model")  # fmt: skip


def _named_shards(folder: Path) -> set[str]:
    path = folder / "model.safetensors.index.json"
    index = _read_json(path)
    named = index.get("weight_map", {})
    if not isinstance(named, dict) or not all(isinstance(shard, str) for shard in named.values()):
        raise ModelError(f"{path}: weight_map doesn't name a file for each weight; save the model again")
    shards = set(named.values())
    if any(shard != Path(shard).name or not shard.isprintable() for shard in shards):
        raise ModelError(f"{path}: weight_map names a file outside of the folder; save the model again")
    return shards


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not readable as JSON ({_first_line(error)}); save the model again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: not a JSON object; save the model again")
    return found


def _check_weights(model: Any, report: dict[str, Any], tokenizer: Any, source: str) -> None:
    import torch

    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(f"model {source!r}: weight {missing[0]} and {len(missing) - 1} others are not in the file; "
                         "save the whole model")  # fmt: skip
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"model {source!r}: weight {name} has NaN or infinite values; use an undamaged checkpoint")
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        raise ModelError(f"model {source!r}: the tokenizer has {len(tokenizer)} tokens and the model {known}; "
                         "save the tokenizer that belongs to the model")  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]


def _device(config: ModelConfig) -> str:
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"model {config.source!r}: device cuda is asked for and there is no GPU; write device: auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device


def _dtype(config: ModelConfig, device: str) -> Any:
    import torch

    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
