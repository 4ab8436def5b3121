"""From the run file's words to a labeler."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from charter.config import (
    AnyLabeler,
    AskingConfig,
    AssistedConfig,
    CheckerConfig,
    CommitteeConfig,
    ConstitutionalConfig,
    DebateConfig,
    DirectConfig,
    HumanConfig,
    ModelConfig,
)
from charter.constitution.load import Constitution
from charter.errors import ConfigError
from charter.labelers.asking import AskSettings, Prepare
from charter.labelers.assisted import Critiques
from charter.labelers.checker import make_checker
from charter.labelers.combine import Soft
from charter.labelers.committee import CommitteeLabeler
from charter.labelers.constitutional import ConstitutionalLabeler
from charter.labelers.debate import Debate, argument_request
from charter.labelers.direct import DirectLabeler, rating_request
from charter.labelers.human import HumanLabeler
from charter.labelers.plain import PlainLabeler
from charter.labelers.protocol import Labeler
from charter.labelers.question import comparison
from charter.models.protocol import LanguageModel
from charter.sources import resolve_python

OpenModel = Callable[[ModelConfig], LanguageModel]
"""Gives the model that a run file names; the same one for the same words."""


def make_labeler(config: AnyLabeler, open_model: OpenModel, constitution: Constitution, seed: int) -> Labeler:
    """The labeler that ``config`` describes.

    Raises:
        ConfigError: a wording or a check that can't be used.
        LabelerError, DataError, StoreError: labels of people that can't be read.
        ModelError: a model that can't be opened.
    """
    match config:
        case CommitteeConfig():
            members = {
                f"{number} {member.kind}": make_labeler(member, open_model, constitution, seed)
                for number, member in enumerate(config.members, 1)
            }
            return CommitteeLabeler(members, config.method)
        case HumanConfig():
            return HumanLabeler.from_source(config.labels)
        case CheckerConfig():
            return make_checker(config)
        case DirectConfig():
            return make_direct(config, open_model, constitution)
    return _asking(config, open_model, constitution, seed)


def check_wordings(config: AnyLabeler) -> None:
    """Find out before any work whether every wording and check that a labeler names can be used.

    Raises:
        ConfigError: one that can't.
    """
    match config:
        case CommitteeConfig():
            for member in config.members:
                check_wordings(member)
        case CheckerConfig():
            make_checker(config)
        case AskingConfig():
            _wording(config)
            if isinstance(config, DebateConfig):
                _callable(config.argument, "label.labeler.argument", argument_request)
        case DirectConfig():
            _callable(config.question, "label.labeler.question", rating_request)


def make_direct(config: DirectConfig, open_model: OpenModel, constitution: Constitution) -> DirectLabeler:
    """A labeler, or a reward, that scores one response at a time."""
    return DirectLabeler(
        open_model(config.model),
        constitution.principles if config.principles == "all" else [None],
        config.options,
        _callable(config.question, "label.labeler.question", rating_request),
        config.chain_of_thought,
        config.max_new_tokens,
        config.sharpness,
        config.min_log_odds,
    )


def min_log_odds(config: AnyLabeler, name: str) -> float:
    """Nats that a verdict needs to count in the label, by the labeler, or the committee's member, of this name."""
    if isinstance(config, CommitteeConfig):
        members = {f"{number} {member.kind}": member for number, member in enumerate(config.members, 1)}
        return min_log_odds(members[name], name) if name in members else 0.0
    return 0.0 if isinstance(config, (HumanConfig, CheckerConfig)) else config.min_log_odds


def _asking(
    config: ConstitutionalConfig | DebateConfig | AssistedConfig,
    open_model: OpenModel,
    constitution: Constitution,
    seed: int,
) -> Labeler:
    model = open_model(config.model)
    settings = AskSettings(
        _wording(config),
        config.chain_of_thought,
        config.clamp,
        config.both_orders,
        config.few_shot,
        config.max_new_tokens,
        config.votes,
        _prepare(config, model, open_model),
    )
    soft = Soft(config.sharpness, config.min_log_odds)
    if config.principles == "none" or config.kind == "plain":
        return PlainLabeler(model, settings, soft)
    return ConstitutionalLabeler(model, constitution, settings, config.principles, seed, soft)


def _prepare(config: AskingConfig, model: LanguageModel, open_model: OpenModel) -> Prepare | None:
    match config:
        case AssistedConfig():
            return Critiques(open_model(config.critic), config.max_new_tokens)
        case DebateConfig():
            debater = open_model(config.debater) if config.debater else model
            wording = _callable(config.argument, "label.labeler.argument", argument_request)
            return Debate(debater, config.turns, config.max_new_tokens, wording)
    return None


def _wording(config: AskingConfig) -> Any:
    wording = _callable(config.question, "label.labeler.question", comparison)
    if isinstance(config, (AssistedConfig, DebateConfig)) and "material" not in inspect.signature(wording).parameters:
        raise ConfigError(
            f"label.labeler.question: {config.question} takes no 'material': a {config.kind} labeler shows some; name another"
        )
    return wording


def _callable(source: str | None, key: str, default: Callable[..., Any]) -> Any:
    if source is None:
        return default
    found = resolve_python(source)
    if not callable(found):
        raise ConfigError(f"{key}: {source} can't be called: name a function")
    return found
