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


def plain_at(monkeypatch, *, times: list[float]) -> tuple[PlainProgress, io.StringIO]:
    """Plain lines under a clock that is read once for each call."""
    stream, clock = io.StringIO(), iter(times)
    monkeypatch.setattr("charter.progress.time.monotonic", lambda: next(clock))
    return PlainProgress(stream), stream


def test_rate_and_time_left_are_of_this_attempt(monkeypatch):
    progress, stream = plain_at(monkeypatch, times=[0, 0, 10, 20])
    progress.start("sft", 176, "steps")
    progress.resume(50)
    progress.advance(1)
    progress.advance(1)
    assert stream.getvalue().splitlines() == [
        "sft: 176 steps",
        "sft: 51 of 176 steps, 6.0 per minute, 1250 s left",
        "sft: 52 of 176 steps, 6.0 per minute, 1240 s left",
    ]


def test_what_is_done_is_said_before_a_row_is_done_and_no_rate_is_zero(monkeypatch):
    progress, stream = plain_at(monkeypatch, times=[0, 0, 5, 400, 10**4, 10**8])
    progress.start("revise", 128)
    progress.hint("initial responses")  # too early to be told
    progress.hint("round 1 of 4")
    progress.advance(1)
    progress.hint("round 2 of 4")
    first, second, third = stream.getvalue().splitlines()[1:]
    assert first == "revise: 0 of 128 rows, round 1 of 4"
    assert second == "revise: 1 of 128 rows, 0.4 per hour, 1270000 s left"
    assert third.startswith("revise: 1 of 128 rows, less than 0.1 per hour, ")
    assert "0.0 per" not in stream.getvalue()


def test_live_resumes_and_hints():
    live = LiveProgress(Console(file=io.StringIO(), force_terminal=True, width=200))
    live.start("sft", 176, "steps")
    live.resume(50)
    live.hint("round 1")
    (task,) = live._live.tasks
    assert (task.completed, task.fields["note"], task.speed) == (50, "round 1", None)
    live.close()
