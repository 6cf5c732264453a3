"""How fast a site is served: a token for each message, and as many conversations at once as it copes with.

Pure: no clock, no chance, no I/O. Times are handed in, in seconds by one clock that never goes back. Both are limits
upon what may begin; what is under way when one becomes smaller goes on to its end.
"""

from __future__ import annotations

from math import inf
from typing import Final

START: Final = 5
"""Conversations at once with a site of which nothing is known."""

_SLACK: Final = 0.05
"""Seconds whose tokens are kept: what timers are late by is made good, where a rate is so high that it matters."""


class TokenBucket:
    """Lets `rate` messages a second go, evenly; None for no limit.

    What was not used is not saved up: in any t seconds there go at most rate x t messages, and one more, or, where the
    rate is over 20 a second, those of 50 ms. So a site that comes back after a day gets no more at once than one that
    was never away. A new bucket has its first token.
    """

    __slots__ = ("_depth", "_empty_at", "_interval")

    def __init__(self, rate: float | None) -> None:
        self._empty_at = -inf  # when the bucket was, or will be, without any part of a token
        self.configure(rate)

    def configure(self, rate: float | None) -> None:
        """Go by this rate from now on; what went before counts."""
        self._interval = 0.0 if rate is None else 1.0 / rate
        self._depth = max(self._interval, _SLACK)

    @property
    def next_at(self) -> float:
        """When there is a token again, or was, long ago perhaps: minus infinity where none was ever taken."""
        return self._empty_at + self._interval

    def resume(self, taken_at: float, now: float) -> None:
        """Go on where another bucket was, of this rate or another, whose last token was taken then, or is about to be:
        the clock may be another now."""
        self._empty_at = min(taken_at, now)

    def when(self, now: float) -> float:
        """When there is a token: `now`, or the later time at which `take` finds it."""
        return max(now, self._empty_at + self._interval)

    def available(self, now: float, most: int) -> int:
        """How many tokens, at most `most`, `take` would find at that time."""
        return self._count(now, most)[0] if self._interval else most

    def after_next(self, now: float) -> float:
        """When there will be the token behind the next one, if that is taken as soon as it is there."""
        return self.when(now) + self._interval

    def take(self, now: float, most: int = 1) -> int:
        """Take as many tokens as there are, and at most `most`; return how many."""
        if not self._interval:
            self._empty_at = max(self._empty_at, now - self._depth)  # as a rate that comes later finds it
            return most
        taken, self._empty_at = self._count(now, most)
        return taken

    def _count(self, now: float, most: int) -> tuple[int, float]:
        taken, empty_at = 0, self._empty_at
        while taken < most and empty_at + self._interval <= now:
            empty_at = max(empty_at, now - self._depth) + self._interval
            taken += 1
        return taken, empty_at


class Concurrency:
    """How many conversations there may be with a site at once: `limit`, which follows how the site copes.

    It starts with 5 and, as TCP does it (RFC 5681, 3.1), doubles each round, by one for each conversation that was
    served, until one fails: then it is half of what it was, and from there one more after each `limit` conversations,
    about once a round. It is never under 1, so that there is always one to find out how the site is, and never over
    the ceiling. What fails together counts once: a conversation that was under way when the
    limit went down has nothing more to say of it. Nor has one that was served while hardly any of the limit was in use
    (RFC 7661): it shows nothing of how the site copes with all of it.

    For each conversation the caller tells one of two things. `succeeded`: the host stayed with us to the end, whatever
    it said of the message. `failed`: the host was at fault, a 421 included, or asked to be sent less. What is the
    resolver's or our own fault is neither.
    """

    __slots__ = ("_ceiling", "_limit", "_lowered_at", "_served", "_slow_start")

    def __init__(self, ceiling: int) -> None:
        self._lowered_at = -inf
        self._served = 0  # conversations since the limit changed
        self._slow_start = True
        self._ceiling = ceiling
        self._limit = min(START, ceiling)

    @property
    def limit(self) -> int:
        """How many conversations there may be at once, from 1 to the ceiling."""
        return self._limit

    def configure(self, ceiling: int) -> None:
        """Go by this ceiling (at least 1) from now on."""
        self._ceiling = ceiling
        self._limit = min(self._limit, ceiling)

    def succeeded(self, began: float, busy: int) -> None:
        """A conversation that began at `began` was served; `busy` are under way with the site, with this one."""
        if self._limit >= self._ceiling or began <= self._lowered_at or 2 * busy <= self._limit:
            return
        self._served += 1
        if self._slow_start or self._served >= self._limit:
            self._limit += 1
            self._served = 0

    def failed(self, began: float, now: float) -> bool:
        """A conversation that began at `began` failed; whether that was news, and the limit is lower now or was 1."""
        if began <= self._lowered_at:
            return False
        self._lowered_at = now
        self._slow_start = False
        self._limit = max(1, self._limit // 2)
        self._served = 0
        return True
