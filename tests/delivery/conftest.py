"""A room for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deferred.testing import MemoryReactor
from tests.delivery.room import HOST, PORT, Room
from tests.fakes.smtp_server import SMTPServer


@pytest.fixture
def reactor() -> MemoryReactor:
    return MemoryReactor()


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """How content goes to the server: by DATA, or by BDAT; tests for both are parametrised with `BOTH_DIALECTS`."""
    return str(getattr(request, "param", "DATA"))


@pytest.fixture
def server(reactor: MemoryReactor, dialect: str) -> SMTPServer:
    """The server of `mx.test`."""
    reactor.names["mx.test"] = [HOST]
    server = SMTPServer(reactor).listen(HOST, PORT)
    if dialect == "BDAT":
        server.extensions += ("CHUNKING",)
    return server


@pytest.fixture
def room(reactor: MemoryReactor, server: SMTPServer) -> Iterator[Room]:
    """A room whose every bug shows: nothing may be told as unhandled."""
    made = Room(reactor, server)
    yield made
    assert made.told("unhandled_error") == []
