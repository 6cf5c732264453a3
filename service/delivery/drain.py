"""The end of what is under way when the daemon ends: well, or in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from deferred.defer import Deferred
from deferred.interfaces import Reactor, TimerHandle
from service.delivery.attempt import Attempt

_GRACE: Final = 1.0
"""Seconds of a drain, a tenth of it at most, for conversations to come to the content."""

_LAST_WORDS: Final = 2.0
"""Seconds of a drain, a tenth of it at most, to write down what became of the conversations that were cut off."""


class Drain:
    """Ends the attempts that are under way; `over` fires when time is up, or at `end`.

    Who has no server's ear yet gives up at once, and who has not been asked for the content (354) after a short grace
    gives up then: no host is blamed, and who has no answer is due as before. Where the content is on its way or out,
    conversations may finish; those that do not in time are cut off a little before the end, so that there is time left
    to write down what became of them.
    """

    def __init__(self, reactor: Reactor, at_work: Mapping[Any, Attempt]) -> None:
        self.over: Deferred[None] = Deferred()
        self._reactor = reactor
        self._at_work = at_work
        self._timers: list[TimerHandle] = []

    def begin(self, timeout: float) -> None:
        """From now on they have `timeout` seconds."""
        self._abort_unless(lambda attempt: attempt.conversing)
        grace, last_words = min(_GRACE, timeout / 10), min(_LAST_WORDS, timeout / 10)
        self._timers = [
            self._reactor.call_later(grace, self._abort_unless, lambda attempt: attempt.past_data),
            self._reactor.call_later(timeout - last_words, self._abort_unless, lambda _: False),
            self._reactor.call_later(timeout, self.end),
        ]

    def _abort_unless(self, may_go_on: Callable[[Attempt], bool]) -> None:
        for attempt in list(self._at_work.values()):
            if not may_go_on(attempt):
                attempt.abort()

    def end(self) -> None:
        """Wait for nothing any more."""
        for timer in self._timers:
            timer.cancel()
        if not self.over.called:
            self.over.callback(None)
