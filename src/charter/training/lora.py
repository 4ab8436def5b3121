"""LoRA by PEFT: small matrices are trained beside the frozen ones (Hu et al. 2021, arXiv:2106.09685).

One base is in memory. What trains is a second model over the same weights, with adapters of its own: the first one is that
model with its adapter off, so it is the reference, and reads on as fast as before. The adapters are in float32, also where the
base is in bfloat16; a score head is trained whole.
"""

from __future__ import annotations

import copy
import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from charter.config import LoraConfig, RunConfig
from charter.errors import ConfigError, ModelError
from charter.models.adapters import ADAPTER, sharing_copy
from charter.models.local import LocalModel
from charter.store.disk import store_errors
from charter.store.hashing import hash_json
from charter.store.jsonl import read_json, write_json
from charter.training.distributed import is_main
from charter.training.reward import score_head

README = """\
This adapter belongs to the model that its stage started from: `{base}` ({where}; content hash in base.json:
`{content}`). From this folder:

    from peft import PeftModel
    from transformers import AutoModelFor{kind}
    model = PeftModel.from_pretrained(AutoModelFor{kind}.from_pretrained("{base}"{more}), ".")

`../model` is the same with the adapter added in, and needs no base.
"""
BASE = "base.json"  # which model the adapter belongs to
PREFIX = "base_model.model."  # of names in PEFT's files


def check_lora(config: RunConfig) -> None:
    """Before any work: is PEFT there, where the run file wants it?

    Raises:
        ConfigError: it isn't.
    """
    if any(section.lora for section in (config.sft, config.reward, config.policy, config.dpo)):
        _peft()


def _peft() -> Any:
    try:
        return import_module("peft")
    except ImportError as error:
        raise ConfigError(f"lora needs PEFT ({error}): pip install 'charter[lora]', or leave lora out") from error


def adapted(model: Any, lora: LoraConfig, seed: int) -> Any:
    """A second model over the weights of ``model``, which are frozen, with new adapters: at first it computes the same.

    Raises:
        ConfigError: a layer that is named isn't there.
    """
    model.requires_grad_(False)
    own = sharing_copy(model)
    linears = linear_names(own)
    unknown = sorted(set(lora.targets or linears) - linears.keys())
    if unknown or not linears:
        raise ConfigError(
            f"lora.targets: {type(model).__name__} has no linear layer {', '.join(unknown)}: its layers are {', '.join(linears)}"
        )
    targets = sorted(lora.targets or linears)
    config = _peft().LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0, bias="none",
        task_type="SEQ_CLS" if _is_classifier(own) else "CAUSAL_LM",
        fan_in_fan_out=any(linears[name] is not nn.Linear for name in targets),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(hash_json(["lora", seed])[:8], 16))
        return _injected(own, config)


def linear_names(model: Any) -> dict[str, type]:
    """Names of the body's linear layers, without their places, and their kinds; the head is none of them."""
    from transformers.pytorch_utils import Conv1D

    found = {
        place.rpartition(".")[2]: type(module)
        for place, module in model.base_model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    return dict(sorted(found.items()))


def _is_classifier(model: Any) -> bool:
    return model.get_output_embeddings() is None


def _injected(model: Any, config: Any) -> Any:
    """The model with new adapters, which alone train beside a classifier's head, of which it gets a copy."""
    model = _peft().inject_adapter_in_model(config, model, ADAPTER)
    for parameter in adapters_of(model).values():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()  # in bfloat16 small ones would round to nothing
    if _is_classifier(model):
        head = score_head(model)
        head.weight = nn.Parameter(head.weight.detach().clone())
    return model


def adapters_of(model: Any) -> dict[str, nn.Parameter]:
    """The adapters' parameters, by name."""
    return {name: p for name, p in model.named_parameters() if f".{ADAPTER}." in name}


def own_copy(model: Any) -> Any:
    """A model with adapters and head of its own, which train, over the same base as ``model``."""
    own = {id(p) for p in (*adapters_of(model).values(), score_head(model).weight)}
    shared = [t for t in (*model.parameters(), *model.buffers()) if id(t) not in own]
    made = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    for parameter in (*adapters_of(made).values(), score_head(made).weight):
        parameter.requires_grad_(True)
    return made


def save_adapter(model: Any, folder: Path, base: LocalModel) -> None:
    """Write the adapters (and a classifier's head) as PEFT reads them: ``PeftModel.from_pretrained(base, folder)``.

    Of several processes that hold the same model one writes.
    """
    if not is_main():
        return
    tensors = {name.replace(f".{ADAPTER}.", "."): p for name, p in adapters_of(model).items()}
    config = copy.deepcopy(model.peft_config[ADAPTER])
    named = _base_of(model, base, folder)
    config.inference_mode, config.base_model_name_or_path = True, named
    if _is_classifier(model):
        (head,) = (name for name, module in model.named_children() if module is score_head(model))
        config.modules_to_save, tensors[f"{head}.weight"] = [head], score_head(model).weight
    with store_errors(folder):
        draft = folder.with_name(f".draft-{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        config.save_pretrained(draft)
        save_file(
            {PREFIX + name: p.detach().cpu().contiguous() for name, p in tensors.items()},
            draft / "adapter_model.safetensors",
        )
        (draft / "README.md").write_text(_readme(named, base.fingerprint, _is_classifier(model)), encoding="utf-8")
        write_json(draft / BASE, {"source": base.name, "fingerprint": base.fingerprint})
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)


def _base_of(model: Any, base: LocalModel, folder: Path) -> str:
    """The base as it is found from the adapter's folder, where it is of the same run; else what it is called."""
    place = Path(str(getattr(model.config, "name_or_path", "") or "")).absolute()
    run = place.parent.parent
    if place.name == "model" and run in folder.absolute().parents and (run / "run.yaml").is_file():
        return Path(os.path.relpath(place, folder.absolute())).as_posix()
    return base.name


def _readme(base: str, content: str, is_classifier: bool) -> str:
    kind, more = ("SequenceClassification", ", num_labels=1") if is_classifier else ("CausalLM", "")
    where = "a path from this folder" if base.startswith("..") else "a model of its own, put its folder or hub id there"
    return README.format(base=base, content=content, kind=kind, more=more, where=where)


def fits(folder: Path, base: LocalModel) -> bool:
    """Does ``folder`` hold an adapter for this very model?"""
    return (folder / BASE).is_file() and read_json(folder / BASE)["fingerprint"] == base.fingerprint


def load_adapter(classifier: Any, folder: Path) -> Any:
    """A frozen classifier over the weights of ``classifier`` with the adapters and the head that ``folder`` holds.

    Raises:
        ModelError: they are not those of such a model.
    """
    config = _peft().LoraConfig.from_pretrained(str(folder))
    config.modules_to_save, config.inference_mode = None, True
    model = _injected(sharing_copy(classifier), config).requires_grad_(False).eval()
    saved = {name.removeprefix(PREFIX): t for name, t in load_file(folder / "adapter_model.safetensors").items()}
    wanted = {name.replace(f".{ADAPTER}.", "."): p for name, p in adapters_of(model).items()}
    wanted |= {f"{name}.weight": m.weight for name, m in model.named_children() if m is score_head(model)}
    if {name: t.shape for name, t in saved.items()} != {name: p.shape for name, p in wanted.items()}:
        raise ModelError(f"{folder}: the adapter is not one of {type(model).__name__} of this size: train it again")
    for name, parameter in wanted.items():
        parameter.data.copy_(saved[name])
    return model
