"""What a reactor offers, as types: the real one, a `Clock` and a simulated one are told apart by nobody.

Words are asyncio's where asyncio has the concept. Every wait is a `Deferred`, and whoever cancels it gives up the wait.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from deferred.defer import Deferred
from deferred.protocol import DatagramProtocol, DatagramTransport, StreamProtocol

T = TypeVar("T")
P = TypeVar("P", bound=StreamProtocol)

Address = tuple[str, int]
"""A numeric IP address (v4 or v6) and a port."""


class TimerHandle(Protocol):
    """A call that has been put off."""

    def cancel(self) -> None:
        """Do not make the call. Harmless when it has been made or cancelled."""

    def cancelled(self) -> bool:
        """Whether `cancel` came before the call."""

    def when(self) -> float:
        """The time of the call, on its clock's `time()`."""

    def reset(self, delay: float) -> None:
        """Make the call `delay` seconds from now instead. Raises `RuntimeError` if it was made or cancelled."""


class TimeSource(Protocol):
    """Time and timers: all that a `Deferred.add_timeout` or a retry needs."""

    def time(self) -> float:
        """Seconds on a clock that never goes back; its zero means nothing."""

    def wall_time(self) -> float:
        """Seconds since the epoch."""

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> TimerHandle:
        """Call `function(*args)` `delay` seconds from now."""

    def call_soon(self, function: Callable[..., object], *args: Any) -> TimerHandle:
        """Call `function(*args)` in the next turn."""


class Server(Protocol):
    """A listening socket."""

    @property
    def address(self) -> Any:
        """What it is bound to: `(host, port)`, or the path of a Unix socket."""

    def close(self) -> None:
        """Accept nothing more. Connections already accepted live on."""


class Reactor(TimeSource, Protocol):
    """Time, the network, threads and files to wait for."""

    on_error: Callable[[Exception], object]
    """Called with what a callback, or a protocol, raised: nothing else stops."""

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
        """Connect over TCP to the first of `addresses` that answers (Happy Eyeballs, RFC 8305).

        Fires with the protocol once `connection_made` has run (and, with `tls`, the handshake is done). Fails with
        the last address's `OSError`, `TimeoutError` after `timeout` seconds, `ssl.SSLError`.
        """

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

    def create_unix_connection(
        self, protocol_factory: Callable[[], P], path: str, *, timeout: float | None = None
    ) -> Deferred[P]:
        """Connect to a Unix socket."""

    def create_unix_server(
        self, protocol_factory: Callable[[], StreamProtocol], path: str, *, backlog: int = 512, mode: int | None = None
    ) -> Server:
        """Listen on a Unix socket, whose file is removed when the server closes."""

    def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], DatagramProtocol],
        *,
        local_address: Address | None = None,
        remote_address: Address | None = None,
    ) -> DatagramTransport:
        """A UDP socket. Raises `OSError`."""

    def getaddrinfo(self, host: str, port: int) -> Deferred[list[Address]]:
        """The stream addresses of `host`, best first. Fails with `socket.gaierror`."""

    def defer_to_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Run `function` in the thread pool; fire, on the reactor's thread, with what it returned or raised."""

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        """`call_soon` from another thread or a signal handler."""

    def add_reader(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` whenever `fd` can be read."""

    def remove_reader(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""

    def add_writer(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` whenever `fd` can be written."""

    def remove_writer(self, fd: int) -> bool:
        """Stop watching; True if it was watched."""
