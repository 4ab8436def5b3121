"""Calls to a server that fails in every way: one retry layer with one clock.

- Calls per second adapt to refusals (429: models/pace.py), calls at once to overload (503, 529: seven tenths after one, one
  more after each round of answers); Retry-After, in seconds or as a date, holds for all. A run begins with a few calls at
  once, so that a low limit doesn't refuse a whole burst.
- An attempt and an item have a total deadline, whatever trickles in meanwhile. An item's clock runs from its first call on,
  but for time in which nobody may call; items that were begun go before others.
- A body over 8 MiB and a redirect are errors. Malformed answers are retried like failures, and are never answers.
- After many failures in a row everybody waits while one call at a time finds out whether the server is back.
- The key is in no message.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from charter.config import EndpointConfig
from charter.errors import ConfigError, EndpointError
from charter.models.pace import Pace

MAX_BODY = 8 << 20
FIRST_BACKOFF, MAX_BACKOFF = 0.25, 8.0  # seconds
DEAD_AFTER, PROBE_SECONDS = 10, 15.0  # failures in a row; seconds between probes
CUT = 0.7
FIRST_CALLS = 8  # at once; one more with each answer, and twice as many after each second
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
TOO_FAST = 429
SLOW_DOWN = (TOO_FAST, 503, 529)
A = TypeVar("A")


class Malformed(Exception):
    """An answer that isn't one; tried again."""


class BadItem(Exception):
    """This item got no answer: its deadline passed, or the server refuses it."""

    def __init__(self, reason: str, too_long: bool = False) -> None:
        super().__init__(reason)
        self.too_long = too_long


LATE = "no answer within its deadline"


