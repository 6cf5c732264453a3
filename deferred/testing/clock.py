"""Time that passes when told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.timers import Schedule, Timer

T = TypeVar("T")

TURNS = 1_000_000  # at one moment: more is a loop that waits for time to pass


def raise_error(error: Exception) -> None:
    """The `on_error` of a clock that was given none: the error comes out of `advance`."""
    raise error


class Clock:
    """A `TimeSource` for tests, with the timers of the real reactor.

    Time starts at `time` and passes only in `advance`, `pump` and `run`. What a call raises goes to `on_error`, which
    by default raises it from there. `wall_time` runs along, from `wall_time`; `set_wall_time` makes it jump.
    """

    def __init__(
        self,
        *,
        time: float = 0.0,
        wall_time: float = 1_700_000_000.0,
        on_error: Callable[[Exception], object] = raise_error,
    ) -> None:
        self.on_error = on_error
        self._now = time
        self._wall_offset = wall_time - time
        self._schedule = Schedule(self.time)

    def time(self) -> float:
        """Seconds, as told."""
        return self._now

    def wall_time(self) -> float:
        """Seconds since the epoch, as told."""
        return self._now + self._wall_offset

    def set_wall_time(self, wall_time: float) -> None:
        """Let the wall clock jump, as an administrator or NTP may; `time()` and the timers do not notice."""
        self._wall_offset = wall_time - self._now

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        """Call `function(*args)` `delay` seconds from now."""
        return self._schedule.call_later(delay, function, *args)

    def call_at(self, when: float, function: Callable[..., object], *args: Any) -> Timer:
        """Call `function(*args)` at `when`."""
        return self._schedule.call_at(when, function, *args)

    def call_soon(self, function: Callable[..., object], *args: Any) -> Timer:
        """Call `function(*args)` in the next turn."""
        return self._schedule.call_soon(function, *args)

    @property
    def pending(self) -> int:
        """Calls still to be made."""
        return len(self._schedule)

    def next_time(self) -> float | None:
        """When something may be due next: now if there are calls for the next turn; None if nothing ever is."""
        return self._now if self._schedule.busy else self._schedule.next_time()

    def turn(self) -> None:
        """Make the calls that are due now, but not those that they ask for."""
        self._schedule.turn(self._now, self._schedule.begin_turn(), self.on_error)

    def settle(self) -> None:
        """Turn until nothing is due at this moment. Raises `RuntimeError` if there is no end to it."""
        for _ in range(TURNS):
            when = self.next_time()
            if when is None or when > self._now:
                return
            self.turn()
        raise RuntimeError("calls keep asking for calls at the same moment")

    def advance(self, seconds: float) -> None:
        """Let time pass: everything due meanwhile is called at its time, and nothing due is left at the end."""
        if seconds < 0:
            raise ValueError("time does not go back")
        end = self._now + seconds
        turns = 0
        while (when := self.next_time()) is not None and when <= end:
            turns += 1
            if when > self._now:
                self._now, turns = when, 0
            elif turns > TURNS:
                raise RuntimeError("calls keep asking for calls at the same moment")
            self.turn()
        self._now = end

    def pump(self, steps: Iterable[float]) -> None:
        """`advance` by each of `steps` in turn."""
        for step in steps:
            self.advance(step)

    def run(self, deferred: Deferred[T], limit: float = 86_400.0) -> T:
        """Let time pass from one timer to the next until `deferred` fires; return its result or raise its error.

        Raises `TimeoutError` if it has not fired when nothing is left to be called, or after `limit` seconds.
        """
        results: list[Any] = []
        deferred.add_both(results.append)
        end = self._now + limit
        while not results:
            when = self.next_time()
            if when is None or when > end:
                raise TimeoutError("nothing is left that could fire it" if when is None else f"not within {limit} s")
            self._now = max(self._now, when)
            self.turn()
        if isinstance(results[0], Failure):
            results[0].raise_exception()
        result: T = results[0]
        return result
