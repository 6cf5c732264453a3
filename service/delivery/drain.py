"""The end: nothing new is begun, and what is under way ends well or in time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from deferred.defer import Deferred
from deferred.interfaces import TimerHandle, TimeSource
from service.delivery.attempt import Attempt

_GRACE: Final = 1.0
"""Seconds of a drain, a tenth of it at most, for conversations to come to the content."""

_LAST_WORDS: Final = 2.0
"""Seconds of a drain, a tenth of it at most, to write down what became of the conversations that were cut off."""


class Drain:
    """Gives up attempts, each when waiting for it is no use any more."""

    def __init__(self, clock: TimeSource, at_work: Collection[Attempt]) -> None:
        """`at_work` are the attempts under way, as they come to their ends."""
        self._clock = clock
        self._at_work = at_work
        self._over: Deferred[None] = Deferred()
        self._timers: list[TimerHandle] = []

    def begin(self, timeout: float) -> Deferred[None]:
        """Fire once nothing is under way, after `timeout` seconds at the latest.

        Who has no server's ear yet gives up at once, and who has not been asked for the content (354) after a short
        grace gives up then. Where the content is on its way or out, conversations may finish; those that do not in
        time are cut off a little before the end, so that there is time left to write down what became of them.
        """
        self._abort_unless(lambda attempt: attempt.conversing)
        grace, last_words = min(_GRACE, timeout / 10), min(_LAST_WORDS, timeout / 10)
        self._timers = [
            self._clock.call_later(grace, self._abort_unless, lambda attempt: attempt.past_data),
            self._clock.call_later(timeout - last_words, self._abort_unless, lambda _: False),
            self._clock.call_later(timeout, self._end),
        ]
        self.look()
        return self._over

    def look(self) -> None:
        """An attempt has come to its end: if it was the last, it is over."""
        if not self._at_work:
            self._end()

    def _abort_unless(self, may_go_on: Callable[[Attempt], bool]) -> None:
        for attempt in list(self._at_work):
            if not may_go_on(attempt):
                attempt.abort()

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if not self._over.called:
            self._over.callback(None)
