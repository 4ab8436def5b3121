"""What is in memory in each stage, and what it costs: from the run file and the headers of model files; no model is loaded.

    weights       of a model, in the precision that it is loaded in
    adapters      LoRA's, in float32, with a classifier's head; the weights below them may be another model's
    gradients     of what trains
    optimiser     AdamW's two moments in float32, and the float32 copy through which bfloat16 weights are trained
    cache         keys and values of the responses that are sampled together: an estimate
    activations   of one forward pass with its gradients: an estimate

The labeler is in memory while it labels and never in reinforcement learning, but where its scores are the reward (d-RLAIF).
Bytes that can't be known are None, with a reason. The programs themselves and torch's own buffers are not counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.config import DirectConfig, LoraConfig, ModelConfig, RunConfig, Training, labeler_models
from charter.errors import CharterError
from charter.sources import is_python, public_name, resolve_python
from charter.store.headers import tensor_shapes

PROMPT_TOKENS = 512
"""Tokens of a prompt that the caches are estimated for, where the caller doesn't know better."""
LOGITS = 2**26
"""The most logits that are computed at a time in training (training/packing.py)."""
FLOAT32, BFLOAT16 = 4, 2


@dataclass(frozen=True)
class ModelShape:
    """What a model's size depends on."""

    name: str
    num_parameters: int
    num_head: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    context: int
    vocabulary: int
    linears: tuple[tuple[str, int], ...] = ()
    """Name, and inputs + outputs, of each linear layer in the body."""

    @property
    def num_body(self) -> int:
        """Weights without the output head; where it is tied to the embedding, all."""
        return self.num_parameters - self.num_head

    def num_adapters(self, lora: LoraConfig) -> int:
        """Weights that LoRA adds."""
        return lora.rank * sum(size for name, size in self.linears if lora.targets is None or name in lora.targets)


@dataclass(frozen=True)
class Part:
    """One thing in memory. ``num_bytes`` None: not known, and ``note`` says why."""

    model: str
    what: str
    num_bytes: int | None
    note: str = ""


@dataclass(frozen=True)
class StageMemory:
    """All that is in memory at once in a stage."""

    stage: str
    parts: tuple[Part, ...]

    @property
    def num_bytes(self) -> int | None:
        """Of all parts; None where one isn't known."""
        known = [part.num_bytes for part in self.parts if part.num_bytes is not None]
        return sum(known) if len(known) == len(self.parts) else None

    def to_json(self) -> dict[str, Any]:
        """``{stage, num_bytes, parts: [{model, what, num_bytes, note}]}``"""
        parts = [{"model": p.model, "what": p.what, "num_bytes": p.num_bytes, "note": p.note} for p in self.parts]
        return {"stage": self.stage, "num_bytes": self.num_bytes, "parts": parts}


def memory_plan(
    config: RunConfig, *, on_gpu: bool | None = None, prompt_tokens: int = PROMPT_TOKENS
) -> list[StageMemory]:
    """What each stage of a run holds in memory, in the order of the pipeline; stages that the run leaves out are left out.

    Args:
        on_gpu: does ``device: auto`` mean a GPU here (``dtype: auto`` is then bfloat16)? None: is there one of NVIDIA's?
        prompt_tokens: tokens of the longest prompt, for the caches.
    """
    gpu = Path("/dev/nvidia0").exists() if on_gpu is None else on_gpu
    return _Plan(config, gpu, prompt_tokens).stages()


