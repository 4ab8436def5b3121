"""What can go wrong in policy optimisation while the reward looks well, read off the metrics of the steps.

Each watch compares the mean of the newest ``window`` steps with that of the first ``window``, so that what is normal for a
model needs no setting; drift and KL have limits of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from charter.config import MonitorConfig


@dataclass(frozen=True)
class Alarm:
    """A watch that went off at ``step``; ``before`` is what the run began with (None: the limit is absolute)."""

    name: str
    step: int
    value: float
    before: float | None
    limit: float
    text: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Watch:
    """``limit`` of the metric ``figure`` from its value at the start; ``sign`` 1: going above is bad, -1: below."""

    name: str
    figure: str
    sign: int
    limit: Callable[[MonitorConfig, float], float]
    text: str
    from_start: bool = True


WATCHES = (
    Watch("length", "response_length", 1, lambda c, start: start * c.max_length_ratio, "responses grow longer"),
    Watch("short", "response_length", -1, lambda c, start: start * c.min_length_ratio, "responses shrink"),
    Watch("entropy", "entropy", -1, lambda c, start: start * c.min_entropy_ratio, "the policy's entropy collapses"),
    Watch("repetition", "repetition", 1, lambda c, start: start + c.max_repetition_rise, "responses repeat themselves"),
    Watch("unfinished", "stopped_fraction", -1, lambda c, start: start - c.max_stopped_drop, "responses hit the limit"),
    Watch("refusals", "refusal_rate", 1, lambda c, start: start + c.max_refusal_rise, "more responses decline"),
    Watch("compliance", "refusal_rate", -1, lambda c, start: start - c.max_refusal_drop, "fewer responses decline"),
    Watch("over-refusal", "over_refusal_rate", 1, lambda c, start: start + c.max_over_refusal_rise,
          "more harmless prompts are declined"),
    Watch("drift", "drift_mean", 1, lambda c, _: c.max_drift, "sampling and training disagree on log-probs", False),
    Watch("kl", "kl_k1", 1, lambda c, _: c.max_kl, "the policy is far from its reference", False),
)  # fmt: skip


def alarms(rows: Sequence[dict[str, Any]], config: MonitorConfig) -> list[Alarm]:
    """What goes off at the newest step, from the metrics of all steps so far."""
    found, size = [], config.window
    for watch in WATCHES:
        if len(rows) < (2 * size if watch.from_start else size):
            continue
        start, now = (_mean(part, watch.figure) for part in (rows[:size], rows[-size:]))
        if start is None or now is None:
            continue
        limit = watch.limit(config, start)
        if watch.sign * (now - limit) > 0:
            before = start if watch.from_start else None
            was = "" if before is None else f", {before:.3g} at the start"
            text = f"{watch.text}: {watch.figure} {now:.3g}{was}, limit {limit:.3g} (mean of {size} steps)"
            found.append(Alarm(watch.name, rows[-1]["step"], now, before, limit, text))
    return found


def _mean(rows: Sequence[dict[str, Any]], figure: str) -> float | None:
    values = [row[figure] for row in rows if row.get(figure) is not None]
    return sum(values) / len(values) if len(values) == len(rows) else None


def text_figures(responses: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """``distinct_2``: different pairs of neighbouring tokens among all of the step's; ``repetition``: mean share of pairs of a
    response that stood in it before. None where no response has two tokens.
    """
    pairs = [list(zip(ids, ids[1:], strict=False)) for ids in responses if len(ids) > 1]
    if not pairs:
        return {"distinct_2": None, "repetition": None}
    every = [pair for own in pairs for pair in own]
    repeated = [1 - len(set(own)) / len(own) for own in pairs]
    return {"distinct_2": len(set(every)) / len(every), "repetition": sum(repeated) / len(repeated)}


def falls_while_reward_rises(
    windows: Sequence[tuple[Sequence[float], Sequence[float]]], z: float
) -> tuple[float, float] | None:
    """Has the holdout fallen since some earlier window, while the reward rose? Both by more than ``z`` standard errors.

    Args:
        windows: rewards and holdout scores of the rollouts between two checkpoints, in order.

    Returns:
        The holdout's means in that window and in the newest; None: it hasn't.
    """
    if not windows:
        return None
    rewards, scores = windows[-1]
    for earlier_rewards, earlier_scores in windows[:-1]:
        if _z(earlier_rewards, rewards) > z and _z(earlier_scores, scores) < -z:
            return sum(earlier_scores) / len(earlier_scores), sum(scores) / len(scores)
    return None


def _z(before: Sequence[float], now: Sequence[float]) -> float:
    """The rise in standard errors (Welch); 0 where it can't be known."""
    if min(len(before), len(now)) < 2:
        return 0.0
    (a, va), (b, vb) = _moments(before), _moments(now)
    error = (va / len(before) + vb / len(now)) ** 0.5
    return (b - a) / error if error else 0.0


def _moments(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1)
