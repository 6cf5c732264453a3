"""Is the daemon alive, and can it work? For orchestrators and for the person on call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from deferred.defer import Deferred, maybe_deferred, succeed
from deferred.failure import Failure
from deferred.interfaces import TimerHandle, TimeSource
from service.web.exchange import Request, Response, plain

PATIENCE: Final = 5.0
"""Seconds that a commit may take before the daemon counts as not ready."""

FRESH: Final = 1.0
"""Seconds for which the last commit's result answers for the next questions too."""


class Health:
    """`alive` (/healthz) says that the reactor turns, `ready` (/readyz) that the store can also commit.

    However often it is asked, at most one probe is under way, and at most one a second begins. `unready` gives a
    reason not to be ready that needs no probe (the daemon drains), or None.
    """

    def __init__(
        self,
        clock: TimeSource,
        probe: Callable[[], Deferred[None]],
        *,
        unready: Callable[[], str | None] = lambda: None,
        patience: float = PATIENCE,
        fresh: float = FRESH,
    ) -> None:
        self._clock = clock
        self._probe = probe
        self._unready = unready
        self._patience = patience
        self._fresh = fresh
        self._since: float | None = None  # when the probe under way began
        self._last: tuple[float, str | None] | None = None  # when the last one ended, and what was wrong
        self._waiting: list[_Waiter] = []

    def alive(self, _: Request) -> Response:
        """200: this very answer is the proof."""
        return plain(200, "ok")

    def ready(self, _: Request) -> Response | Deferred[Response]:
        """200 once the store has committed, 503 with the reason where it cannot or takes too long."""
        if (reason := self._unready()) is not None:
            return plain(503, _one_line(reason))
        return self._committed().add_callback(_verdict)

    def _committed(self) -> Deferred[str | None]:
        """Fire with what is wrong with the store, None for nothing."""
        now = self._clock.time()
        if self._last is not None and now - self._last[0] < self._fresh:
            return succeed(self._last[1])
        left = self._patience if self._since is None else self._since + self._patience - now
        if left <= 0:
            return succeed(self._late())
        waiter = _Waiter()
        waiter.timer = self._clock.call_later(left, self._tell, waiter)
        self._waiting.append(waiter)
        if self._since is None:
            self._since = now
            maybe_deferred(self._probe).add_both(self._probed)
        return waiter.answer

    def _late(self) -> str:
        return f"the store has not committed for {self._clock.time() - (self._since or 0):.0f} s"

    def _probed(self, result: object) -> None:
        wrong = f"the store cannot commit: {result.get_error_message()}" if isinstance(result, Failure) else None
        self._since = None
        self._last = (self._clock.time(), wrong)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.timer.cancel()
            waiter.answer.callback(wrong)

    def _tell(self, waiter: _Waiter) -> None:
        """This one has waited long enough; the probe goes on, and is still the only one."""
        self._waiting.remove(waiter)
        waiter.answer.callback(self._late())


class _Waiter:
    """Somebody who wants to know. Giving up (the peer has gone) is no harm to the probe."""

    timer: TimerHandle

    def __init__(self) -> None:
        self.answer: Deferred[str | None] = Deferred()


def _verdict(wrong: str | None) -> Response:
    return plain(200, "ok") if wrong is None else plain(503, _one_line(wrong))


def _one_line(text: str) -> str:
    """A reason may hold what a file system or a library said."""
    return "".join(c if c.isprintable() else " " for c in text)[:500]