class _Plan:
    """The stages of one run file."""

    def __init__(self, config: RunConfig, on_gpu: bool, prompt_tokens: int) -> None:
        self.config, self.on_gpu, self.prompt_tokens = config, on_gpu, prompt_tokens
        self.shape = shape_of(config.model)

    def stages(self) -> list[StageMemory]:
        config, found = self.config, []
        if "sl" in config.phases:
            found.append(self._stage("1-revise", self._sampling("helpful model", config.revise.sampling.batch_size,
                                                               config.revise.sampling.max_new_tokens)))  # fmt: skip
            found.append(self._stage("2-sft", self._training("SL-CAI", config.sft)))
        if "rl" in config.phases:
            if config.policy.needs_reward_model:
                sampling = config.sample.sampling
                found.append(
                    self._stage("3-sample", self._sampling("SL-CAI", sampling.batch_size, sampling.max_new_tokens))
                )
                found.append(self._stage("4-label", self._labelers(labeler_models(config.label.labeler))))
                found.append(self._stage("5-reward", self._training("reward model", config.reward, classifier=True)))
            found.append(self._stage("6-policy", self._policy()))
        sampling = config.evaluate.sampling
        found.append(self._stage("7-evaluate", [
            *self._sampling("policy", sampling.batch_size, sampling.max_new_tokens), self._weights("SL-CAI"),
        ]))  # fmt: skip
        return found

    def _stage(self, name: str, parts: Sequence[Part]) -> StageMemory:
        return StageMemory(name, tuple(parts))

    def _policy(self) -> list[Part]:
        """Policy, reference, reward models, PPO's value model; a labeler whose scores are a reward, a judge that watches."""
        config, judge = self.config.policy, self.config.evaluate.judge
        if config.algorithm == "dpo":
            section, over = self.config.dpo, self._over(self.config.dpo, "policy")
            return [*self._training("policy", section), self._weights("reference", over=over)]
        over = self._over(config, "policy")
        parts = self._training("policy", config)
        # TRL loads a reference of its own
        parts.append(self._weights("reference", over=over if self.config.engine == "charter" else None))
        shared = over if self._reward_is_adapter() else None
        if config.needs_reward_model:
            parts += self._reward_model(shared) * self.config.reward.ensemble
        scorers = [source.by.model for source in config.reward_sources if isinstance(source.by, DirectConfig)]
        watching = [judge] if judge is not None and config.monitor.holdout == "judge" else []
        parts += self._labelers(scorers) + self._labelers(watching, "judge")
        if config.algorithm == "ppo":
            if shared is not None and config.needs_reward_model:  # it goes on from the reward model's adapter
                config = config.model_copy(update={"lora": self.config.reward.lora})
            elif config.needs_reward_model:
                over = self._over(config, "reward model")
            parts += self._training("value model", config, classifier=True, over=over)
        return [*parts, self._cache("policy", config.prompts_per_step * config.group_size, config.max_new_tokens)]

    @staticmethod
    def _over(section: Training, model: str) -> str | None:
        """Whose weights are those of a model that needn't have its own."""
        return model if section.lora is not None else None

    def _reward_is_adapter(self) -> bool:
        """Is the reward model an adapter over the weights that the policy starts from?"""
        config = self.config
        same = "sl" not in config.phases or config.reward.initialise_from == config.policy.initialise_from
        return same and config.reward.lora is not None and config.policy.lora is not None

    def _reward_model(self, over: str | None) -> list[Part]:
        weights, lora = self._weights("reward model", classifier=True, over=over), self.config.reward.lora
        if over is None or lora is None or isinstance(self.shape, str):
            return [weights]
        return [weights, Part("reward model", "adapters", self._num_trained(self.shape, lora, True) * FLOAT32)]

    @staticmethod
    def _num_trained(shape: ModelShape, lora: LoraConfig, classifier: bool) -> int:
        return shape.num_adapters(lora) + (shape.hidden_size if classifier else 0)

    def _labelers(self, models: Sequence[ModelConfig], called: str = "labeler") -> list[Part]:
        """Models that are asked; a server's memory is its own."""
        parts = []
        for model in dict.fromkeys(models):
            name = f"{called} {public_name(model.source)}"
            if model.source.startswith(("http://", "https://")):
                parts.append(Part(name, "weights", 0, "on its server"))
                continue
            shape = shape_of(model)
            if isinstance(shape, str):
                parts.append(Part(name, "weights", None, shape))
            else:
                parts.append(Part(name, "weights", shape.num_parameters * self._width(model)))
        return parts

    def _sampling(self, name: str, rows: int, new_tokens: int) -> list[Part]:
        return [self._weights(name), self._cache(name, rows, new_tokens)]

    def _weights(self, name: str, *, classifier: bool = False, over: str | None = None) -> Part:
        if over is not None:
            return Part(name, "weights", 0, f"those of the {over}")
        if isinstance(self.shape, str):
            return Part(name, "weights", None, self.shape)
        return Part(name, "weights", self._num_weights(self.shape, classifier) * self._width(self.config.model))

    @staticmethod
    def _num_weights(shape: ModelShape, classifier: bool) -> int:
        return shape.num_body + shape.hidden_size if classifier else shape.num_parameters

    def _training(
        self, name: str, section: Training, *, classifier: bool = False, over: str | None = None
    ) -> list[Part]:
        """Weights, gradients, optimiser and activations of a model that trains; with ``over``, on another's weights."""
        shape, width = self.shape, self._width(self.config.model)
        if isinstance(shape, str):
            return [Part(name, what, None, shape) for what in ("weights", "gradients", "optimiser", "activations")]
        parts = [self._weights(name, classifier=classifier, over=over)]
        num_trained, copies = self._num_weights(shape, classifier), 2 if width == FLOAT32 else 3
        if section.lora is not None:
            num_trained, copies = self._num_trained(shape, section.lora, classifier), 2
            parts.append(Part(name, "adapters", num_trained * FLOAT32))
        return [
            *parts,
            Part(name, "gradients", num_trained * FLOAT32),
            Part(name, "optimiser", num_trained * copies * FLOAT32),
            Part(name, "activations", self._activations(shape, section, classifier), "an estimate, at most"),
        ]

    def _activations(self, shape: ModelShape, section: Training, classifier: bool) -> int:
        """What a forward pass of the most tokens keeps for its backward pass; the logits thrice, in float32."""
        tokens = section.tokens_per_forward
        head = 0 if classifier else 3 * FLOAT32 * min(LOGITS, tokens * shape.vocabulary)
        width, attended = self._width(self.config.model), shape.num_heads * shape.head_size
        layer = 4 * shape.hidden_size + 8 * attended + 4 * shape.intermediate_size
        kept = layer * shape.num_layers
        if section.gradient_checkpointing:
            kept = layer + shape.hidden_size * shape.num_layers
        return tokens * kept * width + head

    def _cache(self, name: str, rows: int, new_tokens: int) -> Part:
        shape = self.shape
        if isinstance(shape, str):
            return Part(name, "cache", None, shape)
        tokens = min(self.prompt_tokens + new_tokens, shape.context)
        per_token = 2 * shape.num_layers * shape.num_kv_heads * shape.head_size * self._width(self.config.model)
        return Part(
            name, "cache", rows * tokens * per_token, f"{rows} responses, prompts of {self.prompt_tokens} tokens"
        )

    def _width(self, model: ModelConfig) -> int:
        if model.dtype != "auto":
            return FLOAT32 if model.dtype == "float32" else BFLOAT16
        return BFLOAT16 if self.on_gpu and model.device != "cpu" else FLOAT32


