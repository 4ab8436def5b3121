"""The charts of the report: dots with intervals, lines with bands, a reliability diagram, bars.

All are drawn on a canvas 300 wide, so that text keeps its size in a column on a phone as in three columns on a desk.
Colours come from the style sheet by class. What isn't known is written where its mark would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from charter.report.figures import MINUS, Figure, number
from charter.report.svg import Scale, domain, element, group, label, picture, ticks

WIDTH = 300.0
ROW = 34.0
DOT_ROW = 39.0


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled figure; ``style`` is a colour class of the style sheet."""

    name: str
    figure: Figure
    style: str = "rl"


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, figure) of one curve; ``marks`` draws dots with intervals instead of a line with a band.

    ``measured``: False for a fitted curve, whose last value is no figure.
    """

    name: str
    points: Sequence[tuple[float, Figure]]
    style: str = "rl"
    marks: bool = False
    measured: bool = True

    def known(self) -> list[tuple[float, Figure]]:
        """The points that have a value, in order of x."""
        return sorted((p for p in self.points if p[1].value is not None), key=lambda p: p[0])


def dot_interval(key: str, title: str, rows: Sequence[Row], reference: tuple[float, str] | None = None) -> Markup:
    """Two lines per figure: name and value, then dot and 95 % interval on a common axis. ``reference``: a value to mark."""
    known = [row.figure for row in rows if row.figure.value is not None]
    if not known:
        return unknown_picture(key, title, rows[0].figure.reason if rows else "nothing was measured")
    kind = known[0].kind
    extent = [v for f in known for v in (f.value, f.low, f.high) if v is not None]
    x = Scale(*domain([*extent, *([reference[0]] if reference else [])], kind), 8, WIDTH - 112)
    top = 16 if reference else 6
    bottom = top + DOT_ROW * len(rows)
    parts = [*_x_axis(x, kind, top, bottom)]
    if reference:
        parts.append(element("line", x1=x(reference[0]), x2=x(reference[0]), y1=top, y2=bottom, class_="reference"))
        parts.append(element("text", reference[1], x=x(reference[0]), y=11, class_="note", text_anchor="middle"))
    for index, row in enumerate(rows):
        parts.append(_dot_row(row, x, top + DOT_ROW * index))
    return picture(key, (WIDTH, bottom + 22), title, _describe(rows), parts)


def _dot_row(row: Row, x: Scale, top: float) -> Markup:
    figure, middle = row.figure, top + 26
    parts = [element("text", row.name, x=13, y=top + 13, class_="name")]  # clear of the axis
    if figure.value is None:
        parts.append(element("text", _short(figure.text, 50), x=13, y=middle + 4, class_="unknown"))
        return group(parts)
    if figure.low is not None and figure.high is not None:
        left, right = x(figure.low), x(figure.high)
        parts.append(element("line", x1=left, x2=right, y1=middle, y2=middle, class_="interval"))
    parts.append(element("circle", cx=x(figure.value), cy=middle, r=5, class_="dot"))
    note = ", ".join(piece for piece in (figure.interval, f"n {figure.n:,}" if figure.n else "") if piece)
    parts.append(element("text", figure.text, x=WIDTH, y=top + 13, class_="value", text_anchor="end"))
    parts.append(element("text", note, x=WIDTH, y=middle + 4, class_="note", text_anchor="end"))
    return group(parts, class_=f"s-{row.style}")


@dataclass(frozen=True, slots=True)
class Fall:
    """A link of the chain: its agreement with the goal, and what it lost of the one before (points)."""

    name: str
    agreement: Figure
    loss: Figure


def waterfall(key: str, title: str, falls: Sequence[Fall]) -> Markup:
    """Bars from 0 to each link's agreement, and the gap to the one before as what it lost."""
    x = Scale(0, 1, 14, WIDTH - 18)  # room for "0 %" and "100 %" under its ends
    height = 50.0
    bottom = height * len(falls) + 4
    parts = [*_x_axis(x, "rate", 4, bottom)]
    before = 1.0
    for index, fall in enumerate(falls):
        top = 4 + height * index
        parts.append(_fall_row(fall, before, x, top))
        before = fall.agreement.value if fall.agreement.value is not None else before
    told = "; ".join(f"{f.name}: agreement {_said(f.agreement)}, lost {_said(f.loss)} points" for f in falls)
    return picture(key, (WIDTH, bottom + 22), title, told, parts)