class Caller:
    """Makes the calls of one model; lives as long as it, across batches."""

    def __init__(self, settings: EndpointConfig, name: str, key: str, notice: Callable[[str], None]) -> None:
        self._settings, self._name, self._key, self._notice = settings, name, key, notice
        self._limit, self._pace = float(settings.concurrency), Pace()
        self._in_flight, self._failures = 0, 0
        self._begun = 0  # items that wait for another call
        self._num_answers, self._first_at = 0, 0.0
        self._free_at = self._cut_at = self._dead_since = 0.0
        self._probing = False

    @asynccontextmanager
    async def client(self, base_url: str) -> AsyncIterator[Any]:
        """A client of the official library: no retries and no redirects of its own, capped bodies."""
        try:
            import httpx2
            import openai
        except ImportError as error:
            raise ConfigError("endpoints need the openai client: pip install 'charter[endpoint]'") from error
        size = self._settings.concurrency
        http = httpx2.AsyncClient(
            transport=capped_transport(size),
            follow_redirects=False,
            timeout=self._settings.attempt_seconds,
        )
        async with openai.AsyncOpenAI(
            base_url=base_url,
            api_key=self._key,
            max_retries=0,
            http_client=http,
            timeout=self._settings.attempt_seconds,
        ) as client:
            yield client

    async def call(self, attempt: Callable[[], Awaitable[A]]) -> A:
        """Try until there is an answer.

        Raises:
            BadItem: no answer within the item's deadline, or the server refuses this item.
            EndpointError: the server refuses everybody, or stayed dead too long.
        """
        spent, tries = 0.0, 0
        while True:
            spent += await self._turn(self._settings.deadline_seconds - spent if tries else None)
            began = time.monotonic()
            left = self._settings.deadline_seconds - spent
            try:
                answer = await self._attempt(attempt, min(left, self._settings.attempt_seconds))
            except Exception as error:
                wait, failed = self._failed(error, began), getattr(error, "status_code", None)
            else:
                self._succeeded()
                return answer
            tries += 1
            backoff = random.uniform(0.5, 1.0) * min(MAX_BACKOFF, FIRST_BACKOFF * 2**tries) if wait is None else 0.0
            # who answers with a 500 isn't dead: it may be this item that it can't do, and the wait is the item's own
            own_wait = wait if wait is not None and failed == 500 else 0.0
            if spent + time.monotonic() - began + backoff + own_wait >= self._settings.deadline_seconds:
                raise BadItem(LATE)
            await asyncio.sleep(backoff)
            spent += time.monotonic() - began + own_wait

    async def _attempt(self, attempt: Callable[[], Awaitable[A]], seconds: float) -> A:
        try:
            async with asyncio.timeout(seconds):
                return await attempt()
        finally:
            self._in_flight -= 1

    async def _turn(self, left: float | None) -> float:
        """Wait until this call may go out, and return the seconds of it in which others could call.

        Args:
            left: seconds that the item has for it; None: it waits for its first call. Then its clock doesn't run yet, and
                those that were begun go first.

        Raises:
            BadItem: the seconds are over.
        """
        waited, last = 0.0, time.monotonic()
        self._begun += left is not None
        try:
            while True:
                now, dead = time.monotonic(), self._dead_since > 0
                waited, last = waited + (0.0 if dead or now < self._free_at else now - last), now
                if left is not None and waited >= left:
                    raise BadItem(LATE)
                allowed = not self._probing if dead else self._in_flight < self._at_once(now)
                wait = max(self._free_at - now, self._pace.wait(now))
                if wait <= 0 and allowed and (left is not None or not self._begun):
                    self._probing = dead
                    self._in_flight += 1
                    self._pace.sent(now)
                    return waited if left is not None else 0.0
                await asyncio.sleep(min(0.25, max(0.005, wait)))
        finally:
            self._begun -= left is not None

    def _at_once(self, now: float) -> int:
        """Calls that may be in flight."""
        self._first_at = self._first_at or now
        begun = FIRST_CALLS * 2 ** min(now - self._first_at, 30.0) + self._num_answers
        return max(1, int(min(self._limit, begun)))

    def _succeeded(self) -> None:
        self._failures = 0
        self._num_answers += 1
        self._pace.answered(time.monotonic(), self._in_flight)
        if self._dead_since:
            self._notice(f"{self._name}: answers again")
        self._dead_since, self._probing = 0.0, False
        self._limit = min(float(self._settings.concurrency), self._limit + 1 / max(1.0, self._limit))

    def _failed(self, error: Exception, began: float) -> float | None:
        """Note a failure, or raise where trying again is no use. Returns the seconds that the server asked for, if any."""
        status = getattr(error, "status_code", None)
        self._refuse(error, status)
        self._probing = False
        wait = _retry_after(error) if status in SLOW_DOWN else None
        now = time.monotonic()
        if status in SLOW_DOWN:
            if status == TOO_FAST:
                self._pace.refused(now, began, self._in_flight)
            else:
                self._fewer(now)
            self._hold(now, wait)
            return wait
        self._failures += 1
        if self._failures >= DEAD_AFTER:
            if not self._dead_since:
                self._dead_since = now
                self._notice(f"{self._name}: no answer ({self._say(error)}): waiting until it is back")
            if now - self._dead_since > self._settings.dead_seconds:
                raise EndpointError(
                    f"{self._name}: dead for {now - self._dead_since:.0f} s ({self._say(error)}): "
                    "start it and run the same command again"
                ) from None
            self._free_at = now + PROBE_SECONDS
            return PROBE_SECONDS
        return None

    def _fewer(self, now: float) -> None:
        if now >= self._cut_at:  # one cut for all the refusals of one moment
            self._limit = max(1.0, self._limit * CUT)
            self._cut_at = now + 1.0

    def _hold(self, now: float, wait: float | None) -> None:
        """Nobody calls for as long as the server asks."""
        if wait is None:
            return
        if wait > self._settings.dead_seconds:
            raise EndpointError(f"{self._name}: asks to wait for {wait:.0f} s: run the same command again later")
        self._free_at = max(self._free_at, now + wait)

    def _refuse(self, error: Exception, status: int | None) -> None:
        """Raise for what no retry mends."""
        if status is None:
            if not _transient(error):
                raise error
            return
        if status in RETRIED:
            return
        if status in (400, 413, 422):
            text = str(error).lower()
            raise BadItem(self._say(error), "context" in text or "too long" in text or status == 413) from None
        if 300 <= status < 400:
            raise EndpointError(f"{self._name}: redirects ({status}): give the address that it leads to") from None
        key = f"the key in {self._settings.key_env}" if status in (401, 403) else "key"
        raise EndpointError(
            f"{self._name}: refuses ({self._say(error)}): check {key}, address and model name"
        ) from None

    def _say(self, error: Exception) -> str:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if len(self._key) > 4:
            text = text.replace(self._key, "***")
        return text[:200]


def _transient(error: Exception) -> bool:
    """Connection faults, deadlines and answers that can't be read; anything else is a fault of ours."""
    import httpx2
    import openai

    faults = (openai.APIConnectionError, openai.APIResponseValidationError, httpx2.HTTPError, json.JSONDecodeError)
    return isinstance(error, (Malformed, TimeoutError, *faults))


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asks to wait, at most a day; None where it doesn't say or can't be read."""
    response = getattr(error, "response", None)
    told = response.headers.get("retry-after") if response is not None else None
    if not told:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), 86400.0) if seconds == seconds else None


def capped_transport(connections: int) -> Any:
    """How a server is reached: no proxy, and no answer over 8 MiB."""
    import httpx2

    class Capped(httpx2.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._stream:
                size += len(chunk)
                if size > MAX_BODY:
                    raise httpx2.ReadError("the body is over 8 MiB")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            response.stream = Capped(response.stream)
            return response

    return Transport(limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections))
