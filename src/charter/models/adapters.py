"""Models with LoRA adapters, which are PEFT's layers in a Transformers model: weights in common, and weights added up.

Nothing here imports PEFT; ``training/lora.py`` makes the adapters.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

ADAPTER = "default"  # PEFT's own name for the only one


def sharing_copy(model: Any) -> Any:
    """A second model over the same weights: its modules are its own, its parameters and buffers those of ``model``."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def is_adapter_layer(module: Any) -> bool:
    """Is it a layer with an adapter beside it?"""
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def is_adapted(model: Any) -> bool:
    """Has the model any adapter?"""
    return any(map(is_adapter_layer, model.modules()))


def can_be_added(layer: Any) -> bool:
    """Is the layer a plain matrix, and its adapter a plain product that is switched on?"""
    return (
        type(layer.base_layer) is nn.Linear
        and layer.base_layer.bias is None
        and list(layer.active_adapters) == list(layer.lora_A) == [ADAPTER]
        and not (layer.disable_adapters or layer.merged or layer.lora_variant)
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
    )


def added_up(layer: Any) -> Tensor:
    """The layer's weight together with its adapter."""
    weight: Tensor = layer.base_layer.weight
    return (weight + layer.get_delta_weight(ADAPTER)).to(weight.dtype)


@torch.no_grad()
def merged(model: Any) -> Any:
    """A plain model to be saved, whose weights are those of ``model`` and of its adapters.

    What has no adapter is shared with it; the sums are on the CPU, since a GPU may have no room for a second model.
    """
    plain = sharing_copy(model)
    for name, layer in [found for found in plain.named_modules() if is_adapter_layer(found[1])]:
        base = layer.base_layer
        base.weight = nn.Parameter(added_up(layer).cpu(), requires_grad=False)
        plain.set_submodule(name, base)
    del plain.peft_config
    return plain
