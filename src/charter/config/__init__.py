"""The run file: one YAML document explains a run completely. Unknown keys are refused.

A *source* string names where a thing comes from:
    path/to/folder, path/to/file      on disk (relative to the run file)
    org/name                          a Hugging Face hub id (models)
    package.module:attribute          Python: a callable or a path that an installed package provides
    http://host:port/v1#model-name    an OpenAI-compatible endpoint (labelers and judges)
"""

from __future__ import annotations

from charter.config.base import (
    Count,
    EndpointConfig,
    ModelConfig,
    Probability,
    PromptsConfig,
    SamplingConfig,
    Section,
    Source,
)
from charter.config.labelers import (
    AnyLabeler,
    AskingConfig,
    AssistedConfig,
    CheckConfig,
    CheckerConfig,
    CommitteeConfig,
    ConstitutionalConfig,
    DebateConfig,
    DirectConfig,
    HumanConfig,
    LabelConfig,
    LabelerConfig,
    MemberConfig,
    SoftLabels,
    labeler_models,
)
from charter.config.run import (
    EvaluateConfig,
    ReviseConfig,
    RunConfig,
    SampleConfig,
    WinsConfig,
)
from charter.config.scale import ScaleConfig
from charter.config.training import (
    DpoConfig,
    LoraConfig,
    MonitorConfig,
    PolicyConfig,
    RewardConfig,
    RewardSource,
    SftConfig,
    Training,
    TrlConfig,
)

__all__ = [
    "AnyLabeler",
    "AskingConfig",
    "AssistedConfig",
    "CheckConfig",
    "CheckerConfig",
    "CommitteeConfig",
    "ConstitutionalConfig",
    "Count",
    "DebateConfig",
    "DirectConfig",
    "DpoConfig",
    "EndpointConfig",
    "EvaluateConfig",
    "HumanConfig",
    "LabelConfig",
    "LabelerConfig",
    "LoraConfig",
    "MemberConfig",
    "ModelConfig",
    "MonitorConfig",
    "PolicyConfig",
    "Probability",
    "PromptsConfig",
    "ReviseConfig",
    "RewardConfig",
    "RewardSource",
    "RunConfig",
    "SampleConfig",
    "SamplingConfig",
    "ScaleConfig",
    "Section",
    "SftConfig",
    "TrlConfig",
    "WinsConfig",
    "SoftLabels",
    "Source",
    "Training",
    "labeler_models",
]
