"""A reactor in memory: time that passes when told to, and a network that does as it is told."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from deferred import connect as happy_eyeballs
from deferred.defer import Deferred, execute, fail, succeed
from deferred.interfaces import Address, Reactor
from deferred.poller import bind
from deferred.protocol import DatagramProtocol, DatagramTransport, StreamProtocol
from deferred.testing.clock import Clock, raise_error
from deferred.testing.datagrams import MemoryDatagrams
from deferred.testing.memory import WINDOW, MemoryStream, memory_stream_pair

T = TypeVar("T")
P = TypeVar("P", bound=StreamProtocol)


class MemoryServer:
    """What `create_server` of a `MemoryReactor` returns."""

    def __init__(self, reactor: MemoryReactor, address: Any, accept: Callable[[MemoryStream], object]) -> None:
        self.reactor = reactor
        self._address = address
        self.accept = accept

    @property
    def address(self) -> Any:
        """`(host, port)`, or the path of a Unix socket."""
        return self._address

    def close(self) -> None:
        """Accept nothing more. Connections already accepted live on."""
        if self.reactor.listening.get(self._address) is self:
            del self.reactor.listening[self._address]


class MemoryReactor(Clock):
    """A `deferred.interfaces.Reactor` without a system below it.

    * `names[host]` are the addresses that `getaddrinfo` gives for it; an address stands for itself.
    * Connecting to an address where nobody listens is refused. To one whose host is in `black_holes` nothing ever
      answers; one in `unreachable` fails at once.
    * `latency` is the seconds that anything takes one way, `latencies[host]` those to one host: a connection is there
      after two, a refusal too. `connections` are the client ends made, in order, to be stalled or broken.
    * `defer_to_thread` calls at once, unless `threads_wait`: then `run_threads()` calls, in order.
    * `add_reader` only takes note: `readers[fd]()` makes the call.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        time: float = 0.0,
        wall_time: float = 1_700_000_000.0,
        on_error: Callable[[Exception], object] = raise_error,
    ) -> None:
        super().__init__(time=time, wall_time=wall_time, on_error=on_error)
        self.latency = latency
        self.latencies: dict[str, float] = {}
        self.window = WINDOW
        self.names: dict[str, list[str]] = {"localhost": ["127.0.0.1"]}
        self.black_holes: set[str] = set()
        self.unreachable: set[str] = set()
        self.listening: dict[Any, MemoryServer] = {}
        self.datagrams: dict[Address, MemoryDatagrams] = {}
        self.connections: list[MemoryStream] = []
        self.attempts: list[Any] = []
        self.threads_wait = False
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}
        self._work: deque[Callable[[], None]] = deque()
        self._ports = itertools.count(40_000)

    # -- streams

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
        """Connect to the first of `addresses` that answers; `attempts` notes those that were tried."""

        def dial(address: Address) -> Deferred[MemoryStream]:
            return self._dial(tuple(address), local_address)

        def talk(stream: MemoryStream) -> Deferred[P]:
            return happy_eyeballs.establish(
                stream, protocol_factory, tls=tls, server_hostname=server_hostname, timeout=tls_timeout
            )

        stream = happy_eyeballs.connect(self, addresses, dial, MemoryStream.abort, timeout=timeout)
        return stream.add_callback(talk)

    def create_server(
        self,
        protocol_factory: Callable[[], StreamProtocol],
        host: str,
        port: int,
        *,
        backlog: int = 512,  # noqa: ARG002 - there is no queue to bound
        tls: ssl.SSLContext | None = None,
        tls_timeout: float | None = 60,
    ) -> MemoryServer:
        """Listen on an address; port 0 takes a free one. Raises `OSError` (EADDRINUSE)."""
        return self._listen((host, port or next(self._ports)), protocol_factory, tls, tls_timeout)

    def create_unix_connection(
        self, protocol_factory: Callable[[], P], path: str, *, timeout: float | None = None
    ) -> Deferred[P]:
        """Connect to a path that `create_unix_server` was given."""
        stream = happy_eyeballs.connect(
            self, [(path, 0)], lambda _: self._dial(path, None), MemoryStream.abort, timeout=timeout
        )
        return stream.add_callback(happy_eyeballs.establish, protocol_factory)

    def create_unix_server(
        self,
        protocol_factory: Callable[[], StreamProtocol],
        path: str,
        *,
        backlog: int = 512,  # noqa: ARG002 - there is no queue to bound
        mode: int | None = None,  # noqa: ARG002 - nor a file
    ) -> MemoryServer:
        """Listen on a path; no file is made."""
        return self._listen(path, protocol_factory, None, None)

    def _listen(
        self,
        address: Any,
        protocol_factory: Callable[[], StreamProtocol],
        tls: ssl.SSLContext | None,
        tls_timeout: float | None,
    ) -> MemoryServer:
        if address in self.listening:
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {address}")

        def accept(stream: MemoryStream) -> None:
            happy_eyeballs.serve(stream, protocol_factory, self.on_error, tls=tls, timeout=tls_timeout)

        server = self.listening[address] = MemoryServer(self, address, accept)
        return server

    def _dial(self, address: Any, local_address: Address | None) -> Deferred[MemoryStream]:
        host = address[0] if isinstance(address, tuple) else address
        self.attempts.append(address)
        if host in self.unreachable:
            return fail(OSError(errno.EHOSTUNREACH, f"{os.strerror(errno.EHOSTUNREACH)}: {address}"))
        latency = self.latencies.get(host, self.latency)
        deferred: Deferred[MemoryStream] = Deferred(lambda _: timer.cancel())
        timer = self.call_later(latency, self._reach, deferred, address, local_address, latency)
        return deferred

    def _reach(
        self, deferred: Deferred[MemoryStream], address: Any, local_address: Address | None, latency: float
    ) -> None:
        """The request to connect has come to its host."""
        if deferred.called or (isinstance(address, tuple) and address[0] in self.black_holes):
            return
        server = self.listening.get(address)
        if server is None:
            refused = ConnectionRefusedError(errno.ECONNREFUSED, f"{os.strerror(errno.ECONNREFUSED)}: {address}")
            self.call_later(latency, self._answer, deferred, refused)
            return
        host = local_address[0] if local_address is not None else "192.0.2.1"
        client, other = memory_stream_pair(
            self,
            latency=latency,
            window=self.window,
            client_address=(host, next(self._ports)),
            server_address=address,
        )
        # the answer is on its way before anything that the server says
        self.call_later(latency, self._answer, deferred, client)
        server.accept(other)

    def _answer(self, deferred: Deferred[MemoryStream], answer: MemoryStream | OSError) -> None:
        if isinstance(answer, OSError):
            if not deferred.called:
                deferred.errback(answer)
        elif deferred.called:
            answer.abort()
        else:
            self.connections.append(answer)
            deferred.callback(answer)

    # -- datagrams, names, threads, files

    def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], DatagramProtocol],
        *,
        local_address: Address | None = None,
        remote_address: Address | None = None,
    ) -> DatagramTransport:
        """A socket for datagrams among those of this reactor. Raises `OSError` (EADDRINUSE)."""
        host, port = local_address or ("192.0.2.1", 0)
        address = (host, port or next(self._ports))
        if address in self.datagrams:
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {address}")
        endpoint = MemoryDatagrams(self, address, remote_address, protocol_factory())
        self.datagrams[address] = endpoint
        endpoint.protocol.connection_made(endpoint)
        return endpoint

    def carry(self, data: bytes, source: Address, target: Address) -> None:
        """Take a datagram to whoever is at `target`, or nowhere."""
        if target[0] not in self.black_holes:
            self.call_later(self.latencies.get(target[0], self.latency), self._bring, data, source, target)

    def _bring(self, data: bytes, source: Address, target: Address) -> None:
        endpoint = self.datagrams.get(target)
        if endpoint is not None:
            endpoint.protocol.datagram_received(data, source)

    def getaddrinfo(self, host: str, port: int) -> Deferred[list[Address]]:
        """The addresses in `names`. Fails with `socket.gaierror` for a name that is not there."""
        try:
            return succeed([(str(ipaddress.ip_address(host)), port)])
        except ValueError:
            pass
        if host not in self.names:
            return fail(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        return succeed([(address, port) for address in self.names[host]])

    def defer_to_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Call `function` now, or in `run_threads`."""
        if not self.threads_wait:
            return execute(function, *args, **kwargs)
        deferred: Deferred[T] = Deferred()

        def work() -> None:
            if not deferred.called:
                execute(function, *args, **kwargs).chain_deferred(deferred)

        self._work.append(work)
        return deferred

    def run_threads(self, count: int | None = None) -> int:
        """Make the calls (or the first `count`) that wait for a thread; tells how many."""
        count = len(self._work) if count is None else min(count, len(self._work))
        for _ in range(count):
            self._work.popleft()()
        return count

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        """`call_soon`."""
        self.call_soon(function, *args)

    def add_reader(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Take note in `readers`."""
        self.readers[fd] = bind(function, args)

    def remove_reader(self, fd: int) -> bool:
        """Forget; True if it was there."""
        return self.readers.pop(fd, None) is not None

    def add_writer(self, fd: int, function: Callable[..., object], *args: Any) -> None:
        """Take note in `writers`."""
        self.writers[fd] = bind(function, args)

    def remove_writer(self, fd: int) -> bool:
        """Forget; True if it was there."""
        return self.writers.pop(fd, None) is not None


if TYPE_CHECKING:
    _is_a_reactor: type[Reactor] = MemoryReactor
