"""The pace against servers with a limit that they don't tell, in simulated time: the limit is used, and few calls are refused."""

from __future__ import annotations

import heapq
import random

import pytest

from charter.models.pace import REFUSED, Pace

TICK = 0.005


def simulated(
    limit: float,
    latency: float,
    concurrency: int,
    seconds: float,
    noise: float = 0.0,
    burst: float = 0.0,
    window: float = 0.0,
    before: float = 0.0,
    first_rate: float | None = None,
):
    """(share of the limit used, share of calls refused, the pace) of the last half of the time; a token bucket refuses.

    ``noise``: share of calls that are refused whatever their rate. ``burst``: size of the bucket, 0: what one second gives.
    ``window``: a quota for so many seconds instead of a bucket. ``before``: the limit of the first half. ``first_rate``: a
    guess that is there already.
    """
    rng, pace, now = random.Random(0), Pace(), 0.0
    if first_rate is not None:
        pace.refused(0.0, 0.0, 1)
        pace.rate = first_rate
    tokens, in_flight, number = burst or before or limit, 0, 0
    back: list[tuple[float, int, float, bool]] = []
    served = refused = 0
    while now < seconds:
        allowed = before if before and now < seconds / 2 else limit
        if not window:
            tokens = min(burst or allowed, tokens + TICK * allowed)
        elif now == 0 or now // window != (now - TICK) // window:
            tokens = allowed * window
        while back and back[0][0] <= now:
            _, _, sent, is_ok = heapq.heappop(back)
            in_flight -= 1
            if is_ok:
                pace.answered(now, in_flight)
            else:
                pace.refused(now, sent, in_flight)
        while in_flight < concurrency and pace.wait(now) <= 0:
            is_ok = tokens >= 1 and rng.random() >= noise
            tokens -= is_ok
            served += is_ok and now >= seconds / 2
            refused += not is_ok and now >= seconds / 2
            in_flight, number = in_flight + 1, number + 1
            pace.sent(now)
            heapq.heappush(back, (now + latency * rng.uniform(0.7, 1.3), number, now, is_ok))
        now += TICK
    return served / (limit * seconds / 2), refused / (served + refused), pace


@pytest.mark.parametrize(
    ("limit", "latency", "burst"), [(40, 0.1, 0), (40, 1, 0), (40, 0.1, 400), (5, 0.5, 0), (100, 0.5, 0), (2, 1, 0)]
)
def test_a_limit_is_used_up_and_few_calls_are_refused(limit, latency, burst):
    used, refused, _ = simulated(limit, latency, 64, 80, burst=burst)
    assert used > 0.95
    assert refused < 0.06  # a bucket of two tokens is refused a little more often than the 3 % aimed at


def test_refusals_that_are_rare_slow_nothing_down():
    used, _, pace = simulated(1e6, 0.5, 32, 160, noise=REFUSED / 2)
    assert pace.rate is not None
    assert used * 1e6 > 0.9 * 32 / 0.5  # as many as 32 at once can be, at half a second each


def test_a_limit_that_rises_is_found():
    _, _, pace = simulated(20, 0.1, 64, 20)
    before = pace.rate
    now = 100.0
    for _ in range(400):
        now += max(0.001, pace.wait(now))
        pace.sent(now)
        pace.answered(now, 8)
    assert before and pace.rate and pace.rate > 1.5 * before


@pytest.mark.parametrize(("before", "limit"), [(5, 100), (20, 100), (100, 20), (100, 5)])
def test_a_limit_that_changes_is_found_within_a_minute(before, limit):
    used, _, pace = simulated(limit, 0.1, 64, 240, before=before)
    assert used > 0.7  # the search among it
    assert pace.rate and 0.85 * limit < pace.rate < 1.3 * limit


def test_a_first_guess_that_is_far_too_low_is_mended():
    used, refused, _ = simulated(40, 0.1, 64, 80, first_rate=2.0)
    assert used > 0.95
    assert refused < 0.05


@pytest.mark.parametrize(("limit", "window"), [(5, 10), (40, 10), (40, 60), (100, 60)])
def test_a_quota_that_is_used_up_is_used_again_as_soon_as_it_is_there(limit, window):
    used, refused, _ = simulated(limit, 0.1, 64, 4 * window, window=window)
    assert used > 0.85
    assert refused < 0.25  # somebody has to ask whether the next window has begun


def test_no_refusal_no_pace():
    pace = Pace()
    for i in range(1000):
        pace.sent(i / 1000)
        pace.answered(i / 1000 + 0.1, 50)
    assert pace.wait(1.0) == 0.0 and pace.rate is None


def test_calls_that_were_on_their_way_at_the_first_refusal_count_once():
    pace = Pace()
    for _ in range(64):
        pace.sent(0.0)
    pace.refused(0.1, 0.0, 63)
    first = pace.rate
    for left in range(62, -1, -1):
        pace.refused(0.1, 0.0, left)
    assert pace.rate == first


def test_a_server_that_refuses_everything_is_still_asked_now_and_then():
    pace = Pace()
    pace.sent(0.0)
    for i in range(1000):
        pace.refused(float(i), float(i), 1)
    assert pace.rate == 0.5
