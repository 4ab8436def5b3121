"""How fast calls go out to a server that refuses some: the rate at which it refuses one call in 33.

Nothing is paced before the first refusal. From then on, the logarithm of the rate goes up by ``GAIN * REFUSED / n`` with each
answer and down by ``GAIN * (1 - REFUSED) / n`` with each refusal, n being the calls in flight. It is at rest where the share
of refusals is REFUSED, however large the limit and however slow the server: a limit R is used up at 1.03 R. Refusals that
have nothing to do with the rate, and are rarer than that, slow nothing down. Robbins and Monro (1951).
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


class Pace:
    """Calls per second, learned from answers and refusals. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._began: float | None = None
        self._since = 0.0  # calls that went out before it say nothing of the rate
        self._next = 0.0
        self._answers: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Seconds until the next call may go out."""
        return max(0.0, self._next - now)

    def sent(self, now: float) -> None:
        """A call goes out."""
        self._began = self._began or now
        if self.rate is not None:
            self._next = max(self._next, now - CREDIT) + 1 / self.rate

    def answered(self, now: float, in_flight: int) -> None:
        """A call was answered."""
        if self.rate is None:
            self._answers.append(now)
            while self._answers[0] < now - WINDOW:
                self._answers.popleft()
        elif self._next > now:  # it is the rate that holds calls back
            self._change(REFUSED, in_flight)

    def refused(self, now: float, sent: float, in_flight: int) -> None:
        """A call that went out at ``sent`` was refused for its rate."""
        if self.rate is not None:
            if sent >= self._since:
                self._change(REFUSED - 1, in_flight)
            return
        recent = sum(at >= now - WINDOW for at in self._answers)
        elapsed = min(WINDOW, now - (self._began or now))
        self.rate, self._since, self._next = max(SLOWEST, (recent + in_flight) / max(1.0, elapsed)), now, now

    def _change(self, by: float, in_flight: int) -> None:
        assert self.rate is not None
        step = GAIN * by / max(SMOOTH, in_flight)
        self.rate = min(FASTEST, max(SLOWEST, self.rate * math.exp(step)))
