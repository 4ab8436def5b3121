"""A lean forward pass for models of Llama's shape (Llama, Mistral, Qwen3).

There is no Python between the products but what the maths needs: small models spend half of a Transformers forward on that.
For a few tokens at a time projections that read the same input are joined to one matrix; for many that gains nothing, and
its copy and that of its gradient cost a twentieth of a training step.

``fuse`` refuses whatever it doesn't know to the letter (other architectures, rope scaling, biases, sliding windows, quantised
weights); callers then use the model itself. Adapters are added to the weights, but not where a gradient is wanted (theirs
alone is), nor in bfloat16 (small ones would round to nothing).

Axes: B = rows, L = tokens, D = head size, V = vocabulary; H = query heads, K = key-value heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from charter.models.adapters import added_up, can_be_added, is_adapter_layer

MAX_PARAMETERS = 400_000_000  # fusing copies the weights; larger models gain little from it
KNOWN = tuple(
    f"{family}For{use}" for family in ("Llama", "Mistral", "Qwen3") for use in ("CausalLM", "SequenceClassification")
)

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q[B, L, H, D], k[B, L, K, D], v[B, L, K, D]) -> [B, L, H, D]; queries and keys are rotated already."""


@dataclass(frozen=True)
class _Layer:
    attention_norm: Tensor
    qkv: list[Tensor]  # three matrices, or one of all
    head_norms: list[Tensor]  # Qwen3's, of queries and keys: two [D], or one [H + K, D] of both
    out: Tensor
    mlp_norm: Tensor
    gate_up: list[Tensor]
    down: Tensor


class Fused:
    """Fused weights of one model as they are now: build it anew after each training step.

    Made where gradients are on, it passes them on to the model's own weights.

    Args:
        joined: projections that read the same input become one matrix, a copy.
    """

    def __init__(self, model: Any, joined: bool) -> None:
        self.joined = joined
        config, body = model.config, model.model
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size = body.layers[0].self_attn.head_dim
        self.num_layers, self.eps = len(body.layers), config.rms_norm_eps
        self.embedding, self.norm, self.head = body.embed_tokens.weight, body.norm.weight, _head(model).weight
        self._padding = body.embed_tokens.padding_idx
        self.dtype, self.device = self.embedding.dtype, self.embedding.device
        self.layers = [self._fuse_layer(layer) for layer in body.layers]
        self._frequencies = 1.0 / config.rope_parameters["rope_theta"] ** (
            torch.arange(0, self.head_size, 2, device=self.device).float() / self.head_size
        )

    def _fuse_layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = [_weight(attention.q_proj), _weight(attention.k_proj), _weight(attention.v_proj)]
        gate_up = [_weight(mlp.gate_proj), _weight(mlp.up_proj)]
        head_norms = [attention.q_norm.weight, attention.k_norm.weight] if hasattr(attention, "q_norm") else []
        if self.joined:
            counts = (self.num_heads, self.num_kv_heads)
            qkv, gate_up = [torch.cat(qkv)], [torch.cat(gate_up)]
            if head_norms:
                head_norms = [torch.cat([w.expand(n, -1) for w, n in zip(head_norms, counts, strict=True)])]
        return _Layer(
            layer.input_layernorm.weight,
            qkv,
            head_norms,
            _weight(attention.o_proj),
            layer.post_attention_layernorm.weight,
            gate_up,
            _weight(mlp.down_proj),
        )

    def hidden(self, ids_BL: Tensor, positions_BL: Tensor, attend: Attend, read_R: Tensor | None = None) -> Tensor:
        """Normed hidden states [B, L, C]; with ``read_R`` (int64[R], places in L) only those, [B, R, C]."""
        x, rotation = F.embedding(ids_BL, self.embedding, self._padding), self._rotation(positions_BL)
        for index, layer in enumerate(self.layers):
            attended = attend(index, *self._project(x, layer, rotation)).flatten(2)
            if read_R is not None and index == self.num_layers - 1:
                x, attended = x[:, read_R], attended[:, read_R]
            x = self._after_attention(x, attended, layer)
        return self._norm(x, self.norm)

    def fill(self, ids_BL: Tensor, positions_BL: Tensor, attend: Attend) -> None:
        """A pass for the keys and values that ``attend`` sees: nothing is computed after the last layer's."""
        x, rotation = F.embedding(ids_BL, self.embedding, self._padding), self._rotation(positions_BL)
        for index, layer in enumerate(self.layers):
            attended = attend(index, *self._project(x, layer, rotation)).flatten(2)
            if index < self.num_layers - 1:
                x = self._after_attention(x, attended, layer)

    def _after_attention(self, x: Tensor, attended: Tensor, layer: _Layer) -> Tensor:
        x = x + F.linear(attended, layer.out)
        gate, up = _products(self._norm(x, layer.mlp_norm), layer.gate_up, layer.down.shape[1])
        # fresh memory is dear on a CPU
        gated = F.silu(gate) * up if torch.is_grad_enabled() else F.silu(gate, inplace=True).mul_(up)
        return x + F.linear(gated, layer.down)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32[..., V]."""
        return F.linear(hidden, self.head).float()

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.eps)

    def _project(self, x: Tensor, layer: _Layer, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        size_of_qk = (self.num_heads + self.num_kv_heads) * self.head_size
        parts = _products(self._norm(x, layer.attention_norm), layer.qkv, size_of_qk)
        *qk, v = (part.unflatten(-1, (-1, self.head_size)) for part in parts)
        if layer.head_norms:
            qk = [F.rms_norm(y, y.shape[-1:], None, self.eps) * w for y, w in zip(qk, layer.head_norms, strict=True)]
        cos, sin = rotation
        qk = [torch.addcmul(y * cos, torch.roll(y, self.head_size // 2, -1), sin) for y in qk]
        q, k = qk[0].split((self.num_heads, self.num_kv_heads), -2) if self.joined else qk
        return q, k, v

    def _rotation(self, positions_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, L, 1, D] of the angles; the sine of the first half is negated: rotation by a roll."""
        angles = positions_BL[..., None].float() * self._frequencies
        cos, sin = angles.cos(), angles.sin()
        cos, sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
        return cos[:, :, None].to(self.dtype), sin[:, :, None].to(self.dtype)


