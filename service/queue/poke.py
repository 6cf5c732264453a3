"""How a command tells the running daemon that it has changed the queue: it writes to a file that the daemon watches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deferred.interfaces import Reactor, TimerHandle
from service.queue.inotify import CLOSE_WRITE, Inotify

POKE: Final = "poke"
_ANYHOW: Final = 60.0  # seconds
_LOOK_AGAIN: Final = 1.0  # seconds, where there is no inotify


def poke(directory: Path) -> None:
    """Let a daemon that works in `directory` look at its queue; without one this changes nothing. Raises `OSError`."""
    fd = os.open(directory / POKE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    try:
        os.pwrite(fd, b"\n", 0)  # also for those who watch by its time
    finally:
        os.close(fd)


class PokeWatch:
    """Calls `poked` whenever somebody has called `poke`, once for several at a time; and within a minute of a change
    that was made without, as a command may have died, or may not have been allowed to, before it came to that.

    `version` is another after each change.
    """

    def __init__(
        self, directory: Path, reactor: Reactor, poked: Callable[[], object], version: Callable[[], object]
    ) -> None:
        self._path = directory / POKE
        self._reactor = reactor
        self._poked = poked
        self._inotify: Inotify | None = None
        self._timer: TimerHandle | None = None
        self._version = version
        self._last: object = None
        self._minute = reactor.call_later(_ANYHOW, self._anyhow)
        with contextlib.suppress(OSError):  # ours, so that a command of root's does not make it root's
            poke(directory)
        self._seen = self._time()
        try:
            self._inotify = Inotify(directory, CLOSE_WRITE)
        except OSError:
            self._timer = reactor.call_later(_LOOK_AGAIN, self._look)
        else:
            reactor.add_reader(self._inotify.fileno(), self._read)

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            self._reactor.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None
        self._minute.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _anyhow(self) -> None:
        self._minute = self._reactor.call_later(_ANYHOW, self._anyhow)
        last, self._last = self._last, self._version()
        if last != self._last:
            self._poked()

    def _read(self) -> None:
        if self._inotify is not None and any(event.overflow or event.name == POKE for event in self._inotify.read()):
            self._poked()

    def _look(self) -> None:
        self._timer = self._reactor.call_later(_LOOK_AGAIN, self._look)
        seen = self._time()
        if seen != self._seen:
            self._seen = seen
            self._poked()

    def _time(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
