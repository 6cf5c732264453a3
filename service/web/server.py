"""A small HTTP/1.1 server for looking at the daemon: GET and HEAD of a few fixed paths, answered from memory.

Whoever connects is bounded in time and memory: a request's head has a size limit and an absolute deadline that single
octets do not renew, an answer that nobody reads is dropped, and of too many connections the one that has waited
longest without asking makes room. Requests have no body here. The codec is h11's, the sockets are the reactor's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any, Final

import h11
import msgspec

from deferred.defer import CancelledError, Deferred, succeed
from deferred.failure import Failure
from deferred.interfaces import Reactor, Server, TimerHandle
from deferred.protocol import BaseProtocol, Transport
from service.journal import Journal

_SECURITY: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_NOTHING_ELSE: Final = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")

_ABSOLUTE: Final = re.compile(r"(?i)https?://[^/?#]*")


class Request(msgspec.Struct, frozen=True):
    """What was asked for. `path` is as it stood in the request, without the query; header names are lower-case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}


class Response(msgspec.Struct, frozen=True):
    """What is answered. A Content-Security-Policy that forbids everything is added where `headers` has none."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response | Deferred[Response]]


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


class WebServer:
    """Answers GET and HEAD for the paths of `handlers`.

    A handler that fails is answered with 500, without details, and told to the journal as `unhandled_error`.
    """

    def __init__(
        self, reactor: Reactor, handlers: Mapping[str, Handler], journal: Journal, limits: Limits | None = None
    ) -> None:
        self.reactor = reactor
        self.limits = limits or Limits()
        self.closing = False
        self._handlers = handlers
        self._journal = journal
        self._servers: list[Server] = []
        self._connections: dict[_Connection, None] = {}  # in the order of their last change: the first waited longest
        self._gone: list[Deferred[None]] = []

    def listen(self, host: str, port: int) -> Server:
        """Listen on a numeric address; port 0 takes a free one. Raises `OSError`."""
        server = self.reactor.create_server(lambda: _Connection(self), host, port)
        self._servers.append(server)
        return server

    def close(self, grace: float = 2) -> Deferred[None]:
        """Accept nothing more, finish what is being answered, for `grace` seconds at most; fire when all are gone."""
        self.closing = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self._connections):
            connection.shut()
        if not self._connections:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        timer = self.reactor.call_later(grace, self._drop_all)
        return gone.add_both(lambda _: timer.cancel())

    def _drop_all(self) -> None:
        for connection in list(self._connections):
            connection.drop()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def answer(self, request: Request) -> Deferred[Response]:
        """Fire with the answer to `request`, whatever its handler does."""
        handler = self._handlers.get(request.path)
        if request.method not in ("GET", "HEAD"):
            return succeed(plain(405, "only GET and HEAD are answered here", ("Allow", "GET, HEAD")))
        if handler is None:
            return succeed(plain(404, "there is nothing here"))
        return succeed(request).add_callback(handler).add_errback(self._report, request)

    def _report(self, failure: Failure, request: Request) -> Response:
        if failure.check(CancelledError):
            return plain(503, "this took too long")
        self._journal.tell("unhandled_error", where=f"http {request.path}", error=failure.get_traceback())
        return plain(500, "this failed; the log says why")

    def admit(self, connection: _Connection) -> bool:
        """Take a new connection, at the cost of the one that has waited longest; False if there is none to drop."""
        if self.closing:
            return False
        if len(self._connections) >= self.limits.connections:
            oldest = next((other for other in self._connections if other.waiting), None)
            if oldest is None:
                return False
            self.forget(oldest)
            oldest.drop()
        self._connections[connection] = None
        return True

    def touch(self, connection: _Connection) -> None:
        """This one has just been served: it is the last to be dropped."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def forget(self, connection: _Connection) -> None:
        """This one is gone."""
        self._connections.pop(connection, None)
        if not self._connections:
            gone, self._gone = self._gone, []
            for d in gone:
                d.callback(None)


def plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A line of text."""
    return Response(status, f"{text}\n".encode(), headers=headers)


class _Connection(BaseProtocol):
    """One connection: a request at a time, in turn.

    waiting -> answering -> waiting ..., then leaving: our side is finished, and the peer's octets are thrown away
    until it has closed too (closing at once would reset the connection under the answer).
    One timer is always set, so that no state lasts for ever.
    """

    waiting = False

    def __init__(self, server: WebServer) -> None:
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
        self._transport = transport
        if not self._server.admit(self):
            self.drop()
            return
        self.waiting = True
        self._within(self._server.limits.idle)

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            return
        if not self._begun and not self._choked:
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
        self._leave()
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._server.forget(self)

    def pause_writing(self) -> None:
        self._choked = True  # nothing more is read from a peer that does not read

    def resume_writing(self) -> None:
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
            self._refuse(error.error_status_hint)
            return
        if isinstance(event, h11.Request):
            self._take(event)
        elif isinstance(event, h11.ConnectionClosed):
            self._leave()
            self._transport.close()

    def _take(self, event: h11.Request) -> None:
        request = _request(event)
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
        self._transport.writelines(self._encode(response, request.method == "HEAD", close))

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
        if self.waiting and not self._choked:
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
            self._transport.writelines(self._encode(answer, request is not None and request.method == "HEAD", True))
        self._end()

    def _end(self) -> None:
        self._leave()
        self._within(self._server.limits.reading)
        self._transport.resume_reading()  # to see the peer's end
        if self._half_closed or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()

    def _encode(self, response: Response, head: bool, close: bool) -> list[bytes]:
        headers = [
            ("Date", formatdate(self._server.reactor.wall_time(), usegmt=True)),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *_SECURITY,
            *response.headers,
        ]
        if not any(name == _NOTHING_ELSE[0] for name, _ in response.headers):
            headers.append(_NOTHING_ELSE)
        if close:
            headers.append(("Connection", "close"))
        pieces = [self._http.send(h11.Response(status_code=response.status, headers=headers))]
        if response.body and not head:
            pieces.append(self._http.send(h11.Data(data=response.body)))
        pieces.append(self._http.send(h11.EndOfMessage()))
        return [piece for piece in pieces if piece]


def _request(event: h11.Request) -> Request:
    target = event.target.decode("latin-1")
    if not target.startswith("/"):
        target = _ABSOLUTE.sub("", target) or "/"  # which a server has to take as well (RFC 9112, 3.2.2)
    path, _, query = target.partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
    return Request(event.method.decode("latin-1"), path, query, headers)
