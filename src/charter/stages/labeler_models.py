"""The models of a labeler: each is loaded once, stands behind the ledger, and leaves memory when labelling ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from charter.config import ModelConfig
from charter.labelers.recorded import RecordedModel
from charter.stages.saved import opened
from charter.store.ledger import Ledger


class LabelerModels:
    """Opens models by their words in the run file, until the ``with`` block ends."""

    def __init__(self, ledger: Ledger, tell: Callable[[str], None] | None = None) -> None:
        """``tell``: is told how far a server is within a batch."""
        self._ledger, self._tell, self._stack = ledger, tell, ExitStack()
        self._open: dict[ModelConfig, RecordedModel] = {}

    def __call__(self, config: ModelConfig) -> RecordedModel:
        """The model, loaded at the first call."""
        if config not in self._open:
            self._open[config] = RecordedModel(self._stack.enter_context(opened(config)), self._ledger, self._tell)
        return self._open[config]

    @property
    def num_asked(self) -> int:
        """Questions that went to a model, those answered from the ledger left out."""
        return sum(model.num_asked for model in self._open.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._stack.close()
