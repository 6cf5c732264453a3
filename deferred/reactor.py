"""The reactor: one thread that waits for everything at once, and calls whoever has something to do.

A turn of the loop waits until a file is ready or a timer is due, calls the handlers of the files that are ready, then
the calls asked for since the last turn began, then the timers. What a call asks for is done in the next turn, so that
nobody keeps the others waiting for ever. A call that raises is reported to `on_error` and stops nothing.

Everything here is for the reactor's own thread, save `call_soon_threadsafe`.
"""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeVar

from deferred import tcp, udp, unix
from deferred.defer import Deferred, gather_results, maybe_deferred, succeed
from deferred.failure import Failure
from deferred.interfaces import Address, Server
from deferred.poller import FOR_READER, FOR_WRITER, Files, Poller, best_poller, bind
from deferred.protocol import DatagramProtocol, DatagramTransport, StreamProtocol
from deferred.signals import Signals
from deferred.threads import ThreadPool
from deferred.timers import Schedule, Timer

T = TypeVar("T")
P = TypeVar("P", bound=StreamProtocol)

_LONGEST_WAIT = 3600.0  # seconds; the system takes no longer ones than its integers hold


def print_error(error: Exception) -> None:
    """The `on_error` of a reactor that was given none: the traceback on standard error."""
    sys.excepthook(type(error), error, error.__traceback__)


