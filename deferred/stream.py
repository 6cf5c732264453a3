"""A stream transport: everything about it but how octets travel.

`Stream` keeps the grammar of `deferred.protocol`, pauses and resumes both ways, closes, half-closes and aborts, and
carries TLS. What moves octets is a subclass: a socket (`deferred.tcp`), or memory (`deferred.testing`), so that both
behave alike, and the tests in memory say something about the wire.

Writing is tried at once, and the wire is watched only after a short write. Of the calls into the protocol, only
`pause_writing` may come from inside a call that the protocol makes; `connection_lost` comes in a later turn.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from deferred.defer import Deferred, fail
from deferred.failure import without_frames
from deferred.protocol import BufferedOctetsError, StreamProtocol
from deferred.tls import TLSLayer
from deferred.wire import PIECES, BufferedWire, Host, Octets

_HIGH_WATER = 64 * 1024
_RECORD = 16 * 1024  # octets that fit one TLS record
_LAST_WORDS = 64  # reads after a failed write, see _write_failed


class Stream(BufferedWire):
    """A `deferred.protocol.Transport` without a wire."""

    __slots__ = (
        "_closing",
        "_eof_in",
        "_eof_out",
        "_high",
        "_low",
        "_protocol",
        "_protocol_paused",
        "_reading_paused",
        "_tls",
    )

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._protocol: StreamProtocol | None = None  # until connection_made
        self._high = _HIGH_WATER
        self._low = _HIGH_WATER // 4
        self._closing = False  # closed, aborted or lost
        self._eof_in = False  # the wire will bring nothing more
        self._eof_out = False  # our end of stream is asked for; sent once all is written
        self._reading_paused = False
        self._protocol_paused = False  # pause_writing was called
        self._tls: TLSLayer | None = None

    # -- the wire calls

    def _readable(self) -> None:
        """The wire has something. Read once: other streams have their turn too."""
        try:
            data = self._receive()
        except OSError as error:
            self.lose(without_frames(error))
            return
        if data is None:
            return
        if data:
            if self._tls is None:
                self.deliver(data)
            else:
                self._tls.feed(data)
        else:
            self._eof_in = True
            self._watch(reading=False)
            if self._tls is None:
                self.end()
            else:
                self._tls.wire_ended()

    def _writable(self) -> None:
        """The wire takes octets again."""
        if not self._flush():
            return
        if not self._buffer and self._tls is not None:
            self._tls.pump()  # which may fill the buffer again
        if not self._buffer and not self._lost:
            self._watch(writing=False)
            self._drained()
        self._tell_room()

    # -- beginning

    def begin(self, protocol: StreamProtocol) -> Exception | None:
        """Give the stream to its protocol. Returns what `connection_made` raised; the stream is then lost."""
        self._protocol = protocol
        try:
            protocol.connection_made(self)
        except Exception as error:  # noqa: BLE001 - the protocol's fault is its connection's end, not ours
            self.lose(error)
            return error
        self.watch_reading()
        if self._tls is not None:
            self._tls.resume()
        return None

    # -- writing

    def write(self, data: Octets) -> None:
        """Send, keeping what does not go out at once. Raises `RuntimeError` after `write_eof`."""
        if self._closing:
            return
        if self._eof_out:
            raise RuntimeError("write after write_eof")
        if type(data) is memoryview:
            data = data.cast("B")
        if not data:
            return
        if self._tls is None:
            self.transmit(data)
        else:
            self._tls.write(data)
        if self._kept > self._high or self._tls is not None:
            self._tell_full()

    def writelines(self, pieces: Sequence[bytes]) -> None:
        """Send several pieces in one go."""
        if self._closing or self._broken:
            return
        if self._eof_out:
            raise RuntimeError("write after write_eof")
        if self._tls is not None:
            few = sum(map(len, pieces)) <= _RECORD
            for piece in [b"".join(pieces)] if few else pieces:
                self.write(piece)
            return
        sent = 0
        if not self._buffer:
            try:
                sent = self._send_many(pieces[:PIECES])
            except OSError as error:
                self._write_failed(error)
                return
        for piece in pieces:
            size = len(piece)
            if sent >= size:
                sent -= size
            else:
                self._keep(memoryview(piece)[sent:] if sent else piece)
                sent = 0
        self._tell_full()

    def _write_failed(self, error: OSError) -> None:
        """The wire takes nothing any more; what the peer said before it hung up is still worth reading.

        A server that says 421 and closes makes our next write fail while its reply waits unread.
        """
        without_frames(error)
        # our close_notify alone, refused, is no loss: the peer hung up before it came
        harmless = self._tls is not None and self._tls.notified and not self._buffer
        self._discard()
        self._watch(writing=False)
        if self._closing:
            self.lose(None if harmless else error)
        elif self._broken is None:
            self._broken = error
            self._host.call_soon(self._last_words, error)

    def _last_words(self, error: OSError) -> None:
        for _ in range(_LAST_WORDS):
            if self._lost or self._closing or self._eof_in or self._reading_paused:
                break
            try:
                data = self._receive()
            except OSError:
                break
            if not data:
                break
            if self._tls is None:
                self.deliver(data)
            else:
                self._tls.feed(data)
        self.lose(error)

    def _drained(self) -> None:
        """All that was written is on the wire."""
        if self._tls is not None:
            self._tls.drained()
        elif self._closing:
            self.lose(None)
        elif self._eof_out:
            self._finish()
            if self._eof_in:
                self.lose(None)

    def write_eof(self) -> None:
        """Send the end of our stream once all is written. Raises `RuntimeError` under TLS."""
        if self._tls is not None:
            raise RuntimeError("TLS has no half-close")
        if not self._closing and not self._eof_out:
            self._eof_out = True
            if not self._buffer:
                self._drained()

    def can_write_eof(self) -> bool:
        """Whether `write_eof` works: not under TLS."""
        return self._tls is None

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        """Call `pause_writing` above `high` octets kept, `resume_writing` at or below `low` (a quarter of `high`)."""
        low = high // 4 if low is None else low
        if not 0 <= low <= high:
            raise ValueError(f"low ({low}) must be between 0 and high ({high})")
        self._high, self._low = high, low
        self._tell_full()
        self._tell_room()

    def get_write_buffer_size(self) -> int:
        """Octets kept, not yet given to the system."""
        return self._kept if self._tls is None else self._kept + self._tls.kept

    def finish_wire(self) -> None:
        """Send the end of the wire's stream, after close_notify; for the TLS layer."""
        if not self._lost and not self._broken:
            self._finish()

    def _tell_full(self) -> None:
        if not self._protocol_paused and not self._closing and self.get_write_buffer_size() > self._high:
            self._protocol_paused = True
            self._call_protocol("pause_writing")

    def _tell_room(self) -> None:
        if self._protocol_paused and not self._closing and self.get_write_buffer_size() <= self._low:
            self._protocol_paused = False
            self._call_protocol("resume_writing")

    # -- reading

    def pause_reading(self) -> None:
        """No `data_received` until `resume_reading`."""
        if not self._reading_paused:
            self._reading_paused = True
            self.watch_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._reading_paused:
            self._reading_paused = False
            self.watch_reading()
            if self._tls is not None:
                self._host.call_soon(self._tls.resume)

    @property
    def reading_paused(self) -> bool:
        """Whether the protocol wants no data now; it has none before `connection_made` either."""
        return self._reading_paused or self._protocol is None

    def watch_reading(self) -> None:
        """Read the wire or leave it, as the protocol and TLS want."""
        if self._tls is not None:
            wanted = self._tls.wants_reading(self.reading_paused)
        else:
            wanted = not self._closing and not self._reading_paused and self._protocol is not None
        self._watch(reading=wanted and not self._lost and not self._eof_in)

    def deliver(self, data: bytes) -> None:
        """Pass octets to the protocol."""
        if self._closing or self._protocol is None:
            return
        try:
            self._protocol.data_received(data)
        except Exception as error:  # noqa: BLE001 - the protocol's fault is its connection's end, not ours
            self._protocol_raised(error)

    def end(self) -> None:
        """The peer will send nothing more: ask the protocol whether to keep our half open."""
        if self._closing or self._protocol is None:
            return
        if not self._call_protocol("eof_received") or self._tls is not None:
            self.close()
        elif self._eof_out and not self._buffer:
            self.lose(None)

    def _call_protocol(self, name: str) -> Any:
        try:
            return getattr(self._protocol, name)()
        except Exception as error:  # noqa: BLE001 - the protocol's fault is its connection's end, not ours
            self._protocol_raised(error)

    def _protocol_raised(self, error: Exception) -> None:
        self.lose(error)
        self._host.on_error(error)

    # -- ending

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def close(self) -> None:
        """Close once all is written (under TLS: after our close_notify).

        `connection_lost(None)` follows if all went out.
        """
        if self._closing:
            return
        self._closing = True
        if self._tls is not None:
            self._tls.close()
            self.watch_reading()
        else:
            self._watch(reading=False)
            if not self._buffer:
                self.lose(self._broken)  # not all that was written went out

    def abort(self) -> None:
        """Close at once, with a reset: what is not written is lost, and the peer knows that it is not all."""
        self.lose(None, reset=True)

    def lose(self, error: Exception | None, *, reset: bool = False) -> None:
        """Let go of the wire now, and tell the protocol in the next turn. The first call counts."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._discard()
        self._watch(reading=False, writing=False)
        self._release(reset)
        if self._tls is not None:
            self._tls.lost(error)
        self._host.call_soon(self._say_lost, error)

    def _say_lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)
        self._tls = None  # it is large, and in a cycle with the stream

    # -- TLS, and looking

    def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        timeout: float | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Deferred[None]:
        """Put TLS on the stream from the next octet on; see `deferred.protocol.Transport.start_tls`.

        Octets in the clear that come before the handshake are an attack on whoever would read them as protected
        (STARTTLS injection). Those that came in one read with the reply to STARTTLS went to `data_received`: only the
        protocol can tell that they are too many. Those that arrived since are found here, as the client speaks first
        under TLS. Any later ones are no TLS records, and make the handshake fail. A server cannot look like this,
        since the client's first TLS record may be what has come; there, too, nothing that is read from here on
        reaches the protocol but through TLS.
        """
        if self._tls is not None:
            return fail(RuntimeError("the stream has TLS already"))
        if self._closing or self._eof_in or self._eof_out:
            return fail(ConnectionAbortedError("the connection is closed"))
        if not server_side and self._has_received():
            error = BufferedOctetsError("the peer sent octets in the clear before the TLS handshake")
            self.lose(error)
            return fail(error)
        try:
            self._tls = TLSLayer(
                self, self._host, context, server_side=server_side, server_hostname=server_hostname, session=session
            )
        except Exception as error:  # noqa: BLE001 - ssl has several for a name or a context that cannot be used
            self.lose(error)
            return fail(error)
        self._watch(reading=True)
        return self._tls.start(timeout)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """asyncio's names: peername, sockname, socket; under TLS ssl_object, peercert (dict), cipher, compression."""
        info = self._tls.info(name) if self._tls is not None else None
        if info is None:
            info = self._wire_info(name)
        return default if info is None else info
