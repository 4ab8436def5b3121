"""Figures as the page shows them: a value with its 95 % interval and n, or "not known" and why. Never a zero instead."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MINUS = "\u2212"
NAMES = {
    "harmful_rate": "harmful rate",
    "over_refusal_rate": "refuses the harmless",
    "correct_rate": "correct on benign prompts",
    "evasive_rate": "evasive rate",
    "rude_rate": "rude rate",
    "false_rate": "false claims",
    "gold": "gold",
    "gold_harmful": "gold on harmful prompts",
    "gold_benign": "gold on benign prompts",
    "num_words": "words per response",
    "distinct_2": "distinct word pairs",
    "kl_to_sl_cai": "KL to SL-CAI (nats)",
}
POLICY_NAMES = {"initial": "Initial", "sl-cai": "SL-CAI", "rl-cai": "RL-CAI"}
_PERCENT = {
    "distinct_2",
    "accuracy",
    "p_a",
    "position_bias",
    "coverage",
    "label_agreement",
    "gold_agreement",
    "confidence",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; ``value`` is None where it isn't known, and ``reason`` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str = ""
    kind: str = "number"

    @property
    def text(self) -> str:
        """``91 %`` or ``0.52``, or ``not known: why``."""
        return f"not known: {self.reason}" if self.value is None else number(self.value, self.kind)

    @property
    def interval(self) -> str:
        """``88–94 %``; empty where there is none."""
        if self.value is None or self.low is None or self.high is None:
            return ""
        low, high = number(self.low, self.kind), number(self.high, self.kind)
        if self.kind == "rate":
            return f"{low.removesuffix(' %')}–{high}"
        return f"{low} to {high}"


def kind_of(name: str) -> str:
    """``rate`` for shares (shown in percent), ``number`` for the rest."""
    return "rate" if name.endswith("_rate") or name in _PERCENT else "number"


def number(value: float, kind: str = "number") -> str:
    """A number for people: shares in percent, others with two decimals or the digits that matter."""
    if kind == "rate":
        percent = value * 100
        digits = 1 if 0 < percent < 10 or 90 < percent < 100 else 0
        return f"{percent:.{digits}f} %".replace("-", MINUS)
    if kind == "count" or abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    digits = 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def finite(value: Any) -> float | None:
    """The value as a float; None where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def figure(obj: Any, name: str, otherwise: str = "this run hasn't come to it") -> Figure:
    """Read a figure of ``summary.json``; whatever isn't one is not known."""
    kind = kind_of(name)
    if not isinstance(obj, dict):
        return Figure(finite(obj), reason=otherwise, kind=kind)
    value = finite(obj.get("value"))
    n = finite(obj.get("n")) or 0
    reason = str(obj.get("reason") or ("" if value is not None else otherwise))
    return Figure(value, finite(obj.get("low")), finite(obj.get("high")), int(n), reason, kind)


def name_of(figure_name: str) -> str:
    """A figure's name for people."""
    return NAMES.get(figure_name, figure_name.replace("_", " "))


def policy_name(name: str) -> str:
    """A policy's name for people: ``sl-cai-round-2`` is ``SL-CAI, 2 rounds``."""
    if name in POLICY_NAMES:
        return POLICY_NAMES[name]
    for prefix, wording in (
        ("sl-cai-round-", "SL-CAI, {} rounds"),
        ("rl-step-", "RL, step {}"),
        ("rl-cai-step-", "RL, step {}"),
    ):
        number_ = name.removeprefix(prefix)
        if number_ != name and number_.isdigit():
            return wording.format(number_).replace(" 1 rounds", " 1 round")
    return name


def policy_class(name: str) -> str:
    """CSS class that gives a policy its colour."""
    if name == "initial":
        return "initial"
    return "sl" if name.startswith("sl") else "rl" if name.startswith("rl") else "other"


def policy_order(names: Iterable[str]) -> list[str]:
    """Initial, SL-CAI by rounds, RL by steps, then what else there is."""

    def place(name: str) -> tuple[int, int, str]:
        digits = name.rpartition("-")[2]
        step = int(digits) if digits.isdigit() else 10**9
        return ("initial", "sl", "rl", "other").index(policy_class(name)), step, name

    return sorted(names, key=place)


def sample_size(figures: Iterable[Figure]) -> str:
    """``n = 200``, or ``n = 180 to 200`` where figures differ; empty where nothing is known."""
    sizes = sorted({f.n for f in figures if f.value is not None and f.n})
    if not sizes:
        return ""
    return f"n = {sizes[0]:,}" if len(sizes) == 1 else f"n = {sizes[0]:,} to {sizes[-1]:,}"