def _fall_row(fall: Fall, before: float, x: Scale, top: float) -> Markup:
    parts = [element("text", fall.name, x=x(0) + 4, y=top + 14, class_="name")]  # clear of the axis
    now = fall.agreement.value
    if now is None:
        parts.append(element("text", _short(fall.agreement.text, 50), x=x(0), y=top + 33, class_="unknown"))
        return group(parts)
    lost, kept = (x(max(now, before)) - x(min(now, before))), min(now, before)
    parts.append(element("rect", x=x(0), y=top + 21, width=x(kept) - x(0), height=12, class_="bar"))
    parts.append(
        element(
            "rect", x=x(kept), y=top + 21, width=max(0.5, lost), height=12, class_="lost" if now < before else "won"
        )
    )
    size = fall.loss
    words = ""
    if size.value is not None:  # one decimal: a link's name stands before it
        told = " to ".join(_point(v) for v in (size.low, size.high) if v is not None)
        words = f"lost {_point(size.value)}" if size.value >= 0 else f"won {_point(-size.value)} back"
        words += f" ({told})" if told else ""
    parts.append(element("text", fall.agreement.text, x=x(kept) - 5, y=top + 31, class_="inside", text_anchor="end"))
    parts.append(element("text", words, x=x(1), y=top + 14, class_="note", text_anchor="end"))
    return group(parts, class_="s-rl")


def _point(value: float) -> str:
    text = f"{value:.1f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def line_with_band(
    key: str, title: str, series: Sequence[Series], x_name: str, kind: str, height: float = 190
) -> Markup:
    """Curves over ``x_name``; the band, or the bar of a mark, is the 95 % interval (or what the caption says)."""
    known = {one.name: one.known() for one in series}
    points = [point for own in known.values() for point in own]
    if not points:
        reasons = {f.reason for one in series for _, f in one.points} or {"nothing was measured"}
        return unknown_picture(key, title, sorted(reasons)[0])
    limits = domain([v for _, f in points for v in (f.value, f.low, f.high) if v is not None], kind)
    xs = [x for x, _ in points]
    span = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    lined = [one for one in series if not one.marks and len(known[one.name]) > 1]
    named = lined if len(lined) > 1 else []
    x, y = Scale(*span, 44, WIDTH - 52), Scale(*limits, height - 34, 28 if named else 12)
    whole = all(float(value).is_integer() for value in xs)
    parts = [*_y_axis(y, kind, 44, WIDTH - 52), *_x_labels(x, height, x_name, whole)]
    for one in series:
        if known[one.name]:
            parts.append(_curve(one, known[one.name], x, y))
    left = 44.0
    for one in named:  # which line is which
        words = element("text", one.name, x=left, y=12, class_="value")
        parts.append(group([words], class_=f"s-{one.style}"))
        left += 8.0 * len(one.name) + 14
    lines = [_describe_curve(one.name, known[one.name], x_name) for one in series]
    return picture(key, (WIDTH, height), title, " ".join(lines), parts)


def _curve(series: Series, points: list[tuple[float, Figure]], x: Scale, y: Scale) -> Markup:
    place = [(x(at), y(f.value)) for at, f in points if f.value is not None]
    banded = [(x(at), y(f.low), y(f.high)) for at, f in points if f.low is not None and f.high is not None]
    parts: list[Markup] = []
    if series.marks or len(points) == 1:
        parts += [element("line", x1=at, x2=at, y1=low, y2=high, class_="interval") for at, low, high in banded]
        parts += [
            element("circle", cx=at, cy=level, r=4, class_="ring" if series.marks else "dot") for at, level in place
        ]
    else:
        edge = [(at, high) for at, _, high in banded] + [(at, low) for at, low, _ in reversed(banded)]
        if edge:
            parts.append(element("polygon", points=_path(edge), class_="band"))
        parts.append(element("polyline", points=_path(place), class_="line"))
        if len(place) <= 12:
            parts += [element("circle", cx=at, cy=level, r=3.2, class_="dot") for at, level in place]
    last = points[-1][1]
    if series.measured and (not series.marks or series.name == "checkpoints"):
        parts.append(element("text", last.text, x=place[-1][0] + 7, y=place[-1][1] + 4, class_="value"))
    return group(parts, class_=f"s-{series.style}")


