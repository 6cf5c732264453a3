"""A deadline that is renewed for each reply: a float to set, and a timer that seldom is."""

from __future__ import annotations

from collections.abc import Callable

from deferred.interfaces import TimerHandle, TimeSource


def _nothing() -> None:
    pass


class Deadline:
    """Calls `passed` when it has. Where the timer comes early, because the deadline was moved on meanwhile, it looks,
    finds that there is time left, and is set anew: that costs less than to set it each time."""

    __slots__ = ("_at", "_clock", "_timer", "passed")

    def __init__(self, clock: TimeSource, passed: Callable[[], object]) -> None:
        self.passed = passed
        self._clock = clock
        self._at: float | None = None
        self._timer: TimerHandle | None = None

    def set(self, seconds: float | None) -> None:
        """So many seconds from now; None: there is none. Nothing after `drop`, unless there is another `passed`."""
        if seconds is None or self.passed is _nothing:
            self._at = None
            return
        self._at = self._clock.time() + seconds
        if self._timer is None or self._timer.when() > self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.call_later(seconds, self._look)

    def drop(self) -> None:
        """There is none, and never will be: who set it is let go of."""
        self._at = None
        self.passed = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._clock.time()
        if left > 0:
            self._timer = self._clock.call_later(left, self._look)
        else:
            self._at = None
            self.passed()
