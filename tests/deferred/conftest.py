"""Two worlds for one set of tests: sockets on the real reactor, and streams in memory."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme

from deferred.defer import Deferred
from deferred.reactor import Reactor
from deferred.testing import MemoryReactor
from tests.deferred.transports import Note, collect


@dataclass
class World:
    """A reactor, and how to wait on it."""

    reactor: Any
    wait: Callable[[Deferred[Any]], Any]

    def connect(self, client: type[Note] = Note, server: type[Note] = Note, **tls: Any) -> tuple[Note, Note]:
        """A client and a server that are connected; `client_tls`, `server_tls` and `server_hostname` for TLS."""
        made: list[Note] = []
        listening = self.reactor.create_server(collect(made, server), "127.0.0.1", 0, tls=tls.pop("server_tls", None))
        one = self.wait(
            self.reactor.create_connection(client, [listening.address], tls=tls.pop("client_tls", None), **tls)
        )
        listening.close()
        while not made:
            self.turn()
        return one, made[0]

    def turn(self, count: int = 1) -> None:
        """Let the reactor turn."""
        done: Deferred[None] = Deferred()
        self.reactor.call_later(0.001 * count, done.callback, None)
        self.wait(done)


@pytest.fixture(params=["sockets", "memory"])
def world(request: pytest.FixtureRequest, errors: list[Exception]) -> Iterator[World]:
    """Each test runs in both."""
    if request.param == "memory":
        memory = MemoryReactor(on_error=errors.append, latency=0.0001)
        yield World(memory, memory.run)
    else:
        reactor = Reactor(on_error=errors.append)
        yield World(reactor, lambda deferred: reactor.run_until_complete(deferred, 10))
        reactor.close()


@dataclass
class Certificates:
    """Contexts for both sides, of one authority."""

    ca: trustme.CA
    client: ssl.SSLContext
    server: ssl.SSLContext


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Keys are dear: one authority for all tests."""
    return trustme.CA()


@pytest.fixture(scope="session")
def leaf(authority: trustme.CA) -> trustme.LeafCert:
    """A certificate for mx.example."""
    return authority.issue_cert("mx.example")


@pytest.fixture
def certificates(authority: trustme.CA, leaf: trustme.LeafCert) -> Certificates:
    """Contexts of each test's own, as tests change them."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(server)
    return Certificates(authority, client, server)
