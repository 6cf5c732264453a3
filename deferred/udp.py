"""Datagrams over UDP."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from deferred.interfaces import Address
from deferred.protocol import DatagramProtocol
from deferred.tcp import SocketReactor, family_of, open_socket

_LARGEST = 65_535
_DATAGRAMS = 32  # received in one turn


class DatagramEndpoint:
    """A UDP socket: a `deferred.protocol.DatagramTransport`."""

    def __init__(self, reactor: SocketReactor, bound: socket.socket, protocol: DatagramProtocol) -> None:
        self._reactor = reactor
        self._socket = bound
        self._protocol = protocol
        self._closed = False
        reactor.open_sockets.add(bound)

    def sendto(self, data: bytes, address: tuple[str, int] | None = None) -> None:
        """Send one datagram; dropped if the system's buffer is full, as the network may drop it.

        Without `address` it goes to the `remote_address` that the socket was made with. An earlier datagram's refusal,
        and one of this, go to `error_received`.
        """
        if self._closed:
            return
        try:
            if address is None:
                self._socket.send(data)
            else:
                family_of(address[0])
                self._socket.sendto(data, address)
        except BlockingIOError:
            pass
        except OSError as error:
            self._reactor.call_soon(self._refused, error)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """peername, sockname, socket."""
        if name == "socket":
            return self._socket
        with contextlib.suppress(OSError):
            if name == "sockname":
                return self._socket.getsockname()
            if name == "peername":
                return self._socket.getpeername()
        return default

    def close(self) -> None:
        """Stop receiving. `connection_lost(None)` follows."""
        if not self._closed:
            self._closed = True
            self._reactor.remove_reader(self._socket.fileno())
            self._reactor.open_sockets.discard(self._socket)
            self._socket.close()
            self._reactor.call_soon(self._protocol.connection_lost, None)

    def begin(self) -> None:
        """Call `connection_made`, and receive from then on."""
        self._reactor.add_reader(self._socket.fileno(), self._readable)
        try:
            self._protocol.connection_made(self)
        except Exception:
            self.close()
            raise

    def _readable(self) -> None:
        for _ in range(_DATAGRAMS):
            if self._closed:
                return
            try:
                data, address = self._socket.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError as error:
                self._refused(error)
                return
            self._protocol.datagram_received(data, address[:2])

    def _refused(self, error: OSError) -> None:
        if not self._closed:
            self._protocol.error_received(error)


def endpoint(
    reactor: SocketReactor,
    protocol_factory: Callable[[], DatagramProtocol],
    local_address: Address | None,
    remote_address: Address | None,
) -> DatagramEndpoint:
    """A UDP socket, of the family of either address (IPv4 without any). Raises `OSError`."""
    some = local_address or remote_address
    family = socket.AF_INET if some is None else family_of(some[0])
    bound = open_socket(family, socket.SOCK_DGRAM)
    try:
        if local_address is not None:
            bound.bind(local_address)
        if remote_address is not None:
            family_of(remote_address[0])
            bound.connect(remote_address)
    except OSError:
        bound.close()
        raise
    transport = DatagramEndpoint(reactor, bound, protocol_factory())
    transport.begin()
    return transport
