"""Streams in memory: real `Stream`s, over a wire that is two lists.

A wire has a direction, a latency, and a window: octets sent and not yet read, as the buffers of two sockets hold them.
What is beyond the window is not taken, so that flow control works as it does over TCP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from deferred.protocol import StreamProtocol
from deferred.stream import Stream
from deferred.wire import Host, Octets

_READ = 64 * 1024
WINDOW = 256 * 1024


class Wire:
    """One direction of a stream: what was sent and not yet read."""

    def __init__(self, host: Host, latency: float, window: int) -> None:
        self.host = host  # whose time it takes
        self.latency = latency
        self.window = window
        self.sender: MemoryStream | None = None
        self.receiver: MemoryStream | None = None
        self.underway: deque[bytes | OSError] = deque()  # b"" is the end, an error a reset
        self.arrived: deque[bytes | OSError] = deque()
        self.size = 0
        self.stalled = False

    def send(self, data: Octets) -> int:
        """Take what there is room for."""
        taken = bytes(memoryview(data)[: max(0, self.window - self.size)])
        if taken:
            self.size += len(taken)
            self.put(taken)
        return len(taken)

    def put(self, item: bytes | OSError) -> None:
        """Send something on its way; things arrive in their order."""
        self.underway.append(item)
        if not self.stalled:
            self.host.call_later(self.delay(), self._arrive)

    def resume(self) -> None:
        """Let what a stall held back go on."""
        if self.stalled:
            self.stalled = False
            for _ in range(len(self.underway)):
                self.host.call_later(self.delay(), self._arrive)

    def delay(self) -> float:
        """Seconds that what is sent now takes."""
        return self.latency

    def _arrive(self) -> None:
        if self.stalled or not self.underway:
            return
        self.arrived.append(self.underway.popleft())  # a reset leaves what came before it to be read, as on Linux
        if self.receiver is not None:
            self.receiver.notice()

    def read(self) -> bytes | None:
        """Up to one read's worth; b"" at the end, None if there is nothing yet. Raises the reset."""
        if not self.arrived:
            return None
        first = self.arrived[0]
        if isinstance(first, OSError):
            raise first
        if not first:
            return b""
        pieces, size = [], 0
        while self.arrived and size < _READ:
            piece = self.arrived[0]
            if isinstance(piece, OSError) or not piece:
                break
            self.arrived.popleft()
            if size + len(piece) > _READ:
                self.arrived.appendleft(piece[_READ - size :])
                piece = piece[: _READ - size]
            pieces.append(piece)
            size += len(piece)
        self.size -= size
        if self.sender is not None:
            self.sender.notice()
        return b"".join(pieces)


class MemoryStream(Stream):
    """One end of a stream in memory.

    `lose(error)` breaks it at this end (the other sees a reset); `stall()` lets nothing that this end sends arrive any
    more, until `unstall()`.
    """

    __slots__ = ("_inbox", "_info", "_notice_due", "_outbox", "_watches_reading", "_watches_writing")

    def __init__(self, host: Host, inbox: Wire, outbox: Wire, info: dict[str, Any]) -> None:
        super().__init__(host)
        self._inbox = inbox
        self._outbox = outbox
        self._info = info
        self._watches_reading = False
        self._watches_writing = False
        self._notice_due = False
        inbox.receiver = self
        outbox.sender = self

    def stall(self) -> None:
        """Let nothing that this end has sent or sends arrive any more."""
        self._outbox.stalled = True

    def unstall(self) -> None:
        """Undo `stall`."""
        self._outbox.resume()

    def notice(self) -> None:
        """Something has changed on a wire: look at it in the next turn, as a poller would."""
        if not self._notice_due and self._is_ready():
            self._notice_due = True
            self._host.call_soon(self._look)

    def _is_ready(self) -> bool:
        room = self._outbox.size < self._outbox.window or self._hung_up()
        return (self._watches_reading and bool(self._inbox.arrived)) or (self._watches_writing and room)

    def _hung_up(self) -> bool:
        return bool(self._inbox.arrived) and isinstance(self._inbox.arrived[-1], OSError)

    def _look(self) -> None:
        self._notice_due = False
        if self._watches_reading and self._inbox.arrived:
            self._readable()
        if self._watches_writing and (self._outbox.size < self._outbox.window or self._hung_up()):
            self._writable()
        self.notice()

    def _send(self, data: Octets) -> int:
        if self._hung_up():
            raise BrokenPipeError("the peer has reset the connection")
        return self._outbox.send(data)

    def _send_many(self, pieces: Sequence[Octets]) -> int:
        return self._send(b"".join(pieces))

    def _receive(self) -> bytes | None:
        return self._inbox.read()

    def _has_received(self) -> bool:
        return bool(self._inbox.arrived) and isinstance(self._inbox.arrived[0], bytes) and self._inbox.arrived[0] != b""

    def _watch(self, reading: bool | None = None, writing: bool | None = None) -> None:
        if reading is not None:
            self._watches_reading = reading
        if writing is not None:
            self._watches_writing = writing
        self.notice()

    def _finish(self) -> None:
        self._outbox.put(b"")

    def _release(self, reset: bool) -> None:
        unread = any(self._inbox.arrived)
        self._inbox.receiver = self._outbox.sender = None
        if reset or unread:  # as a socket does that is closed with octets unread
            self._outbox.put(ConnectionResetError("the peer has reset the connection"))
        elif not self._eof_out:
            self._outbox.put(b"")
        self._inbox.size = -(1 << 62)  # nobody reads it, nobody minds
        if self._inbox.sender is not None:
            self._inbox.host.call_later(self._inbox.delay(), self._inbox.sender.notice)

    def _wire_info(self, name: str) -> Any:
        return self._info.get(name)


def memory_stream_pair(
    host: Host,
    *,
    latency: float = 0.0,
    window: int = WINDOW,
    client_address: tuple[str, int] = ("192.0.2.1", 50_000),
    server_address: tuple[str, int] = ("192.0.2.2", 25),
) -> tuple[MemoryStream, MemoryStream]:
    """Two streams, connected to each other, that have no protocols yet (see `Stream.begin`)."""
    there, back = Wire(host, latency, window), Wire(host, latency, window)
    client = MemoryStream(host, back, there, {"sockname": client_address, "peername": server_address})
    server = MemoryStream(host, there, back, {"sockname": server_address, "peername": client_address})
    return client, server


def memory_transport_pair(
    host: Host,
    client: StreamProtocol,
    server: StreamProtocol,
    *,
    latency: float = 0.0,
    window: int = WINDOW,
) -> tuple[MemoryStream, MemoryStream]:
    """Connect two protocols in memory, on a `Clock` or a reactor. `latency` is seconds one way, `window` octets.

    `connection_made` has run for both, the server's first, when this returns. Raises what it raised.
    """
    ends = memory_stream_pair(host, latency=latency, window=window)
    for stream, protocol in zip(reversed(ends), (server, client), strict=True):
        error = stream.begin(protocol)
        if error is not None:
            raise error
    return ends
