"""Which files are ready: epoll where there is one, what `selectors` has elsewhere.

Two things are easy to get wrong here. Within one batch of events, a handler may close a file whose own event is still
to come, and may even open another that is given the same number at once. So a batch is turned into `Watch` objects
before the first handler runs: a watch that was dropped since has no handlers, and the number's new owner has a watch
of its own that is not in the batch.

epoll reports an error or a hang-up whether it was asked for or not; both are passed to whoever watches, reader or
writer, whose next system call meets the error. A file that nobody watches is taken out of the set, or it would make
the reactor spin.
"""

from __future__ import annotations

import contextlib
import select
import selectors
from collections.abc import Callable
from typing import Any, Protocol

READ = 1
WRITE = 4
_ERROR = 8 | 16  # EPOLLERR, EPOLLHUP

FOR_READER = READ | _ERROR
FOR_WRITER = WRITE | _ERROR

Call = Callable[[], object]


class Watch:
    """What to call when a file is ready."""

    __slots__ = ("mask", "reader", "writer")

    def __init__(self) -> None:
        self.mask = 0
        self.reader: Call | None = None
        self.writer: Call | None = None


class Poller(Protocol):
    """The system's way of waiting for files. Masks are epoll's."""

    def register(self, fd: int, mask: int, /) -> None:
        """Wait for `fd` too."""

    def modify(self, fd: int, mask: int, /) -> None:
        """Wait for something else on `fd`."""

    def unregister(self, fd: int, /) -> None:
        """Wait for `fd` no longer."""

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """The files that are ready, each with its mask, after at most `timeout` seconds."""

    def close(self) -> None:
        """Give it back to the system."""


class SelectorPoller:
    """A `Poller` on the best that `selectors` has: kqueue, poll or select."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    @staticmethod
    def _events(mask: int) -> int:
        return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)

    def register(self, fd: int, mask: int, /) -> None:
        """Wait for `fd` too."""
        self._selector.register(fd, self._events(mask))

    def modify(self, fd: int, mask: int, /) -> None:
        """Wait for something else on `fd`."""
        try:
            self._selector.modify(fd, self._events(mask))
        except KeyError:
            raise FileNotFoundError(fd) from None

    def unregister(self, fd: int, /) -> None:
        """Wait for `fd` no longer."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """The files that are ready, each with its mask, after at most `timeout` seconds."""
        return [
            (key.fd, (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0))
            for key, events in self._selector.select(timeout)
        ]

    def close(self) -> None:
        """Give it back to the system."""
        self._selector.close()


def best_poller() -> Poller:
    """Epoll itself where there is one: a third of the cost of going through `selectors`."""
    if hasattr(select, "epoll"):
        epoll: Poller = select.epoll()
        return epoll
    return SelectorPoller()


class Files:
    """The files that are watched, and by whom."""

    __slots__ = ("_poller", "_watches")

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._watches: dict[int, Watch] = {}

    def poll(self, timeout: float | None) -> list[tuple[Watch, int]]:
        """Wait up to `timeout` seconds (None: without end) and tell who is to be called."""
        watches = self._watches
        events = self._poller.poll(timeout)
        return [(watches[fd], mask) for fd, mask in events if fd in watches]

    def set_reader(self, fd: int, call: Call) -> None:
        """Call whenever `fd` can be read."""
        watch = self._watches.get(fd)
        if watch is None:
            self._register(fd, READ).reader = call
        else:
            if watch.mask & READ:
                self._renew(fd, watch)
            else:
                self._change(fd, watch, watch.mask | READ)
            watch.reader = call

    def set_writer(self, fd: int, call: Call) -> None:
        """Call whenever `fd` can be written."""
        watch = self._watches.get(fd)
        if watch is None:
            self._register(fd, WRITE).writer = call
        else:
            if watch.mask & WRITE:
                self._renew(fd, watch)
            else:
                self._change(fd, watch, watch.mask | WRITE)
            watch.writer = call

    def drop_reader(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""
        watch = self._watches.get(fd)
        if watch is None or watch.reader is None:
            return False
        watch.reader = None
        self._change(fd, watch, watch.mask & ~READ)
        return True

    def drop_writer(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""
        watch = self._watches.get(fd)
        if watch is None or watch.writer is None:
            return False
        watch.writer = None
        self._change(fd, watch, watch.mask & ~WRITE)
        return True

    def __len__(self) -> int:
        return len(self._watches)

    def close(self) -> None:
        """Give the poller back to the system."""
        self._watches.clear()
        self._poller.close()

    def _register(self, fd: int, mask: int) -> Watch:
        self._poller.register(fd, mask)
        watch = self._watches[fd] = Watch()
        watch.mask = mask
        return watch

    def _renew(self, fd: int, watch: Watch) -> None:
        """Who is replaced may have closed his file, and the number be another's: the system has forgotten it then."""
        with contextlib.suppress(OSError):
            self._poller.unregister(fd)
        self._poller.register(fd, watch.mask)

    def _change(self, fd: int, watch: Watch, mask: int) -> None:
        watch.mask = mask
        if mask:
            try:
                self._poller.modify(fd, mask)
            except FileNotFoundError:
                # closed behind our back, and its number given to another file
                self._poller.register(fd, mask)
        else:
            del self._watches[fd]
            with contextlib.suppress(OSError):  # closed behind our back: the system has taken it out already
                self._poller.unregister(fd)


def bind(function: Callable[..., object], args: tuple[Any, ...]) -> Call:
    """`function(*args)` as a call without arguments, at no cost where there are none."""
    return (lambda: function(*args)) if args else function
