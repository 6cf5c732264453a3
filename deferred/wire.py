"""The way out of a stream: a wire that takes what it can, and a buffer for the rest.

Writing is tried at once; only after a short write is the wire watched. What waits is kept as it was given, and sliced
where the wire took a part of it, so that nothing is copied over and over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

from deferred.interfaces import TimeSource

Octets = bytes | bytearray | memoryview

PIECES = 64
"""Of one gathered write."""


class Host(TimeSource, Protocol):
    """What a stream needs of its reactor."""

    on_error: Callable[[Exception], object]


class BufferedWire(ABC):
    """Moves octets by what a subclass says, and keeps those that do not go out at once."""

    __slots__ = ("_broken", "_buffer", "_host", "_kept", "_lost")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._buffer: deque[Octets] | None = None  # made by the first short write: many streams never have one
        self._kept = 0  # octets in it
        self._lost = False  # the wire is let go
        self._broken: OSError | None = None  # why the wire takes no more octets

    # -- the wire itself

    @abstractmethod
    def _send(self, data: Octets) -> int:
        """Give octets to the wire, tell how many it took (0: none at present). Raises `OSError`."""

    @abstractmethod
    def _send_many(self, pieces: Sequence[Octets]) -> int:
        """The same for several pieces."""

    @abstractmethod
    def _receive(self) -> bytes | None:
        """What the wire has brought; `b""` is its end, None that there is nothing yet. Raises `OSError`."""

    @abstractmethod
    def _has_received(self) -> bool:
        """Whether octets have arrived that were not received yet."""

    @abstractmethod
    def _watch(self, reading: bool | None = None, writing: bool | None = None) -> None:
        """Call `_readable` or `_writable` when the wire is; None leaves it as it is."""

    @abstractmethod
    def _finish(self) -> None:
        """Send the end of our stream."""

    @abstractmethod
    def _release(self, reset: bool) -> None:
        """Let go of the wire; with `reset` so that the peer sees a reset, not an end."""

    @abstractmethod
    def _wire_info(self, name: str) -> Any:
        """peername, sockname, socket; None for what it does not know."""

    @abstractmethod
    def _write_failed(self, error: OSError) -> None:
        """The wire takes nothing any more."""

    # -- the buffer

    def transmit(self, data: Octets) -> None:
        """Put octets on the wire, under any TLS; for the stream and its TLS layer."""
        if self._lost or self._broken:
            return
        if not self._buffer:
            try:
                sent = self._send(data)
            except OSError as error:
                self._write_failed(error)
                return
            if sent == len(data):
                return
            if sent:
                data = memoryview(data)[sent:]
        self._keep(data)

    def _keep(self, data: Octets) -> None:
        if not self._buffer:
            if self._buffer is None:
                self._buffer = deque()
            self._watch(writing=True)
        if type(data) is bytearray or (type(data) is memoryview and not data.readonly):
            data = bytes(data)  # its owner may change it
        self._buffer.append(data)
        self._kept += len(data)

    def _flush(self) -> bool:
        """Offer the wire what is kept; False if it failed."""
        buffer = self._buffer
        if not buffer:
            return True
        try:
            sent = self._send_many(list(islice(buffer, PIECES))) if len(buffer) > 1 else self._send(buffer[0])
        except OSError as error:
            self._write_failed(error)
            return False
        self._kept -= sent
        while sent:
            size = len(buffer[0])
            if size > sent:
                buffer[0] = memoryview(buffer[0])[sent:]
                break
            buffer.popleft()
            sent -= size
        return True

    def _discard(self) -> None:
        if self._buffer:
            self._buffer.clear()
        self._kept = 0

    @property
    def backlog(self) -> bool:
        """Whether the wire has not taken all that was transmitted."""
        return bool(self._buffer)
