"""How a command tells the running daemon that it has changed the queue: it writes to a file that the daemon watches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deferred.interfaces import Reactor, TimerHandle
from service.queue.inotify import CLOSE_WRITE, Inotify
from service.queue.orders import Order, Orders, write_order

POKE: Final = "poke"
_ANYHOW: Final = 60.0  # seconds
_LOOK_AGAIN: Final = 1.0  # seconds, where there is no inotify


def poke(directory: Path, order: Order | None = None) -> None:
    """Let a daemon that works in `directory` look at its queue, and log the order, if there was one; without a daemon
    this changes nothing. Raises `OSError`."""
    write_order(directory / POKE, order)  # something in any case, also for those who watch by the file's time


class PokeWatch:
    """Calls `poked` whenever somebody has called `poke`, once for several at a time; and within a minute of a change
    that was made without, as a command may have died, or may not have been allowed to, before it came to that.
    `ordered` is called before with each order that was given.

    `version` is another after each change.
    """

    def __init__(
        self,
        directory: Path,
        reactor: Reactor,
        poked: Callable[[], object],
        version: Callable[[], object],
        ordered: Callable[[Order], object] = lambda _: None,
    ) -> None:
        self._path = directory / POKE
        self._orders: Orders | None = None
        self._ordered = ordered
        self._reactor = reactor
        self._poked = poked
        self._inotify: Inotify | None = None
        self._timer: TimerHandle | None = None
        self._version = version
        self._last: object = None
        self._minute = reactor.call_later(_ANYHOW, self._anyhow)
        with contextlib.suppress(OSError):  # ours, so that a command of root's does not make it root's
            self._orders = Orders(self._path)
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
            self._hear()

    def _hear(self) -> None:
        for order in self._orders.take() if self._orders is not None else ():
            self._ordered(order)
        self._poked()

    def _look(self) -> None:
        self._timer = self._reactor.call_later(_LOOK_AGAIN, self._look)
        seen = self._time()
        if seen != self._seen:
            self._seen = seen
            self._hear()

    def _time(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
