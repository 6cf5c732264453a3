"""Streams over sockets: TCP, and what Unix sockets share with it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from deferred import connect as happy_eyeballs
from deferred.connect import establish, serve
from deferred.defer import Deferred, fail, succeed
from deferred.interfaces import Address, Reactor, TimerHandle
from deferred.protocol import StreamProtocol
from deferred.stream import Stream
from deferred.wire import Octets

P = TypeVar("P", bound=StreamProtocol)

_READ = 64 * 1024  # below malloc's threshold for mmap, so that reading does not map and unmap memory each time
_ACCEPTS = 64  # connections taken in one turn
_REST = 0.1  # seconds without accepting when there is no descriptor to be had
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
REFUSED = (OSError, OverflowError, ValueError, TypeError)  # by the system, or by Python: a port or path that is none
_LINGER_NOT = struct.pack("ii", 1, 0)  # closing sends a reset (RFC 9293, 3.10.5: ABORT)


class SocketReactor(Reactor, Protocol):
    """A reactor with sockets: it knows those that are open, to close them when it is closed itself."""

    open_sockets: set[socket.socket]


class SocketStream(Stream):
    """A stream over a connected, non-blocking socket."""

    __slots__ = ("_fd", "_peer", "_reactor", "_socket", "_watches_reading", "_watches_writing")

    def __init__(self, reactor: SocketReactor, connected: socket.socket, peer: Any) -> None:
        super().__init__(reactor)
        self._reactor = reactor
        self._socket = connected
        self._fd = connected.fileno()
        self._peer = peer
        reactor.open_sockets.add(connected)
        self._watches_reading = False
        self._watches_writing = False

    def _send(self, data: Octets) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _send_many(self, pieces: Sequence[Octets]) -> int:
        try:
            return self._socket.sendmsg(pieces)
        except BlockingIOError:
            return 0

    def _receive(self) -> bytes | None:
        try:
            return self._socket.recv(_READ)
        except BlockingIOError:
            return None

    def _has_received(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False  # nothing yet; or an error that the next read will meet too

    def _watch(self, reading: bool | None = None, writing: bool | None = None) -> None:
        if reading is not None and reading != self._watches_reading:
            self._watches_reading = reading
            if reading:
                self._reactor.add_reader(self._fd, self._readable)
            else:
                self._reactor.remove_reader(self._fd)
        if writing is not None and writing != self._watches_writing:
            self._watches_writing = writing
            if writing:
                self._reactor.add_writer(self._fd, self._writable)
            else:
                self._reactor.remove_writer(self._fd)

    def _finish(self) -> None:
        with contextlib.suppress(OSError):  # the peer has gone: reading will tell
            self._socket.shutdown(socket.SHUT_WR)

    def _release(self, reset: bool) -> None:
        if reset:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._reactor.open_sockets.discard(self._socket)
        self._socket.close()

    def _wire_info(self, name: str) -> Any:
        if name == "peername":
            return self._peer
        if name == "socket":
            return self._socket
        if name == "sockname":
            with contextlib.suppress(OSError):
                return self._socket.getsockname()
        return None

    def __repr__(self) -> str:
        state = "lost" if self._lost else "closing" if self._closing else "open"
        return f"<SocketStream to {self._peer} {state}>"


class Listener:
    """A listening socket: a `deferred.interfaces.Server`.

    When there is no file descriptor for the next connection, accepting rests for a moment and tries again. (The other
    way, a descriptor held in reserve to accept and hang up with, turns away callers whom a moment's wait in the
    backlog would have served.) `on_error` is told once for each shortage.
    """

    def __init__(
        self,
        reactor: SocketReactor,
        listening: socket.socket,
        accepted: Callable[[socket.socket, Any], object],
        closed: Callable[[], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._address = listening.getsockname()[:2] if listening.family != socket.AF_UNIX else listening.getsockname()
        self._accepted = accepted
        self._closed = closed
        self._resting: TimerHandle | None = None
        self._short = False
        reactor.open_sockets.add(listening)
        self._watch()

    @property
    def address(self) -> Any:
        """What it is bound to: `(host, port)`, or the path of a Unix socket."""
        return self._address

    def close(self) -> None:
        """Accept nothing more. Connections already accepted live on."""
        if self._socket.fileno() < 0:
            return
        if self._resting is not None:
            self._resting.cancel()
        self._reactor.remove_reader(self._socket.fileno())
        self._reactor.open_sockets.discard(self._socket)
        self._socket.close()
        if self._closed is not None:
            self._closed()

    def _watch(self) -> None:
        self._resting = None
        self._reactor.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            if self._socket.fileno() < 0:
                return  # closed by one of those it has accepted
            try:
                connected, peer = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            self._short = False
            connected.setblocking(False)
            self._accepted(connected, peer)

    def _rest(self, error: OSError) -> None:
        self._reactor.remove_reader(self._socket.fileno())
        self._resting = self._reactor.call_later(_REST, self._watch)
        if not self._short or error.errno not in _SHORTAGE:
            self._short = True
            self._reactor.on_error(error)


def accept_into(
    reactor: SocketReactor,
    protocol_factory: Callable[[], StreamProtocol],
    tls: ssl.SSLContext | None = None,
    tls_timeout: float | None = None,
) -> Callable[[socket.socket, Any], None]:
    """What a `Listener` does with a connection: a stream with a protocol of its own."""

    def accepted(connected: socket.socket, peer: Any) -> None:
        if connected.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # reset already: reading will tell
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = SocketStream(reactor, connected, peer)
        serve(stream, protocol_factory, reactor.on_error, tls=tls, timeout=tls_timeout)

    return accepted


def open_socket(family: int, kind: int) -> socket.socket:
    """A socket that does not block. Raises `OSError`."""
    if hasattr(socket, "SOCK_NONBLOCK"):  # Linux: one system call instead of two
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)
    made = socket.socket(family, kind)
    made.setblocking(False)
    return made


def family_of(host: str) -> socket.AddressFamily:
    """The family of a numeric address. Raises `OSError` for anything else: a name would block in the resolver."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host.partition("%")[0] if family == socket.AF_INET6 else host)  # a zone, of IPv6 alone
    except (OSError, ValueError):
        raise OSError(errno.EINVAL, f"not a numeric address: {host!r}") from None
    return family


