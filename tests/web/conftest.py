"""A visitor to the web server: its connection, octet by octet, in virtual time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from deferred.testing import Clock
from service.journal import Journal
from service.web.connection import Limits
from service.web.exchange import Handler
from service.web.server import WebServer


class Visitor:
    """One connection: the transport that the server sees, and what the peer got."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.received = b""
        self.end: str | None = None  # how our connection ended: "closed", "aborted"
        self.saw_eof = False
        self.reading = True
        self.kept: list[bytes] = []
        self.protocol = net.factory()
        self.protocol.connection_made(self)

    # the transport

    def write(self, data: bytes) -> None:
        if self.end is None and not self.saw_eof:
            self.received += data

    def writelines(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.saw_eof = True

    def close(self) -> None:
        self._ends("closed")

    def abort(self) -> None:
        self._ends("aborted")

    def _ends(self, how: str) -> None:
        if self.end is None:
            self.end = how
            self.net.call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    # the peer

    def send(self, data: bytes | str) -> Visitor:
        assert self.end is None, f"the connection is {self.end}"
        self.protocol.data_received(data if isinstance(data, bytes) else data.replace("\n", "\r\n").encode())
        self.net.advance(0)
        self.net.advance(0)
        return self

    def ask(self, path: str = "/page", method: str = "GET", extra: str = "") -> Visitor:
        return self.send(f"{method} {path} HTTP/1.1\nHost: deferd.test\n{extra}\n")

    def eof(self) -> None:
        if not self.protocol.eof_received():
            self.close()
        self.net.advance(0)

    @property
    def statuses(self) -> list[int]:
        return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.received)]

    @property
    def head(self) -> str:
        return self.received.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]


class Net(Clock):
    """A reactor with a clock of ours, on which one server listens."""

    factory: Callable[[], Any]
    listening = False

    def create_server(self, factory: Callable[[], Any], host: str, port: int) -> Net:
        self.factory = factory
        self.listening = True
        return self

    def close(self) -> None:
        self.listening = False


class House:
    """A web server, whoever visits it, and what its journal heard."""

    def __init__(self, handlers: dict[str, Handler], limits: Limits | None = None) -> None:
        self.net = Net()
        self.events: list[tuple[str, dict[str, object]]] = []
        journal = Journal(lambda event, facts: self.events.append((event, facts)))
        self.server = WebServer(self.net, handlers, journal, limits)  # type: ignore[arg-type]
        self.server.listen("127.0.0.1", 0)

    def visit(self) -> Visitor:
        return Visitor(self.net)


@pytest.fixture(scope="session")
def house() -> type[House]:
    """To be called with handlers and limits."""
    return House
