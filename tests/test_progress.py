"""Progress on a terminal and elsewhere; data is shown as it is, never as markup or control."""

from __future__ import annotations

import io

from rich.console import Console

from charter.progress import LiveProgress, PlainProgress, QuietProgress, open_progress


def drive(progress) -> None:
    progress.start("revise [red]x", 4)
    progress.advance(2, note="[bold]half[/bold]")
    progress.finish("revise", "2 rows")
    progress.say("[link=x]\x1b[2Jhello")


def test_plain_lines():
    stream = io.StringIO()
    with open_progress(stream=stream) as progress:
        assert isinstance(progress, PlainProgress)
        drive(progress)
    lines = stream.getvalue().splitlines()
    assert lines == ["revise [red]x: 4 rows", "revise: done, 2 rows", "[link=x]\ufffd[2Jhello"]


def test_live_shows_markup_as_text():
    stream = io.StringIO()
    live = LiveProgress(Console(file=stream, force_terminal=True, width=200))
    drive(live)
    live.close()
    shown = stream.getvalue()
    assert "[link=x]\ufffd[2Jhello" in shown and "\x1b[2J" not in shown


def test_quiet():
    with open_progress(quiet=True, stream=io.StringIO()) as progress:
        assert isinstance(progress, QuietProgress)
        drive(progress)
