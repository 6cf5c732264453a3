"""Datagrams in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deferred.interfaces import Address
from deferred.protocol import DatagramProtocol

if TYPE_CHECKING:
    from deferred.testing.reactor import MemoryReactor


class MemoryDatagrams:
    """A socket for datagrams on a `MemoryReactor`: a `deferred.protocol.DatagramTransport`."""

    def __init__(
        self, reactor: MemoryReactor, address: Address, remote: Address | None, protocol: DatagramProtocol
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._remote = remote
        self.protocol = protocol

    def sendto(self, data: bytes, address: tuple[str, int] | None = None) -> None:
        """Send one datagram; it is lost if nobody is there."""
        target = address or self._remote
        if target is None:
            raise ValueError("no address to send to")
        self._reactor.carry(data, self._address, target)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """peername, sockname."""
        return {"sockname": self._address, "peername": self._remote}.get(name) or default

    def close(self) -> None:
        """Stop receiving. `connection_lost(None)` follows."""
        if self._reactor.datagrams.get(self._address) is self:
            del self._reactor.datagrams[self._address]
            self._reactor.call_soon(self.protocol.connection_lost, None)
