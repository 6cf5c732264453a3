"""TLS as a layer of a stream, by `ssl.MemoryBIO`: it sees octets, never a socket.

What the protocol writes is encrypted a piece at a time, as the wire takes it: a large message waits once, in the
protocol's own `bytes`, and not a second time encrypted. What the wire brings is decrypted whole, at most one read's
worth.

The end is guarded: each side says close_notify, and a stream that ends without one was cut short, perhaps by an
attacker (RFC 8446, 6.1), which `connection_lost` is told as `ssl.SSLEOFError`.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import Any, Protocol

from deferred.defer import Deferred
from deferred.failure import without_frames
from deferred.interfaces import TimerHandle, TimeSource

_READ = 256 * 1024
_BURST = 128 * 1024  # octets encrypted before the wire is asked to take them
_FAREWELL = 5.0  # seconds that the peer has to answer our close_notify


class Carrier(Protocol):
    """What the layer needs of its stream."""

    @property
    def backlog(self) -> bool:
        """Whether the wire has not taken all that was transmitted."""

    @property
    def reading_paused(self) -> bool:
        """Whether the protocol wants no data now."""

    def transmit(self, data: bytes) -> None:
        """Put octets on the wire."""

    def deliver(self, data: bytes) -> None:
        """Pass octets to the protocol."""

    def end(self) -> None:
        """The peer will send nothing more."""

    def lose(self, error: Exception | None) -> None:
        """Give the connection up."""

    def watch_reading(self) -> None:
        """Read the wire or leave it, as `wants_reading` says."""

    def finish_wire(self) -> None:
        """Send the end of the wire's stream."""


