"""How fast calls go out to a server that refuses some: the rate at which it refuses one call in 33.

Nothing is paced before the first refusal. From then on, the logarithm of the rate goes up by ``GAIN * REFUSED / n`` with each
answer and down by ``GAIN * (1 - REFUSED) / n`` with each refusal, n being the calls in flight. It is at rest where the share
of refusals is REFUSED, however large the limit and however slow the server: a limit R is used up at 1.03 R. Refusals that
have nothing to do with the rate, and are rarer than that, slow nothing down. Robbins and Monro (1951).

Two things are far from rest, and steps of that size would take minutes. Where nothing was refused for so long that the rate
must be far too low (it was guessed while the machine was busy, or the limit was raised), the steps up grow, at most to about a
doubling in two round trips. And where nothing was answered for a while (a quota of ten seconds or a minute is used up), the
first answer brings the rate back to the mean of the time since the last such pause, which is what the quota allows.
"""

from __future__ import annotations

import math
from collections import deque

REFUSED = 0.03  # share of calls that are refused in the long run
GAIN = 0.5  # of a round trip; from 1 on it would swing
SMOOTH = 8  # calls in flight, at least: one refusal takes at most 6 % off
WINDOW = 10.0  # seconds over which answers are counted for the first rate
SLOWEST, FASTEST = 0.5, 1e5  # calls per second
CREDIT = 0.1  # seconds of the past for which calls may be made up, as the clock of a busy loop is late
QUIET = ((2 / REFUSED, 5.0), (5.0, 10.0))  # (answers, seconds) without a refusal from which on steps up grow
STEEPEST = 0.35  # the largest step up is this over the calls in flight
PAUSE_CALLS, PAUSE_SECONDS = 10, 1.0  # refusals in a row, and time without an answer, that make a pause


class Pace:
    """Calls per second, learned from answers and refusals. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._began: float | None = None  # the first answer or refusal: connecting takes long on a busy machine
        self._since = 0.0  # calls that went out before it say nothing of the rate
        self._next = 0.0
        self._answers: deque[float] = deque()
        self._answered_at = self._refused_at = 0.0
        self._answers_in_row = self._refusals_in_row = 0
        self._paused_at, self._answers_since = 0.0, 0  # the last pause's end, and the answers after it

    def wait(self, now: float) -> float:
        """Seconds until the next call may go out."""
        return max(0.0, self._next - now)

    def sent(self, now: float) -> None:
        """A call goes out."""
        if self.rate is not None:
            self._next = max(self._next, now - CREDIT) + 1 / self.rate

    def answered(self, now: float, in_flight: int) -> None:
        """A call was answered."""
        self._begin(now)
        self._answers_since += 1
        if self.rate is None:
            self._answers.append(now)
            while self._answers[0] < now - WINDOW:
                self._answers.popleft()
            return
        if self._refusals_in_row >= PAUSE_CALLS and now - self._answered_at >= PAUSE_SECONDS:
            self.rate = max(self.rate, self._answers_since / max(1.0, now - self._paused_at))
            self._next = self._paused_at = now
            self._answers_since = 0
        self._refusals_in_row, self._answered_at = 0, now
        if self._next > now:  # it is the rate that holds calls back
            self._answers_in_row += 1
            self._change(self._step_up(now, in_flight))

    def refused(self, now: float, sent: float, in_flight: int) -> None:
        """A call that went out at ``sent`` was refused for its rate."""
        began = self._begin(now)
        if self.rate is None:
            recent = sum(at >= now - WINDOW for at in self._answers)
            elapsed = min(WINDOW, now - began)
            self.rate = max(SLOWEST, (recent + in_flight) / max(1.0, elapsed))
            self._since = self._next = self._answered_at = self._refused_at = now
        elif sent >= self._since:
            self._refusals_in_row += 1
            self._answers_in_row, self._refused_at = 0, now
            self._change(GAIN * (REFUSED - 1) / max(SMOOTH, in_flight))

    def _begin(self, now: float) -> float:
        if self._began is None:
            self._began = self._paused_at = now
        return self._began

    def _step_up(self, now: float, in_flight: int) -> float:
        step = GAIN * REFUSED / max(SMOOTH, in_flight)
        quiet = max(
            min(self._answers_in_row / answers, (now - self._refused_at) / seconds) for answers, seconds in QUIET
        )
        if quiet <= 1:
            return step
        return min(max(step, STEEPEST / max(1, in_flight)), step * 4 ** min(quiet - 1, 20.0))

    def _change(self, by: float) -> None:
        assert self.rate is not None
        self.rate = min(FASTEST, max(SLOWEST, self.rate * math.exp(by)))
