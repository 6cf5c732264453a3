"""Protocols that note what happens to them."""

from __future__ import annotations

from typing import Any

from deferred.defer import Deferred
from deferred.protocol import Transport


class Note:
    """A stream protocol that writes down its calls, and fires Deferreds for what is waited for."""

    transport: Transport

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self.lost: Deferred[Exception | None] = Deferred()
        self.keep_half_open = False
        self.awaited: list[tuple[int, Deferred[bytes]]] = []

    def connection_made(self, transport: Transport) -> None:
        self.calls.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.calls[-1] != "data":
            self.calls.append("data")
        self.data += data
        ready = [d for size, d in self.awaited if len(self.data) >= size]
        self.awaited = [(size, d) for size, d in self.awaited if len(self.data) < size]
        for deferred in ready:
            deferred.callback(self.data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keep_half_open

    def connection_lost(self, error: Exception | None) -> None:
        self.calls.append("lost")
        self.error = error
        self.lost.callback(error)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def receive(self, size: int) -> Deferred[bytes]:
        """Fire with all that came once it is `size` octets."""
        deferred: Deferred[bytes] = Deferred()
        if len(self.data) >= size:
            deferred.callback(self.data)
        else:
            self.awaited.append((size, deferred))
        return deferred


class Echo(Note):
    """Sends back what comes."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


def collect(made: list[Any], kind: type[Note] = Note) -> Any:
    """A factory that keeps what it makes in `made`."""

    def make() -> Note:
        made.append(kind())
        return made[-1]

    return make
