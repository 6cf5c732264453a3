"""One connection to the web server: a request at a time, each within its time."""

from __future__ import annotations

from typing import Any, Protocol

import h11
import msgspec

from deferred.defer import Deferred
from deferred.failure import Failure, without_frames
from deferred.interfaces import Reactor, TimerHandle
from deferred.protocol import BaseProtocol, Transport
from service.web.exchange import Request, Response, plain, read_request, write_response


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the server one peer gets: octets of a request's head, and seconds.

    `request` is for a whole request's head from its first octet on, `idle` for a connection on which none has begun,
    `handler` for the making of an answer, `reading` for the peer to take it.
    """

    connections: int = 100
    head: int = 16 * 1024
    request: float = 10
    idle: float = 30
    handler: float = 20
    reading: float = 20


class Host(Protocol):
    """What a connection wants of its server."""

    reactor: Reactor
    limits: Limits
    closing: bool

    def admit(self, connection: Connection) -> bool:
        """Take a new connection; False if there is no room."""

    def touch(self, connection: Connection) -> None:
        """This one has just been served."""

    def forget(self, connection: Connection) -> None:
        """This one is gone."""

    def answer(self, request: Request) -> Deferred[Response]:
        """Fire with the answer to `request`."""


class Connection(BaseProtocol):
    """One connection: a request at a time, in turn.

    waiting -> answering -> waiting ..., then leaving: our side is finished, and the peer's octets are thrown away
    until it has closed too (closing at once would reset the connection under the answer).
    One timer is always set, so that no state lasts for ever.
    """

    waiting = False

    def __init__(self, server: Host) -> None:
        self._server = server
        self._http = self._codec()
        self._transport: Transport
        self._timer: TimerHandle | None = None
        self._begun = False  # the first octet of a request is here
        self._answering: Deferred[Any] | None = None
        self._leaving = False
        self._choked = False
        self._half_closed = False

    def _codec(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=self._server.limits.head)

    def connection_made(self, transport: Transport) -> None:
        """Somebody is there; perhaps there is room."""
        self._transport = transport
        if not self._server.admit(self):
            self.drop()
            return
        self.waiting = True
        self._within(self._server.limits.idle)

    def data_received(self, data: bytes) -> None:
        """Some of a request; thrown away once we are leaving."""
        if self._leaving:
            return
        if not self._begun:
            self._begin()
        self._feed(data)

    def _begin(self) -> None:
        self._begun = True
        self._within(self._server.limits.request)

    def eof_received(self) -> bool:
        """A peer that has asked may close its side and still read the answer."""
        if self._leaving:
            return False
        self._half_closed = True
        self._feed(b"")
        return not self.waiting

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (why it went, nobody asks)
        """The peer is gone: so is what it waited for."""
        self._leave()
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """The peer does not read; from here on neither do we."""
        self._choked = True

    def resume_writing(self) -> None:
        """It has read, and may ask again."""
        self._choked = False
        if self.waiting:
            self._transport.resume_reading()
            self._within(self._server.limits.idle)
            self._go_on()

    def shut(self) -> None:
        """The server closes: end what has not asked; what is being answered is let finish."""
        if self.waiting:
            self._leave()
            self._transport.close()
            self._within(self._server.limits.reading)

    def drop(self) -> None:
        """Close now, whatever is under way."""
        self._leave()
        self._transport.abort()

    def _leave(self) -> None:
        self.waiting = False
        self._leaving = True

    def _within(self, seconds: float) -> None:
        """Drop the connection unless its state changes within `seconds`."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._server.reactor.call_later(seconds, self._expired)

    def _expired(self) -> None:
        self._timer = None
        if self._answering is not None:
            self._within(self._server.limits.reading)
            self._answering.cancel()  # its errback answers 503
        elif self.waiting and self._begun:
            self._refuse(408)
        else:
            self.drop()

    def _feed(self, data: bytes) -> None:
        self._http.receive_data(data)
        if self.waiting:
            self._advance()

    def _advance(self) -> None:
        """Take the next request, if it is complete and the peer has read the answers before it."""
        if self._choked:
            return
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse(without_frames(error).error_status_hint)
            return
        if isinstance(event, h11.Request):
            self._take(event)
        elif isinstance(event, h11.ConnectionClosed):
            self._leave()
            self._transport.close()

    def _take(self, event: h11.Request) -> None:
        request = read_request(event)
        if "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0":
            # not read, so the connection ends with the answer
            refused = 413 if request.method in ("GET", "HEAD") else 405
            self._refuse(refused, request)
            return
        self._http.next_event()  # the end of a request without a body
        self.waiting = False
        self._begun = False
        self._transport.pause_reading()
        self._within(self._server.limits.handler)
        self._answering = answering = self._server.answer(request)
        answering.add_callback(self._send, request).add_both(self._answered)

    def _send(self, response: Response, request: Request) -> None:
        if self._leaving:
            return
        close = self._server.closing or self._half_closed
        self._write(response, request.method == "HEAD", close)

    def _answered(self, result: object) -> object:
        """Go on with the next request, or end."""
        self._answering = None
        if self._leaving:
            return result
        if isinstance(result, Failure):  # a slip of ours in encoding: the peer cannot be told any more
            self.drop()
            return result
        if self._http.our_state is h11.MUST_CLOSE:
            self._end()
            return None
        self._http.start_next_cycle()
        self._server.touch(self)
        self.waiting = True
        if self._choked:
            self._within(self._server.limits.reading)
        else:
            self._transport.resume_reading()
            self._within(self._server.limits.idle)
            # in a turn of its own: a thousand requests sent at once neither nest calls nor hold others up
            self._server.reactor.call_soon(self._go_on)
        return None

    def _go_on(self) -> None:
        """Take the next request, if some of it has come with the one before."""
        if self.waiting:
            if self._http.trailing_data[0] and not self._begun:
                self._begin()
            self._advance()

    def _refuse(self, status: int, request: Request | None = None) -> None:
        """Answer what cannot be understood or waited for, and end."""
        texts = {405: "only GET and HEAD are answered here", 408: "the request took too long", 413: "too much"}
        allow = (("Allow", "GET, HEAD"),) if status == 405 else ()
        self.waiting = False
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = plain(status, texts.get(status, "this is no request that can be answered"), *allow)
            self._write(answer, request is not None and request.method == "HEAD", True)
        self._end()

    def _end(self) -> None:
        self._leave()
        self._within(self._server.limits.reading)
        self._transport.resume_reading()  # to see the peer's end
        if self._half_closed or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()

    def _write(self, response: Response, head: bool, close: bool) -> None:
        events = write_response(response, self._server.reactor.wall_time(), head=head, close=close)
        self._transport.writelines([piece for event in events if (piece := self._http.send(event))])
