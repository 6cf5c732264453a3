"""Our server and our client on the simulated reactor: nothing of either needs a real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deferred.defer import Deferred, gather_results
from deferred.failure import Failure
from deferred.protocol import BaseProtocol, Transport
from deferred.testing import MemoryReactor
from deferred.web import BrokenAnswer, get_page
from service.journal import Journal
from service.web.connection import Limits
from service.web.exchange import Request, Response
from service.web.server import WebServer

URL = "http://127.0.0.1:8025"


class World:
    """A network on which something takes 50 ms one way, with a server on it."""

    def __init__(self) -> None:
        self.reactor = MemoryReactor(latency=0.05)
        self.made: list[str] = []

    def serve(self, limits: Limits | None = None, **handlers: Callable[[Request], Any]) -> WebServer:
        paths = {f"/{name}": handler for name, handler in handlers.items()}
        server = WebServer(self.reactor, paths, Journal(), limits)
        server.listen("127.0.0.1", 8025)
        return server

    def big(self, request: Request) -> Response:
        self.made.append(request.query)
        return Response(200, b"x" * 1_000_000)


@pytest.fixture
def world() -> World:
    return World()


def test_a_page_takes_its_round_trips(world: World) -> None:
    """One for the connection, one for the request."""
    world.serve(page=lambda _: Response(200, b"hello"))
    results: list[object] = []
    get_page(f"{URL}/page", reactor=world.reactor).add_both(results.append)
    world.reactor.advance(0.19)
    assert results == []
    world.reactor.advance(0.02)
    assert results == [b"hello"]


def test_large_pages_come_whole_and_together(world: World) -> None:
    """Twenty megabytes through small windows, and nothing is left when all is read."""
    server = world.serve(big=world.big)
    results: list[Any] = []
    gather_results([get_page(f"{URL}/big", reactor=world.reactor) for _ in range(20)]).add_both(results.append)
    world.reactor.advance(20)
    assert results == [[b"x" * 1_000_000] * 20]
    assert server.connections == 0
    assert world.reactor.pending == 0


class Deaf(BaseProtocol):
    """A peer that asks fifty times and reads nothing until it is told to."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = False

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        transport.pause_reading()
        transport.write(b"".join(b"GET /big?%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))

    def data_received(self, data: bytes) -> None:
        self.received += len(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


def test_answers_do_not_pile_up_for_a_peer_that_does_not_read(world: World) -> None:
    """The second is not made before the first is taken; and the peer has only so long to take it."""
    server = world.serve(Limits(reading=20), big=world.big)
    deaf = Deaf()
    world.reactor.create_connection(lambda: deaf, [("127.0.0.1", 8025)])
    world.reactor.advance(19)
    assert world.made == ["0"]
    assert server.connections == 1
    world.reactor.advance(2)
    assert world.made == ["0"]
    assert server.connections == 0


def test_a_peer_that_reads_after_all_gets_all_its_answers(world: World) -> None:
    """In time, and in order."""
    world.serve(Limits(reading=20, idle=100), big=world.big)
    deaf = Deaf()
    world.reactor.create_connection(lambda: deaf, [("127.0.0.1", 8025)])
    world.reactor.advance(15)
    deaf.transport.resume_reading()
    world.reactor.advance(75)
    assert world.made == [str(n) for n in range(50)]
    assert deaf.received > 50_000_000
    assert not deaf.lost
    deaf.transport.write(b"GET /big?once-more HTTP/1.1\r\nHost: x\r\n\r\n")
    world.reactor.advance(5)
    assert world.made[-1] == "once-more"
    assert deaf.received > 51_000_000


def test_a_server_that_closes_among_an_answer_fails_the_page(world: World) -> None:
    """close() with no grace cuts what is under way; the client sees that it is not whole."""
    server = world.serve(never=lambda _: Deferred())
    results: list[Any] = []
    get_page(f"{URL}/never", reactor=world.reactor).add_both(results.append)
    world.reactor.advance(1)
    server.close(grace=0)
    world.reactor.advance(1)
    (result,) = results
    assert isinstance(result, Failure)
    assert result.check(BrokenAnswer, ConnectionResetError)


def test_a_network_that_stalls_is_given_up(world: World) -> None:
    """The timeout is virtual too; the server is rid of the peer in the end."""
    server = world.serve(big=world.big)
    results: list[Any] = []
    get_page(f"{URL}/big", reactor=world.reactor, timeout=30).add_both(results.append)
    world.reactor.advance(0.12)
    world.reactor.connections[0].stall()
    world.reactor.advance(31)
    (result,) = results
    assert isinstance(result, Failure)
    assert result.check(TimeoutError)
    world.reactor.advance(60)
    assert server.connections == 0