class Reactor:
    """A `deferred.interfaces.Reactor` on the system's clock, files and threads.

    `on_error(error)` is called with what a callback or a protocol raised; it may be assigned. `threads` and
    `thread_backlog` bound the pool of `defer_to_thread`; the resolver has a small pool of its own, so that names that
    are slow to resolve do not hold up a fsync. In a `with` statement it is closed at the end.
    """

    def __init__(
        self,
        *,
        on_error: Callable[[Exception], object] = print_error,
        threads: int = 10,
        thread_backlog: int = 10_000,
        poller: Poller | None = None,
    ) -> None:
        self.on_error = on_error
        self.time: Final[Callable[[], float]] = time.monotonic
        self.wall_time: Final[Callable[[], float]] = time.time
        self._schedule = Schedule(time.monotonic)
        self.call_later: Final = self._schedule.call_later
        self.call_at: Final = self._schedule.call_at
        self.call_soon: Final = self._schedule.call_soon
        self._files = Files(poller if poller is not None else best_poller())
        self.open_sockets: set[socket.socket] = set()
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._files.set_reader(self._wake_in, self._woken)
        self._from_threads: collections.deque[tuple[Callable[..., object], tuple[Any, ...]]] = collections.deque()
        self._awake = False  # whether an octet is on its way to wake us
        self._waking = threading.RLock()  # against closing meanwhile; a signal's handler may come in between
        self._signals = Signals(self.call_soon_threadsafe, self._wake_out)
        self._pool = ThreadPool(self.call_soon_threadsafe, size=threads, backlog=thread_backlog)
        self._resolver = ThreadPool(self.call_soon_threadsafe, size=16, name="resolver")  # a dead server holds one long
        self._triggers: dict[str, list[Callable[[], object]]] = {"start": [], "stop": []}
        self._running = False
        self._stopping = False
        self._stopped = False
        self._stop_asked = False  # before `run`
        self._closed = False

    # -- the loop

    @property
    def running(self) -> bool:
        """Whether `run` or `run_until_complete` is at work."""
        return self._running

    def run(self) -> None:
        """Turn until `stop`. The start triggers are called in the first turn, in their order."""
        self._check_idle()
        for trigger in self._triggers["start"]:
            self.call_soon(trigger)
        if self._stop_asked:
            self._stop_asked = False
            self.call_soon(self.stop)
        self._loop(lambda: self._stopped)

    def stop(self) -> None:
        """Call the stop triggers, wait for the Deferreds they return, and let `run` return. Harmless when repeated.

        Asked for before `run`, by a Deferred that was quicker, it is done in the first turn, after the start triggers.
        """
        if not self._running:
            self._stop_asked = True
            return
        if self._stopping:
            return
        self._stopping = True
        waits = [maybe_deferred(trigger).add_errback(self._trigger_failed) for trigger in self._triggers["stop"]]
        gather_results(waits).add_callback(lambda _: self._stop_turning())

    def run_until_complete(self, deferred: Deferred[T], timeout: float | None = None) -> T:
        """Turn until `deferred` has fired, and return its result or raise its error.

        Raises `TimeoutError` after `timeout` seconds, `RuntimeError` if the reactor was stopped before.
        """
        self._check_idle()
        results: list[Any] = []
        late: list[bool] = []
        deferred.add_both(results.append)
        timer = None if timeout is None else self.call_later(timeout, late.append, True)
        self._loop(lambda: bool(results or late or self._stopped))
        if timer is not None:
            timer.cancel()
        if not results:
            raise TimeoutError(f"nothing came within {timeout} s") if late else RuntimeError("the reactor was stopped")
        if isinstance(results[0], Failure):
            results[0].raise_exception()
        result: T = results[0]
        return result

    def add_trigger(self, phase: str, function: Callable[..., object], *args: Any) -> Callable[[], object]:
        """Call `function(*args)` at "start" or "stop"; a stop trigger's Deferred is waited for.

        Returns what `remove_trigger` takes. Raises `KeyError` for any other phase.
        """
        trigger = lambda: function(*args)  # noqa: E731 - each must be an object of its own, to be removed by
        self._triggers[phase].append(trigger)
        return trigger

    def remove_trigger(self, phase: str, trigger: Callable[[], object]) -> None:
        """Forget a trigger. Raises `ValueError` if it is not there."""
        self._triggers[phase].remove(trigger)

    def close(self) -> None:
        """Give threads, signals, descriptors and open sockets back; the reactor is of no use afterwards.

        Nobody is told: end conversations before, in a stop trigger.
        """
        if self._running:
            raise RuntimeError("the reactor is running")
        if not self._closed:
            with self._waking:
                self._closed = True
                self._from_threads.clear()
            self._signals.close()
            self._pool.close()
            self._resolver.close()
            self._files.close()
            while self.open_sockets:
                self.open_sockets.pop().close()
            os.close(self._wake_in)
            os.close(self._wake_out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_idle(self) -> None:
        if self._running or self._closed:
            raise RuntimeError("the reactor is " + ("running already" if self._running else "closed"))

    def _loop(self, done: Callable[[], bool]) -> None:
        self._running = True
        self._stopping = self._stopped = False
        try:
            while not done():
                self._turn()
        finally:
            self._running = False

    def _turn(self) -> None:
        schedule = self._schedule
        wait = schedule.wait(time.monotonic())
        if wait is not None and wait > _LONGEST_WAIT:
            wait = _LONGEST_WAIT
        begun = schedule.begin_turn()
        for watch, mask in self._files.poll(wait):
            if mask & FOR_READER and (call := watch.reader) is not None:
                try:
                    call()
                except Exception as error:  # noqa: BLE001 - a handler that raises must not stop the others
                    self.report(error)
            if mask & FOR_WRITER and (call := watch.writer) is not None:
                try:
                    call()
                except Exception as error:  # noqa: BLE001 - as above
                    self.report(error)
        schedule.turn(time.monotonic(), begun, self.report)

    def report(self, error: Exception) -> None:
        """Hand an error that is nobody's to `on_error`, and survive what that raises."""
        try:
            self.on_error(error)
        except Exception as worse:  # noqa: BLE001 - there is nobody left to tell but standard error
            print_error(worse)

    def _trigger_failed(self, failure: Failure) -> None:
        if isinstance(failure.value, Exception):
            self.report(failure.value.with_traceback(failure.tb))

    def _stop_turning(self) -> None:
        self._stopped = True
        self.call_soon(int)  # so that the loop looks again at once

    # -- other threads, and signals

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        """`call_soon` from another thread or a signal handler. Ignored once the reactor is closed."""
        with self._waking:
            if self._closed:
                return  # the descriptor may be somebody else's by now
            self._from_threads.append((function, args))
            # The order matters: the reactor forgets `_awake` before it looks for calls, so that one that is added
            # after it looked finds `_awake` False, and wakes it again.
            if not self._awake:
                self._awake = True
                with contextlib.suppress(BlockingIOError):  # full of octets that wake it anyway
                    os.write(self._wake_out, b"\0")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_in, 4096)
        self._awake = False
        calls = self._from_threads
        for _ in range(len(calls)):
            function, args = calls.popleft()
            self.call_soon(function, *args)

    def defer_to_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Run `function` in the thread pool. Fails with `PoolFull` when too many wait already."""
        return self._pool.defer(function, *args, **kwargs)

    def add_signal_handler(self, number: int, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)`, in a turn, for each signal. Main thread only (else `ValueError`)."""
        self._signals.add(number, function, args)

    def remove_signal_handler(self, number: int) -> bool:
        """Give the signal back to whoever had it before; False if it was not ours."""
        return self._signals.remove(number)

    # -- files

    def add_reader(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` whenever `fd` can be read."""
        self._files.set_reader(fd, bind(function, args))

    def remove_reader(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""
        return self._files.drop_reader(fd)

    def add_writer(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` whenever `fd` can be written."""
        self._files.set_writer(fd, bind(function, args))

    def remove_writer(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""
        return self._files.drop_writer(fd)

    # -- the network: see deferred.interfaces.Reactor for the meaning

    def create_connection(
        self,
        protocol_factory: Callable[[], P],
        addresses: Sequence[Address],
        *,
        timeout: float | None = None,
        local_address: Address | None = None,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        tls_timeout: float | None = None,
    ) -> Deferred[P]:
        """Connect over TCP to the first of `addresses` that answers."""
        return tcp.connect(self, protocol_factory, addresses, timeout, local_address, tls, server_hostname, tls_timeout)

    def create_server(
        self,
        protocol_factory: Callable[[], StreamProtocol],
        host: str,
        port: int,
        *,
        backlog: int = 512,
        tls: ssl.SSLContext | None = None,
        tls_timeout: float | None = 60,
    ) -> Server:
        """Listen on a numeric address; port 0 takes a free one. Raises `OSError`."""
        return tcp.listen(self, protocol_factory, host, port, backlog, tls, tls_timeout)

    def create_unix_connection(
        self, protocol_factory: Callable[[], P], path: str, *, timeout: float | None = None
    ) -> Deferred[P]:
        """Connect to a Unix socket."""
        return unix.connect(self, protocol_factory, path, timeout)

    def create_unix_server(
        self, protocol_factory: Callable[[], StreamProtocol], path: str, *, backlog: int = 512, mode: int | None = None
    ) -> Server:
        """Listen on a Unix socket, whose file is removed when the server closes."""
        return unix.listen(self, protocol_factory, path, backlog, mode)

    def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], DatagramProtocol],
        *,
        local_address: Address | None = None,
        remote_address: Address | None = None,
    ) -> DatagramTransport:
        """A UDP socket. Raises `OSError`."""
        return udp.endpoint(self, protocol_factory, local_address, remote_address)

    def getaddrinfo(self, host: str, port: int) -> Deferred[list[Address]]:
        """The stream addresses of `host`, best first. Fails with `socket.gaierror`."""
        with contextlib.suppress(ValueError):
            return succeed([(str(ipaddress.ip_address(host)), port)])  # no need of a thread
        return self._resolver.defer(_resolve, host, port)


def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty, or too long
        raise socket.gaierror(socket.EAI_NONAME, f"not a name: {host!r}") from error
    return list(dict.fromkeys((str(address[0]), int(address[1])) for *_, address in found))


_default: Reactor | None = None


def get_reactor() -> Reactor:
    """The process's own reactor, for scripts; the daemon and the tests make theirs and hand it on."""
    global _default  # the one place that is meant to have one
    if _default is None or _default._closed:
        _default = Reactor()
    return _default


__all__ = ["Reactor", "Timer", "get_reactor", "print_error"]