def listen(
    reactor: SocketReactor,
    protocol_factory: Callable[[], StreamProtocol],
    host: str,
    port: int,
    backlog: int,
    tls: ssl.SSLContext | None,
    tls_timeout: float | None,
) -> Listener:
    """Listen on a numeric address. Raises `OSError`."""
    family = family_of(host)
    listening = open_socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen(backlog)
    except REFUSED as error:
        listening.close()
        raise with_place(error, f"{host}:{port}") from None
    return Listener(reactor, listening, accept_into(reactor, protocol_factory, tls, tls_timeout))


def connect(
    reactor: SocketReactor,
    protocol_factory: Callable[[], P],
    addresses: Sequence[Address],
    timeout: float | None,
    local_address: Address | None,
    tls: ssl.SSLContext | None,
    server_hostname: str | None,
    tls_timeout: float | None,
) -> Deferred[P]:
    """Connect to the first of `addresses` that answers, and give the stream to a protocol."""

    def dial_one(address: Address) -> Deferred[SocketStream]:
        try:
            connecting = open_socket(family_of(address[0]), socket.SOCK_STREAM)
        except OSError as error:
            return fail(error)
        try:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if local_address is not None:
                connecting.bind(local_address)
        except REFUSED as error:
            connecting.close()
            return fail(with_place(error, str(local_address)))
        return dial(reactor, connecting, address, f"{address[0]}:{address[1]}")

    def talk(stream: SocketStream) -> Deferred[P]:
        return establish(stream, protocol_factory, tls=tls, server_hostname=server_hostname, timeout=tls_timeout)

    stream = happy_eyeballs.connect(reactor, addresses, dial_one, SocketStream.abort, timeout=timeout)
    return stream.add_callback(talk)


def dial(reactor: SocketReactor, connecting: socket.socket, address: Any, place: str) -> Deferred[SocketStream]:
    """Connect a non-blocking socket; `place` is for the error. The socket is closed if that fails."""
    try:
        number = connecting.connect_ex(address)
    except REFUSED as error:
        connecting.close()
        return fail(with_place(error, place))
    if number == 0:
        return succeed(SocketStream(reactor, connecting, address))
    if number != errno.EINPROGRESS:
        connecting.close()
        return fail(OSError(number, f"{os.strerror(number)}: {place}"))

    def release() -> None:
        reactor.remove_writer(connecting.fileno())
        reactor.open_sockets.discard(connecting)

    def answered() -> None:
        release()
        number = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            connecting.close()
            deferred.errback(OSError(number, f"{os.strerror(number)}: {place}"))
        else:
            deferred.callback(SocketStream(reactor, connecting, address))

    def give_up(_: Deferred[SocketStream]) -> None:
        release()
        connecting.close()

    deferred: Deferred[SocketStream] = Deferred(give_up)
    reactor.open_sockets.add(connecting)
    reactor.add_writer(connecting.fileno(), answered)
    return deferred


def with_place(error: Exception, place: str) -> OSError:
    """The same error, telling where; Python's own refusal of an argument becomes EINVAL."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, f"{error.strerror}: {place}")
    return OSError(errno.EINVAL, f"{error}: {place}")