def reliability(key: str, bins: Sequence[dict[str, Any]]) -> Markup:
    """Predicted probability against the observed one; a bin's dot grows with its pairs, the diagonal is perfection."""
    title = "Reward model: predicted against observed preference"
    size = 270.0
    x, y = Scale(0, 1, 44, WIDTH - 24), Scale(0, 1, size - 36, 10)
    most = max((bin_["num"] for bin_ in bins), default=1)
    parts = [
        *_y_axis(y, "rate", 44, WIDTH - 24, (0.0, 0.25, 0.5, 0.75, 1.0)),
        *(
            element("text", label(t, "rate"), x=x(t), y=size - 20, class_="tick", text_anchor="middle")
            for t in (0.0, 0.5, 1.0)
        ),
        element("text", "reward model: A is better", x=x(0.5), y=size - 5, class_="note", text_anchor="middle"),
        element("text", "labels: A is better", x=x(0) + 6, y=20, class_="note"),
        element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="reference"),
    ]
    for bin_ in bins:
        at, level = x(bin_["predicted"]), y(bin_["observed"])
        dots = (
            element("line", x1=at, x2=at, y1=y(bin_["predicted"]), y2=level, class_="gap"),
            element("circle", cx=at, cy=level, r=2.5 + 7 * (bin_["num"] / most) ** 0.5, class_="dot soft"),
        )
        parts.append(group(dots, class_="s-rl"))
    told = "; ".join(
        f"{number(b['predicted'], 'rate')} predicted, {number(b['observed'], 'rate')} observed, n = {b['num']}"
        for b in bins
    )
    return picture(key, (WIDTH, size), title, told or "no bins", parts)


Trace = Sequence[tuple[float, float]]


def plane(
    key: str, title: str, rows: Sequence[tuple[str, Figure, Figure, str, bool]], traces: Sequence[Trace] | None = None
) -> Markup:
    """Points in (help, harm): name, x, y (both shares), colour, and whether the point is named in the picture.

    Without ``traces`` one path leads through all points.

    Bai et al. 2022 (arXiv:2212.08073), figure 2, draw harmlessness against helpfulness so; here up is less harm.
    """
    size = 290.0
    x, y = Scale(0, 1, 52, WIDTH - 20), Scale(0, 1, 20, size - 40)
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts = [*_y_axis(y, "rate", 52, WIDTH - 20, quarters)]
    parts += [
        element("text", label(t, "rate"), x=x(t), y=size - 23, class_="tick", text_anchor="middle") for t in quarters
    ]
    parts.append(
        element("text", "correct on benign prompts →", x=WIDTH - 20, y=size - 6, class_="note", text_anchor="end")
    )
    parts.append(element("text", "↑ less harm (harmful rate)", x=4, y=4, class_="note"))
    known = [
        (name, h, v, style, named) for name, h, v, style, named in rows if h.value is not None and v.value is not None
    ]
    places = [(x(h.value or 0.0), y(v.value or 0.0)) for _, h, v, _, _ in known]
    paths = [places] if traces is None else [[(x(h), y(v)) for h, v in trace] for trace in traces]
    parts += [element("polyline", points=_path(path), class_="trace") for path in paths]
    named_places = [(name, place) for (name, _, _, _, named), place in zip(known, places, strict=True) if named]
    spots = _name_places(named_places, y(0) + 15, y(1) - 5)  # between the axes, and on neither
    for (name, h, v, style, named), (at, level) in zip(known, places, strict=True):
        marks = [element("circle", cx=at, cy=level, r=6 if named else 3.5, class_="dot")]
        if named:
            left, beside, at_y = spots[name]
            marks = [*_cross(h, v, x, y, (at, level)), *marks]
            anchor = "end" if left else None
            marks.append(element("text", name, x=beside, y=at_y, class_="value", text_anchor=anchor))
        parts.append(group(marks, class_=f"s-{style}"))
    told = "; ".join(f"{name}: harmful rate {_said(v)}, correct {_said(h)}" for name, h, v, _, _ in known)
    return picture(key, (WIDTH, size), title, told, parts)


