"""A small HTTP/1.1 server for looking at the daemon: GET and HEAD of a few fixed paths, answered from memory.

Whoever connects is bounded in time and memory: a request's head has a size limit and an absolute deadline that single
octets do not renew, an answer that nobody reads is dropped, and of too many connections the one that has waited
longest without asking makes room. Requests have no body here. The codec is h11's, the sockets are the reactor's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from deferred.defer import CancelledError, Deferred, succeed
from deferred.failure import Failure
from deferred.interfaces import Reactor, Server
from service.journal import Journal
from service.web.connection import Connection, Limits
from service.web.exchange import Handler, Request, Response, plain

_REMEDIES: Final = {
    errno.EADDRINUSE: "end what listens there (`ss -ltnp` shows it), or choose another port",
    errno.EACCES: "choose a port from 1024 on",
    errno.EADDRNOTAVAIL: "choose an address of this machine",
}


def cannot_listen(place: str, error: OSError) -> str:
    """Why nothing can be served at `place`, which is told once, and what to do about it."""
    why = os.strerror(error.errno).lower() if error.errno else str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{place}: {why}; {remedy}" if remedy else f"{place}: {why}"


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
        self._connections: dict[Connection, None] = {}  # in the order of their last change: the first waited longest
        self._gone: list[Deferred[None]] = []

    def listen(self, host: str, port: int) -> Server:
        """Listen on a numeric address; port 0 takes a free one. Raises `OSError`."""
        server = self.reactor.create_server(lambda: Connection(self), host, port)
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

    def admit(self, connection: Connection) -> bool:
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

    def touch(self, connection: Connection) -> None:
        """This one has just been served: it is the last to be dropped."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def forget(self, connection: Connection) -> None:
        """This one is gone."""
        self._connections.pop(connection, None)
        if not self._connections:
            gone, self._gone = self._gone, []
            for d in gone:
                d.callback(None)
