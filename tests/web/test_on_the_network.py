"""The web server on the real reactor, seen by clients that are not ours, and by ours."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deferred.defer import Deferred, gather_results
from deferred.reactor import Reactor
from deferred.web import HTTPError, get_page
from service.journal import Journal
from service.web.connection import Limits
from service.web.exchange import Request, Response
from service.web.server import WebServer, cannot_listen


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    errors: list[Exception] = []
    reactor = Reactor(on_error=errors.append)
    yield reactor
    reactor.close()
    assert errors == []


@pytest.fixture
def serve(reactor: Reactor) -> Iterator[Callable[..., int]]:
    """Start a server of these handlers, and tell its port."""
    servers: list[WebServer] = []

    def start(handlers: dict[str, Any], limits: Limits | None = None) -> int:
        server = WebServer(reactor, handlers, Journal(), limits)
        servers.append(server)
        port: int = server.listen("127.0.0.1", 0).address[1]
        return port

    yield start
    for server in servers:
        reactor.run_until_complete(server.close(), 20)


def test_where_nothing_can_be_served_the_address_is_told_once(reactor: Reactor, serve: Callable[..., int]) -> None:
    """With what to do about it."""
    port = serve({})
    with pytest.raises(OSError, match="in use") as caught:
        WebServer(reactor, {}, Journal()).listen("127.0.0.1", port)
    remedy = "end what listens there (`ss -ltnp` shows it), or choose another port"
    assert cannot_listen(f"127.0.0.1:{port}", caught.value) == f"127.0.0.1:{port}: address already in use; {remedy}"
    with pytest.raises(OSError, match="192") as caught:
        WebServer(reactor, {}, Journal()).listen("192.0.2.1", port)
    assert cannot_listen("192.0.2.1:1", caught.value).endswith("; choose an address of this machine")


def page(request: Request) -> Response:
    return Response(200, request.path.encode() * 10_000)


def test_our_own_client_reads_it(reactor: Reactor, serve: Callable[..., int]) -> None:
    """A hundred at once, and one that is not there."""
    port = serve({"/page": page})
    pages = [get_page(f"http://127.0.0.1:{port}/page", reactor=reactor) for _ in range(90)]
    assert reactor.run_until_complete(gather_results(pages), 20) == [b"/page" * 10_000] * 90
    with pytest.raises(HTTPError):
        reactor.run_until_complete(get_page(f"http://127.0.0.1:{port}/nowhere", reactor=reactor), 20)


def in_thread(reactor: Reactor, function: Callable[..., Any], *args: Any) -> Any:
    return reactor.run_until_complete(reactor.defer_to_thread(function, *args), 30)


def test_the_standard_library_reads_it_over_one_connection(reactor: Reactor, serve: Callable[..., int]) -> None:
    """GET, HEAD and GET again, kept alive."""
    port = serve({"/page": page})

    def visit() -> list[tuple[int, int]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        seen = []
        local = None
        for method, path in (("GET", "/page"), ("HEAD", "/page"), ("GET", "/nowhere"), ("GET", "/page")):
            connection.request(method, path)
            response = connection.getresponse()
            seen.append((response.status, len(response.read())))
            assert connection.sock is not None
            local = local or connection.sock.getsockname()
            assert connection.sock.getsockname() == local
        connection.close()
        return seen

    assert in_thread(reactor, visit) == [(200, 50_000), (200, 0), (404, 22), (200, 50_000)]


def test_a_refusal_reaches_a_peer_that_is_still_sending(reactor: Reactor, serve: Callable[..., int]) -> None:
    """The 413 is read although a megabyte was sent that nobody wanted: no reset on top of it."""
    port = serve({"/page": page})

    def visit() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            peer.sendall(b"GET /page HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            peer.sendall(b"x" * 1_000_000)
            peer.shutdown(socket.SHUT_WR)
            received = b""
            while piece := peer.recv(65536):
                received += piece
            return received

    assert in_thread(reactor, visit).startswith(b"HTTP/1.1 413 ")


def test_a_peer_that_shuts_its_side_gets_its_answer(reactor: Reactor, serve: Callable[..., int]) -> None:
    """Also where the answer takes a while."""

    def slow(_: Request) -> Deferred[Response]:
        answer: Deferred[Response] = Deferred()
        reactor.call_later(0.05, answer.callback, Response(200, b"slow"))
        return answer

    port = serve({"/slow": slow})

    def visit() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            peer.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            peer.shutdown(socket.SHUT_WR)
            received = b""
            while piece := peer.recv(65536):
                received += piece
            return received

    received = in_thread(reactor, visit)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"slow")