def _name_places(
    points: Sequence[tuple[str, tuple[float, float]]], highest: float, lowest: float
) -> dict[str, tuple[bool, float, float]]:
    """Whether each name ends at its place, and the place: beside its point, lower or higher where another name would be under it.

    No line of text is above ``highest`` or below ``lowest``.
    """
    found: dict[str, tuple[bool, float, float]] = {}
    taken: list[tuple[float, float, float]] = []
    for name, (at, level) in sorted(points, key=lambda point: point[1][1]):
        left = at > WIDTH * 0.72
        beside, width = at + (-11 if left else 11), 7.2 * len(name)
        start, end = (beside - width, beside) if left else (beside, beside + width)
        line = min(max(level - 8, highest), lowest)
        below, above = range(1 + int(lowest - line)), range(1 + int(line - highest))
        free = [
            place
            for place in (*(line + step for step in below), *(line - step for step in above))
            if not any(abs(place - other) < 14 and start < far and near < end for near, far, other in taken)
        ]
        line = free[0] if free else line
        taken.append((start, end, line))
        found[name] = (left, beside, line)
    return found


def _cross(h: Figure, v: Figure, x: Scale, y: Scale, place: tuple[float, float]) -> Iterator[Markup]:
    if h.low is not None and h.high is not None:
        yield element("line", x1=x(h.low), x2=x(h.high), y1=place[1], y2=place[1], class_="interval thin")
    if v.low is not None and v.high is not None:
        yield element("line", x1=place[0], x2=place[0], y1=y(v.low), y2=y(v.high), class_="interval thin")


def bars(key: str, title: str, counts: Sequence[tuple[str, int]], style: str = "other") -> Markup:
    """A bar per named count, the longest first; the count stands at its end."""
    most = max((count for _, count in counts), default=1)
    x = Scale(0, most, 8, WIDTH - 60)
    parts = []
    for index, (name, count) in enumerate(counts):
        top = 4 + ROW * index
        marks = (
            element("text", name, x=8, y=top + 11, class_="name"),
            element("rect", x=8, y=top + 16, width=max(1.0, x(count) - 8), height=8, rx=2, class_="bar"),
            element("text", f"{count:,}", x=x(count) + 6, y=top + 24, class_="value"),
        )
        parts.append(group(marks, class_=f"s-{style}"))
    told = "; ".join(f"{name}: {count}" for name, count in counts)
    return picture(key, (WIDTH, 8 + ROW * max(1, len(counts))), title, told or "none", parts)


def unknown_picture(key: str, title: str, reason: str) -> Markup:
    """In place of a chart: not known, and why."""
    words, lines = f"not known: {reason}".split(), [""]
    for word in words:
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1]) + len(word) < 44 else [*lines, word]
    shown = [element("text", line, x=8, y=28 + 17 * i, class_="unknown") for i, line in enumerate(lines[:6])]
    return picture(key, (WIDTH, 34 + 17 * min(6, len(lines))), title, f"not known: {reason}", shown)


def _x_axis(x: Scale, kind: str, top: float, bottom: float) -> Iterator[Markup]:
    for tick in ticks(x.low, x.high):
        yield element("line", x1=x(tick), x2=x(tick), y1=top, y2=bottom, class_="zero" if tick == 0 else "grid")
        yield element("text", label(tick, kind), x=x(tick), y=bottom + 14, class_="tick", text_anchor="middle")


def _y_axis(y: Scale, kind: str, left: float, right: float, at: Sequence[float] | None = None) -> Iterator[Markup]:
    for tick in at or ticks(y.low, y.high):
        yield element("line", x1=left, x2=right, y1=y(tick), y2=y(tick), class_="zero" if tick == 0 else "grid")
        yield element("text", label(tick, kind), x=left - 6, y=y(tick) + 4, class_="tick", text_anchor="end")


def _x_labels(x: Scale, height: float, name: str, whole: bool) -> Iterator[Markup]:
    for tick in ticks(x.low, x.high, 5):
        if not whole or tick.is_integer():
            yield element("text", label(tick, "number"), x=x(tick), y=height - 18, class_="tick", text_anchor="middle")
    yield element("text", name, x=(x.start + x.end) / 2, y=height - 3, class_="note", text_anchor="middle")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _describe(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name}: {_said(row.figure)}" for row in rows) + "."


def _said(figure: Figure) -> str:
    interval = f", 95 % interval {figure.interval}" if figure.interval else ""
    return f"{figure.text}{interval}" + (f", n = {figure.n}" if figure.value is not None and figure.n else "")


def _describe_curve(name: str, points: list[tuple[float, Figure]], x_name: str) -> str:
    if not points:
        return f"{name}: not known."
    (first, begin), (last, end) = points[0], points[-1]
    return f"{name}: {_said(begin)} at {x_name} {first:g}; {_said(end)} at {x_name} {last:g}."


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
