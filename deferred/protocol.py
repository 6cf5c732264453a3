"""What a transport and a protocol are to each other, in asyncio's words.

A transport calls its protocol in this order, and in no other:

    connection_made -> data_received* -> eof_received? -> connection_lost

`pause_writing` and `resume_writing` come in between, in turn. A protocol that raises loses its connection.
"""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from deferred.defer import Deferred


class Transport(Protocol):
    """A stream of octets to a peer, both ways."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, keeping what does not go out at once. Ignored after `close` or a lost connection."""

    def writelines(self, pieces: list[bytes]) -> None:
        """Send several pieces in one go."""

    def write_eof(self) -> None:
        """Send the end of our stream once all is written; we can still receive. Not under TLS."""

    def can_write_eof(self) -> bool:
        """Whether `write_eof` works here."""

    def close(self) -> None:
        """Close once all is written (under TLS: after our close_notify). `connection_lost(None)` follows."""

    def abort(self) -> None:
        """Close at once; what is not written is lost."""

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""

    def pause_reading(self) -> None:
        """No `data_received` until `resume_reading`."""

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        """Call `pause_writing` above `high` octets kept, `resume_writing` at or below `low` (a quarter of `high`)."""

    def get_write_buffer_size(self) -> int:
        """Octets kept, not yet given to the system."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """asyncio's names: peername, sockname, socket; under TLS ssl_object, peercert (dict), cipher, compression."""

    def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        timeout: float | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Deferred[None]:
        """Put TLS on the stream from the next octet on; the protocol stays the same.

        `session` is one of a former connection under the same context, to be resumed if the peer still knows it: its
        certificate is not verified again then.

        Fires when the handshake is done. Fails with `ssl.SSLError`, `ssl.SSLCertVerificationError`, `TimeoutError`
        after `timeout` seconds, `ConnectionError`, and with `ValueError` or what else the ssl module raises for a
        `server_hostname` that is no name; the connection is then lost. Fails with `BufferedOctetsError` if octets had
        arrived that the peer sent before the handshake.
        """


class StreamProtocol(Protocol):
    """What a stream's user implements; `deferred.protocol.BaseProtocol` has empty methods to start from."""

    def connection_made(self, transport: Transport) -> None:
        """The stream is there."""

    def data_received(self, data: bytes) -> None:
        """Some octets came."""

    def eof_received(self) -> bool | None:
        """The peer will send nothing more. Return True to keep our half open; else the transport closes."""

    def connection_lost(self, error: Exception | None) -> None:
        """The stream is gone: None after our close or the peer's EOF, else why. Called once, last."""

    def pause_writing(self) -> None:
        """The transport keeps more than its high-water mark."""

    def resume_writing(self) -> None:
        """It has drained."""


class BaseProtocol:
    """A `StreamProtocol` that does nothing."""

    def connection_made(self, transport: Transport) -> None:
        """The stream is there."""

    def data_received(self, data: bytes) -> None:
        """Some octets came."""

    def eof_received(self) -> bool | None:
        """The peer will send nothing more."""
        return None

    def connection_lost(self, error: Exception | None) -> None:
        """The stream is gone."""

    def pause_writing(self) -> None:
        """The transport keeps more than its high-water mark."""

    def resume_writing(self) -> None:
        """It has drained."""


class DatagramTransport(Protocol):
    """A UDP socket."""

    def sendto(self, data: bytes, address: tuple[str, int] | None = None) -> None:
        """Send one datagram; dropped if the system's buffer is full, as the network may drop it."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """peername, sockname, socket."""

    def close(self) -> None:
        """Stop receiving. `connection_lost(None)` follows."""


class DatagramProtocol(Protocol):
    """What a UDP socket's user implements."""

    def connection_made(self, transport: DatagramTransport) -> None:
        """The socket is there."""

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """One datagram came."""

    def error_received(self, error: OSError) -> None:
        """An earlier datagram was refused."""

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed."""


class BufferedOctetsError(ConnectionError):
    """The peer sent octets in the clear that would have been read as if TLS had protected them."""