def _weight(linear: Any) -> Tensor:
    weight: Tensor = added_up(linear) if is_adapter_layer(linear) else linear.weight
    return weight


def _products(x: Tensor, weights: list[Tensor], size: int) -> Sequence[Tensor]:
    """Of the input and each weight; a joined one gives parts of ``size`` (the last as it comes)."""
    found = [F.linear(x, weight) for weight in weights]
    return found if len(found) > 1 else found[0].split(size, -1)


def _is_plain(linear: Any) -> bool:
    if is_adapter_layer(linear):
        return not torch.is_grad_enabled() and can_be_added(linear)
    return type(linear) is torch.nn.Linear and linear.bias is None


def _head(model: Any) -> Any:
    return model.lm_head if hasattr(model, "lm_head") else model.score


def fuse(model: Any, *, joined: bool = False) -> Fused | None:
    """Fused weights of a model whose shape is known to the letter, else None; ``joined``: see ``Fused``."""
    return Fused(model, joined) if _is_known(model) else None


def _is_known(model: Any) -> bool:
    if type(model).__name__ not in KNOWN or model.num_parameters() > MAX_PARAMETERS:
        return False
    config = model.config
    rope = config.rope_parameters or {}
    plain_rope = rope.get("rope_type", "default") == "default" and rope.get("partial_rotary_factor", 1.0) == 1.0
    full = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    linears = [m for layer in model.model.layers for part in (layer.self_attn, layer.mlp) for m in part.children()]
    linears = [m for m in linears if hasattr(m, "in_features") or type(m).__name__.startswith("Lora")]
    return (
        plain_rope
        and full
        and not windowed
        and config.hidden_act == "silu"
        and len(linears) == 7 * len(model.model.layers)
        and all(map(_is_plain, linears))
        and type(_head(model)) is torch.nn.Linear
        and _head(model).bias is None
        and len({(p.dtype, p.device) for p in model.parameters()}) == 1  # adapters beside bfloat16 are float32
        and next(model.parameters()).dtype in (torch.float32, torch.float64, torch.bfloat16)
    )
