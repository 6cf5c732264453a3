"""SMTP servers that mean harm: raw sockets and threads, so that nothing well-behaved stands between them and deferd.

    with Hostile(greeting=flood(b"220-more\\r\\n")) as server: ...

A server answers as usual, a command at a time, but for the `odd` words it is given: greeting, ehlo, starttls, auth,
mail, rcpt, data, body, dot, rset, quit. Each is octets to say instead, or a function of the conversation. With `once`
only the first connection is odd.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from tests.fakes.process import PATIENCE

USUAL: Final = {
    "greeting": b"220 mx.test\r\n",
    "ehlo": b"250 mx.test\r\n",
    "starttls": b"220 go ahead\r\n",
    "auth": b"235 welcome\r\n",
    "mail": b"250 sender ok\r\n",
    "rcpt": b"250 recipient ok\r\n",
    "data": b"354 go ahead\r\n",
    "body": b"",
    "dot": b"250 taken\r\n",
    "rset": b"250 ok\r\n",
    "quit": b"221 bye\r\n",
}
HUNDRED_MB: Final = 100_000_000


class Over(Exception):
    """The conversation is at its end."""


@dataclass
class Conversation:
    """One connection, as its server has it."""

    socket: socket.socket
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    heard: list[str] = field(default_factory=list)
    said: int = 0
    messages: int = 0
    _buffer: bytes = b""

    def say(self, octets: bytes) -> None:
        """Send; `Over` where the client has gone."""
        try:
            self.socket.sendall(octets)
        except OSError as error:
            raise Over from error
        self.said += len(octets)

    def line(self) -> str:
        """The client's next line; `Over` at the end."""
        while b"\n" not in self._buffer:
            try:
                more = self.socket.recv(1 << 16)
            except OSError as error:
                raise Over from error
            if not more:
                raise Over
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r").decode("latin-1")

    def wait_for_the_end(self) -> None:
        """Read until the client has gone."""
        while True:
            self.line()


Odd = bytes | Callable[[Conversation], None]


def silence(talk: Conversation) -> None:
    """Say nothing, but go on reading."""
    talk.wait_for_the_end()


def deaf(talk: Conversation) -> None:
    """Say nothing and read nothing: the window closes. Over only when the server is closed."""
    talk.socket.settimeout(None)
    with contextlib.suppress(OSError):
        while talk.socket.fileno() >= 0 and not _is_reset(talk.socket):
            time.sleep(0.02)
    raise Over


def _is_reset(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def hang_up(talk: Conversation) -> None:
    """Close without a word."""
    raise Over


def reset(talk: Conversation) -> None:
    """Cut the connection."""
    talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raise Over


def drip(octets: bytes, seconds: float = 0.05) -> Callable[[Conversation], None]:
    """Say it an octet at a time, over and over."""

    def say(talk: Conversation) -> None:
        while True:
            for octet in octets:
                talk.say(bytes((octet,)))
                time.sleep(seconds)

    return say


def flood(piece: bytes, before: bytes = b"", octets: int = HUNDRED_MB) -> Callable[[Conversation], None]:
    """Say `before`, and then the piece again and again: a hundred megabytes of it."""

    def say(talk: Conversation) -> None:
        block = piece * max(1, (1 << 15) // len(piece))
        talk.say(before + block)  # in one, so that nothing of ours can come in between
        while talk.said < octets:
            talk.say(block)

    return say


class Hostile:
    """A server on a free port of the loopback."""

    def __init__(self, *, once: bool = False, **odd: Odd) -> None:
        self.conversations: list[Conversation] = []
        self._once = once
        self._odd = odd
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            talk = Conversation(connection)
            odd = self._odd if not (self._once and self.conversations) else {}
            self.conversations.append(talk)
            thread = threading.Thread(target=self._serve, args=(talk, odd))
            self._threads.append(thread)
            thread.start()

    def _serve(self, talk: Conversation, odd: dict[str, Odd]) -> None:
        def answer(word: str) -> None:
            what = odd.get(word, USUAL.get(word, b"500 what?\r\n"))
            if isinstance(what, bytes):
                talk.say(what)
            else:
                what(talk)

        try:
            answer("greeting")
            while True:
                self._one_command(talk, answer)
        except Over:
            pass
        finally:
            talk.ended = time.monotonic()
            talk.socket.close()

    def _one_command(self, talk: Conversation, answer: Callable[[str], None]) -> None:
        line = talk.line()
        talk.heard.append(line)
        word = line.partition(" ")[0].lower()
        answer("ehlo" if word == "helo" else word)
        if word == "quit":
            raise Over
        if word == "data":
            answer("body")
            while talk.line() != ".":
                pass
            talk.messages += 1
            answer("dot")

    @property
    def messages(self) -> int:
        """Messages whose final dot has come, on all connections."""
        return sum(talk.messages for talk in self.conversations)

    def __enter__(self) -> Hostile:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        for talk in self.conversations:
            with contextlib.suppress(OSError):
                talk.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