class TLSLayer:
    """The TLS of one stream."""

    def __init__(
        self,
        wire: Carrier,
        clock: TimeSource,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._wire = wire
        self._clock = clock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname, session=session
        )
        self._handshake: Deferred[None] | None = None  # while it lasts
        self._timer: TimerHandle | None = None  # of the handshake, then of the farewell
        self._pending: deque[memoryview] = deque()  # written by the protocol, not encrypted yet
        self.kept = 0  # octets in it
        self._closing = False
        self.notified = False  # our close_notify is on its way
        self._peer_done = False  # the peer's has come, or its end
        self._ended = False  # the wire will bring nothing more
        self._lost = False

    # -- the handshake

    def start(self, timeout: float | None) -> Deferred[None]:
        """Fire when the handshake is done."""
        deferred: Deferred[None] = Deferred(self._give_up)
        self._handshake = deferred
        if timeout is not None:
            error = TimeoutError(f"no TLS handshake within {timeout:g} s")
            self._timer = self._clock.call_later(timeout, self._wire.lose, error)
        self._shake()
        return deferred

    def _give_up(self, _: Deferred[None]) -> None:
        self._handshake = None  # it fails with CancelledError, not with what `lost` says
        self._wire.lose(None)

    def _shake(self) -> None:
        error: ssl.SSLError | None = None
        wants_more = False
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            wants_more = True
        except ssl.SSLError as failure:
            error = without_frames(failure)
        self._emit()  # with an error: an alert may tell the peer what it did wrong
        if wants_more:
            return
        if error is not None:
            self._wire.lose(error)
        elif not self._lost:
            self._cancel_timer()
            handshake, self._handshake = self._handshake, None
            if handshake is not None:
                handshake.callback(None)
            self._wire.watch_reading()
            self.pump()
            self.resume()

    def lost(self, error: Exception | None) -> None:
        """The stream has let go of the wire."""
        self._lost = True
        self._cancel_timer()
        self._pending.clear()
        self.kept = 0
        handshake, self._handshake = self._handshake, None
        if handshake is not None and not handshake.called:
            handshake.errback(error or ConnectionAbortedError("the connection was closed during the TLS handshake"))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- from the wire

    def feed(self, data: bytes) -> None:
        """Take octets that the wire brought."""
        self._incoming.write(data)
        if self._handshake is not None:
            self._shake()
        else:
            self.resume()

    def resume(self) -> None:
        """Decrypt what has come and pass it on, unless the protocol wants none."""
        if self._lost or self._handshake is not None or (self._wire.reading_paused and not self._closing):
            return
        pieces: list[bytes] = []
        error: ssl.SSLError | None = None
        ended = False
        try:
            while piece := self._object.read(_READ):
                pieces.append(piece)
            ended = True  # the peer's close_notify: the ssl module returns b"" for it, or raises
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as failure:
            error = without_frames(failure)
        self._emit()  # an answer to a KeyUpdate, or an alert
        if pieces and not self._closing:
            self._wire.deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if error is not None:
            self._wire.lose(None if self.notified else error)
        elif ended and not self._peer_done:
            self._peer_done = True
            if self._closing:
                self._leave()
            else:
                self._wire.end()
        elif self._ended and not self._peer_done:
            self._cut_short()
        elif self._pending:
            self.pump()  # it may have waited for what has just been read

    def wire_ended(self) -> None:
        """The wire's stream has ended; what came before may still wait here for a protocol that has paused."""
        self._ended = True
        if self._handshake is not None:
            self._wire.lose(ConnectionResetError("the peer hung up during the TLS handshake"))
        elif self._wire.reading_paused and not self._closing and not self._incoming.pending:
            if not self._peer_done:
                self._cut_short()
        else:
            self.resume()

    def _cut_short(self) -> None:
        """All has been read, and there was no close_notify."""
        if self._closing:
            self._peer_done = True
            self._leave()
        else:
            self._wire.lose(
                ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the stream ended without close_notify: it may have been cut short")
            )

    def wants_reading(self, paused: bool) -> bool:
        """Whether the wire should be read: through a handshake and a farewell also while the protocol is paused."""
        return not self._peer_done and (not paused or self._closing or self._handshake is not None)

    # -- from the protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send, as the wire takes it."""
        view = memoryview(data)
        if not view.readonly:
            view = memoryview(bytes(data))  # its owner may change it
        self._pending.append(view)
        self.kept += len(view)
        self.pump()

    def pump(self) -> None:
        """Encrypt what is pending for as long as the wire takes it."""
        if self._handshake is not None or self._lost:
            return
        try:
            while self._pending and not self._wire.backlog:  # losing the wire empties what is pending
                self._encrypt()
                self._emit()
        except ssl.SSLWantReadError:
            self._emit()  # a renegotiation (TLS 1.2): goes on when its answer has come
        except ssl.SSLError as error:
            self._wire.lose(without_frames(error))
            return
        if self._closing and not self._pending and not self.notified:
            self._notify()

    def _encrypt(self) -> None:
        """Encrypt up to a burst; what is left is sliced, not copied."""
        pending = self._pending
        burst = 0
        while pending and burst < _BURST:
            view = pending[0]
            written = self._object.write(view[: _BURST - burst])
            burst += written
            self.kept -= written
            if written == len(view):
                pending.popleft()
            else:
                pending[0] = view[written:]

    def _emit(self) -> None:
        if self._outgoing.pending:
            self._wire.transmit(self._outgoing.read())

    # -- the end

    def close(self) -> None:
        """Say close_notify once all is written, and wait a moment for the peer's.

        To hang up without reading what the peer still sends (session tickets, its close_notify) would reset the
        connection, and a reset may overtake our last octets.
        """
        if self._handshake is not None:
            self._wire.lose(None)
            return
        self._closing = True
        self.pump()

    def _notify(self) -> None:
        self.notified = True
        try:
            self._object.unwrap()
            self._peer_done = True
        except ssl.SSLError:
            pass  # ours is said; the peer's has not come, or there is data before it
        self._emit()
        if not self._wire.backlog:
            self.drained()

    def drained(self) -> None:
        """The wire has taken all that was transmitted."""
        if not self.notified or self._lost:
            return
        if self._peer_done:
            self._wire.lose(None)
        elif self._timer is None:
            self._wire.finish_wire()
            self._timer = self._clock.call_later(_FAREWELL, self._wire.lose, None)
            self.resume()

    def _leave(self) -> None:
        if self.notified and not self._wire.backlog:
            self._wire.lose(None)

    def info(self, name: str) -> Any:
        """ssl_object, sslcontext, peercert, cipher, compression; None for other names."""
        if name == "ssl_object":
            return self._object
        if name == "sslcontext":
            return self._object.context
        if self._handshake is not None:
            return None
        if name == "peercert":
            return self._object.getpeercert()
        if name == "cipher":
            return self._object.cipher()
        return self._object.compression() if name == "compression" else None
