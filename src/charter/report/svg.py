"""SVG by hand: elements with escaped text, linear scales, round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from charter.report.figures import number
from charter.report.visible import visible


def element(tag: str, content: Markup | str = "", **attributes: object) -> Markup:
    """One element; ``content`` and attribute values are escaped unless they are Markup. ``class_`` stands for class."""
    shown = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _value(value))
        for name, value in attributes.items()
        if value is not None
    )
    inner = content if isinstance(content, Markup) else escape(visible(str(content)))
    return Markup("<{tag}{shown}>{inner}</{tag}>").format(tag=tag, shown=shown, inner=inner)


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else visible(str(value))


def group(elements: Iterable[Markup], **attributes: object) -> Markup:
    """Elements in a ``g``."""
    return element("g", Markup("").join(elements), **attributes)


def picture(key: str, size: tuple[float, float], title: str, description: str, elements: Iterable[Markup]) -> Markup:
    """An SVG with a title and a description for screen readers; ``key`` is unique in the page."""
    head = (element("title", title, id=f"{key}-t"), element("desc", description, id=f"{key}-d"))
    return element(
        "svg",
        Markup("").join((*head, *elements)),
        viewBox=f"0 0 {size[0]:g} {size[1]:g}",
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] of the data to [start, end] of the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers within [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def domain(values: Sequence[float], kind: str) -> tuple[float, float]:
    """Limits that hold all values with some air; shares always begin at 0 and end at 1 at most."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if kind == "rate":
        return 0.0, next(limit for limit in (0.1, 0.2, 0.5, 1.0) if limit >= min(high, 1.0))
    air = (high - low) * 0.12 or max(abs(high), 1.0) * 0.2
    low, high = low - air, high + air
    return (0.0, high) if low + air >= 0 and low + air < 0.5 * high else (low, high)


def label(value: float, kind: str) -> str:
    """An axis label: short."""
    if kind == "rate":
        return f"{value * 100:g} %"
    return f"{value:g}".replace("-", "\u2212") if abs(value) < 1000 else number(value)
