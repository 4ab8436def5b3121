"""Who reads responses: gold where it is known, a judge, or nobody; a judge leaves memory when the block ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from charter.config import EvaluateConfig, RunConfig
from charter.labelers.recorded import RecordedModel
from charter.stages.readings import Gold, GoldReader, JudgeReader, NoReader, Reader
from charter.stages.saved import opened
from charter.store.ledger import Ledger
from charter.training.distributed import is_main


@contextmanager
def open_reader(config: EvaluateConfig, gold: Gold | None, ledger: Ledger) -> Iterator[Reader]:
    """Of evaluation: gold, else the judge, else nobody."""
    if gold is not None:
        yield GoldReader(gold)
    elif config.judge is not None:
        with opened(config.judge) as model:
            yield JudgeReader(RecordedModel(model, ledger))
    else:
        yield NoReader()


@contextmanager
def holdout(config: RunConfig, gold: Gold | None, ledger: Ledger) -> Iterator[Reader | None]:
    """Who reads rollouts during reinforcement learning: gold, a judge, or nobody."""
    asked, judge = config.policy.monitor.holdout, config.evaluate.judge
    if asked == "gold" and gold is not None and is_main():
        yield GoldReader(gold)
    elif asked == "judge" and judge is not None and is_main():
        with opened(judge) as model:
            yield JudgeReader(RecordedModel(model, ledger))
    else:
        yield None
