"""How a run shows what it does: a live display on a terminal, plain lines elsewhere, or nothing.

Text that comes from data is never read as markup, and can't move the cursor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from charter.safe_text import safe_text

PLAIN_LINE_EVERY_SECONDS = 10.0


class Progress(Protocol):
    """Told by the pipeline and its stages what is going on."""

    def start(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        """A stage, or a part of one, begins; ``total`` units are to do."""
        ...

    def resume(self, num: int) -> None:
        """So many units of what was started last were done before: they say nothing of the rate."""
        ...

    def advance(self, num: int = 1, note: str = "") -> None:
        """So many units of what was started last are done."""
        ...

    def hint(self, text: str) -> None:
        """What is being done while no unit is done yet."""
        ...

    def finish(self, stage: str, note: str = "") -> None:
        """A stage has ended; ``note`` says with what result."""
        ...

    def say(self, line: str) -> None:
        """A line for people."""
        ...


class QuietProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int | None = None, unit: str = "rows") -> None: ...

    def resume(self, num: int) -> None: ...

    def advance(self, num: int = 1, note: str = "") -> None: ...

    def hint(self, text: str) -> None: ...

    def finish(self, stage: str, note: str = "") -> None: ...

    def say(self, line: str) -> None: ...


class PlainProgress:
    """One line when a stage begins and ends, and every ten seconds in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage, self._total, self._unit, self._done = "", None, "rows", 0  # type: str, int | None, str, int
        self._before = 0  # units that were done in an earlier attempt
        self._began = self._last_line = time.monotonic()

    def start(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        self._stage, self._total, self._unit, self._done, self._before = stage, total, unit, 0, 0
        self._began = self._last_line = time.monotonic()
        self.say(f"{stage}: {total} {unit}" if total is not None else stage)

    def resume(self, num: int) -> None:
        self._before += num
        self._done += num

    def advance(self, num: int = 1, note: str = "") -> None:
        self._done += num
        self._tell_now_and_then(note)

    def hint(self, text: str) -> None:
        self._tell_now_and_then(text)

    def _tell_now_and_then(self, note: str) -> None:
        now = time.monotonic()
        if now - self._last_line >= PLAIN_LINE_EVERY_SECONDS:
            self._last_line = now
            self.say(self._state(now) + (f", {note}" if note else ""))

    def _state(self, now: float) -> str:
        num, seconds = self._done - self._before, max(1e-9, now - self._began)
        text = f"{self._stage}: {self._done}" + (f" of {self._total}" if self._total is not None else "")
        text = f"{text} {self._unit}"
        if num <= 0:
            return text
        text = f"{text}, {_rate(num / seconds)}"
        return text if self._total is None else f"{text}, {(self._total - self._done) * seconds / num:.0f} s left"

    def finish(self, stage: str, note: str = "") -> None:
        self.say(f"{stage}: done" + (f", {note}" if note else ""))

    def say(self, line: str) -> None:
        print(safe_text(line), file=self._stream, flush=True)


class LiveProgress:
    """A live display of the stages with rate and time left."""

    def __init__(self, console: Console) -> None:
        self._live = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False, style="dim"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._console = console
        self._task: TaskID | None = None
        self._live.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()

    def start(self, stage: str, total: int | None = None, unit: str = "rows") -> None:
        self._hide()
        self._task = self._live.add_task(stage, total=total, unit=unit, note="")

    def advance(self, num: int = 1, note: str = "") -> None:
        if self._task is not None:
            self._live.update(self._task, advance=num, **({"note": note} if note else {}))  # type: ignore[arg-type]

    def resume(self, num: int) -> None:
        if self._task is not None and num:
            self._live.reset(self._task, completed=num)

    def hint(self, text: str) -> None:
        if self._task is not None:
            self._live.update(self._task, note=text)

    def finish(self, stage: str, note: str = "") -> None:
        self._hide()
        self.say(f"{stage}: done" + (f", {note}" if note else ""))

    def _hide(self) -> None:
        if self._task is not None:
            self._live.remove_task(self._task)
            self._task = None

    def say(self, line: str) -> None:
        self._console.print(safe_text(line), markup=False, highlight=False)


def _rate(per_second: float) -> str:
    """``12.3 per second``; what is slower per minute or per hour, so that it is never 0.0."""
    for number, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if per_second * number >= 0.95 or unit == "hour":
            break
    return f"{per_second * number:.1f} per {unit}" if per_second * number >= 0.05 else "less than 0.1 per hour"


@contextmanager
def open_progress(quiet: bool = False, stream: TextIO | None = None) -> Iterator[Progress]:
    """The display that fits the stream (default: standard error): live, plain or none."""
    stream = stream or sys.stderr
    if quiet:
        yield QuietProgress()
    elif stream.isatty():
        live = LiveProgress(Console(file=stream))
        try:
            yield live
        finally:
            live.close()
    else:
        yield PlainProgress(stream)
