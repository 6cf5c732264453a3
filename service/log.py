"""The log: one line an event on standard output, and never a wait for whoever reads it.

Lines gather for a moment and a worker thread writes them in one go. While the reader stalls they gather up to
`MOST_LINES`; past that the newest are dropped and counted, for a daemon that delivers mail is worth more than its log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal

import msgspec

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.interfaces import Reactor, TimerHandle
from service.journal import EVENTS, SECONDS
from service.timestamp import rfc3339

MOST_LINES: Final = 20_000
LAST_LINES: Final = 1.0
"""Seconds that the end waits for the last lines to be read."""
_GATHER: Final = 0.01
"""Seconds in which lines gather: to give a thread work costs as much as a few of them."""
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Facts = MutableMapping[str, Any]


def _printable(value: Any) -> Any:
    """What a file's name or a server said must not steer the terminal."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


_TIMES: Final = frozenset(SECONDS)


def _to_the_millisecond(facts: Facts) -> Facts:
    return {
        name: round(fact, 3) if name in _TIMES and isinstance(fact, float) else fact for name, fact in facts.items()
    }


_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode
_encode_in_ascii: Final = json.JSONEncoder(default=repr, separators=(",", ":")).encode


def _for_machines(timestamp: str, level: str, event: str, facts: Facts) -> str:
    """JSON in ASCII: whatever is no letter of it is escaped. The quick encoder does not, and most facts have nothing
    to."""
    said = {"timestamp": timestamp, "level": level, "event": event, **facts}
    try:
        line = _encode(said)
    except UnicodeEncodeError:  # half a surrogate pair
        return _encode_in_ascii(said)
    return line.decode() if line.isascii() and b"\x7f" not in line else _encode_in_ascii(said)


def _for_people() -> Callable[[str, str, str, Facts], str]:
    import structlog  # with all that it imports it would be a fifth of the start of a daemon that writes JSON

    render = structlog.dev.ConsoleRenderer(colors=False)

    def line(timestamp: str, level: str, event: str, facts: Facts) -> str:
        said = {name: _printable(value) for name, value in facts.items() if value is not None}
        return str(render(None, level, {"timestamp": timestamp, "level": level, "event": event, **said}))

    return line


class Log:
    """A listener of the journal to `events`. It writes lines by `write`, which may block: that is only called in a
    thread."""

    def __init__(
        self,
        reactor: Reactor,
        write: Callable[[str], object],
        *,
        format: Literal["json", "console"] = "json",
        level: str = "info",
    ) -> None:
        self._reactor = reactor
        self._write = write
        self._lines: list[str] = []
        self._writing = False
        self._timer: TimerHandle | None = None
        self._dropped = 0
        self._closed: Deferred[None] | None = None
        self.configure(format, level)

    def configure(self, format: Literal["json", "console"], level: str) -> None:
        """Write in this format from now on, and nothing below this level."""
        self.events = [event for event in EVENTS if LEVELS[EVENTS[event]] >= LEVELS[level]]
        """Those that are loud enough to be written."""
        self._line = _for_machines if format == "json" else _for_people()

    def __call__(self, event: str, facts: Facts) -> None:
        """Take a line; it is written before long."""
        if len(self._lines) >= MOST_LINES:
            self._dropped += 1
            return
        if not _TIMES.isdisjoint(facts):
            facts = _to_the_millisecond(facts)
        self._lines.append(self._line(rfc3339(self._reactor.wall_time()), EVENTS[event], event, facts))
        if not self._writing:
            self._writing = True
            self._timer = self._reactor.call_later(_GATHER, self._hand_over)

    def _hand_over(self) -> None:
        """Give what has gathered to a thread."""
        self._timer = None
        if self._dropped:
            now, facts = rfc3339(self._reactor.wall_time()), {"lines": self._dropped}
            self._lines.append(self._line(now, EVENTS["log_dropped"], "log_dropped", facts))
            self._dropped = 0
        if not self._lines:
            self._rest()
            return
        self._writing = True
        text = "\n".join(self._lines) + "\n"
        self._lines = []
        written = self._reactor.defer_to_thread(self._write, text)
        written.add_callbacks(self._written, self._lost)

    def _written(self, _: object) -> None:
        """More may have come meanwhile, and gathers; the last lines do not wait."""
        if self._closed is None and (self._lines or self._dropped):
            self._timer = self._reactor.call_later(_GATHER, self._hand_over)
        else:
            self._hand_over()

    def _lost(self, failure: Failure) -> None:
        """The reader is gone (a closed pipe, a full disk): lines are lost, deliveries are not."""
        self._rest()
        failure.trap(OSError, ValueError)

    def _rest(self) -> None:
        self._writing = False
        if self._closed is not None and not self._closed.called:
            self._closed.callback(None)

    def close(self, patience: float = LAST_LINES) -> Deferred[None]:
        """Write what is left; fire when that is done, or after `patience` seconds where nobody reads."""
        self._closed = Deferred()
        closed = self._closed.add_timeout(patience, self._reactor)
        if self._timer is not None:
            self._timer.cancel()
        if self._timer is not None or not self._writing:
            self._hand_over()
        return closed.add_errback(self._give_up)

    def _give_up(self, failure: Failure) -> None:
        """Nobody reads: the last lines are lost."""
        failure.trap(TimeoutError)