def shape_of(model: ModelConfig) -> ModelShape | str:
    """The shape of a model that is on this machine, or the reason why it can't be known before it is loaded."""
    try:
        folder = _folder(model.source)
        if folder is None:
            return f"{public_name(model.source)} is not on this machine yet"
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = tensor_shapes(folder)
        return _shape(model.source, config.get("text_config") or config, tensors)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        CharterError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"{public_name(model.source)} can't be read ({reason})"


def _folder(source: str) -> Path | None:
    """Where a model's files are, without downloading anything."""
    if is_python(source):
        value = resolve_python(source)
        return Path(value() if callable(value) else value)
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _shape(name: str, config: dict[str, Any], tensors: dict[str, list[int]]) -> ModelShape:
    heads = [shape for key, shape in tensors.items() if key.endswith(("lm_head.weight", "embed_out.weight"))]
    num_layers = int(config.get("num_hidden_layers", config.get("n_layer", 0)))
    hidden = int(config.get("hidden_size", config.get("n_embd", 0)))
    num_heads = int(config.get("num_attention_heads", config.get("n_head", 0)))
    if not (num_layers and hidden and num_heads):
        raise ValueError("its config.json has no layers, heads or hidden size that are known")
    return ModelShape(
        name,
        sum(math.prod(shape) for shape in tensors.values()),
        sum(math.prod(shape) for shape in heads),
        hidden,
        int(config.get("intermediate_size") or 4 * hidden),
        num_layers,
        num_heads,
        int(config.get("num_key_value_heads") or num_heads),
        int(config.get("head_dim") or hidden // num_heads),
        int(config.get("max_position_embeddings", config.get("n_positions", 0)) or 1_000_000),
        int(config["vocab_size"]),
        tuple(
            (key.split(".")[-2], sum(shape))
            for key, shape in tensors.items()
            if len(shape) == 2 and key.endswith(".weight") and any(part.isdigit() for part in key.split("."))
        ),
    )
