"""From the run file's words to a labeler."""

from __future__ import annotations

from charter.config import LabelerConfig
from charter.constitution.load import Constitution
from charter.labelers.asking import AskSettings
from charter.labelers.constitutional import ConstitutionalLabeler
from charter.labelers.plain import PlainLabeler
from charter.labelers.protocol import Labeler
from charter.labelers.question import Wording
from charter.models.protocol import LanguageModel


def make_labeler(
    config: LabelerConfig, model: LanguageModel, constitution: Constitution, wording: Wording, seed: int
) -> Labeler:
    """The labeler that ``config`` describes, asking ``model`` in the given wording."""
    settings = AskSettings(
        wording,
        config.chain_of_thought,
        config.clamp,
        config.both_orders,
        config.few_shot,
        config.max_new_tokens,
    )
    if config.kind == "plain":
        return PlainLabeler(model, settings)
    return ConstitutionalLabeler(model, constitution, settings, config.principles, seed)
