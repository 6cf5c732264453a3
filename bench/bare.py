"""One epoll loop in Python that does nothing for a message but read it and send it: the upper bound.

No queue, no deadlines, no errors but one (anything unexpected ends it), no log: just connections that are kept, each
with as few round trips as the server allows. With CHUNKING a message is one write. With PIPELINING the end of a message
and the next envelope are one write, and the next body follows its 354. With neither each command waits for the reply to
the one before: that is no bound, but the loop that one writes first.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Final

from bench.mail import SENDER
from bench.task import Task
from bench.wrong import Wrong

Step = Callable[[bytes], bytes]

_READ_AT_ONCE: Final = 65536
_MAIL: Final = f"MAIL FROM:<{SENDER}>\r\n".encode()


class Connection:
    """A conversation: `left` replies are to come until the next step."""

    __slots__ = ("chunking", "left", "letters", "number", "out", "pipelining", "socket", "step", "task")

    def __init__(self, task: Task, number: int) -> None:
        self.task = task
        self.letters = iter(task.share(number))
        self.number = 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(task.addresses[number % len(task.addresses)])
        self.out = b""
        self.chunking = self.pipelining = False
        self.step: Step = self.say_hello
        self.left = 1

    def say_hello(self, _: bytes) -> bytes:
        """The greeting has come."""
        self.step = self.begin
        self.left = 1
        return b"EHLO bench.example\r\n"

    def begin(self, heard: bytes) -> bytes:
        """EHLO is answered."""
        self.chunking = b"CHUNKING" in heard
        self.pipelining = b"PIPELINING" in heard
        return self.next()

    def next(self, _: bytes = b"") -> bytes:
        """The message before is taken: the next one, or leave."""
        number = next(self.letters, None)
        if number is None:
            self.step = self.leave
            self.left += 1
            return b"QUIT\r\n"
        self.number = number
        if not self.pipelining:
            self.step = self.name_recipient
            self.left += 1
            return _MAIL
        envelope = _MAIL + self.recipient()
        self.left += 3
        if self.chunking:
            content = self.task.content(number)
            self.step = self.next
            return b"%sBDAT %d LAST\r\n%s" % (envelope, len(content), content)
        self.step = self.give
        return envelope + b"DATA\r\n"

    def recipient(self) -> bytes:
        """The command that names it."""
        return b"RCPT TO:<%s>\r\n" % self.task.mail.recipient(self.number).encode()

    def name_recipient(self, _: bytes) -> bytes:
        """MAIL is answered, and RCPT could not be sent along."""
        self.step = self.ask
        self.left = 1
        return self.recipient()

    def ask(self, _: bytes) -> bytes:
        """RCPT is answered, and DATA could not be sent along."""
        self.step = self.give
        self.left = 1
        return b"DATA\r\n"

    def give(self, _: bytes) -> bytes:
        """354: the body, and behind it whatever may come next."""
        content = self.task.content(self.number).replace(b"\r\n.", b"\r\n..") + b".\r\n"
        self.left = 1
        if self.pipelining:
            return content + self.next()
        self.step = self.next
        return content

    def leave(self, _: bytes) -> bytes:
        """QUIT is answered."""
        self.socket.close()
        return b""

    def readable(self) -> bool:
        """Take what has come, and answer; True at the end."""
        heard = self.socket.recv(_READ_AT_ONCE)
        if not heard or not heard.endswith(b"\n"):
            raise Wrong(f"the sink broke off: {heard!r}")
        for line in heard.split(b"\r\n")[:-1]:
            if line[0] not in b"23":
                raise Wrong(f"the sink said {line!r}")
            if line[3:4] == b" ":
                self.left -= 1
        if self.left == 0:
            self.out += self.step(heard)
        return self.socket.fileno() < 0

    def write(self) -> bool:
        """Write what there is; True if some is left."""
        try:
            self.out = self.out[self.socket.send(self.out) :]
        except BlockingIOError:
            return True
        return bool(self.out)


def send(task: Task) -> None:
    """Do the task. Raises `Wrong` where the server does anything but take it."""
    connections: dict[int, Connection] = {}
    try:
        with select.epoll() as epoll:
            for number in range(task.connections):
                connection = Connection(task, number)
                connections[connection.socket.fileno()] = connection
                epoll.register(connection.socket.fileno(), select.EPOLLIN)
            _converse(epoll, connections)
    finally:
        for connection in connections.values():
            connection.socket.close()


def _converse(epoll: select.epoll, connections: dict[int, Connection]) -> None:
    watched: set[int] = set()  # those that have more to write than the system takes at once
    while connections:
        for fd, mask in epoll.poll():
            connection = connections[fd]
            if mask & select.EPOLLIN and connection.readable():
                del connections[fd]
                continue
            full = bool(connection.out) and connection.write()
            if full != (fd in watched):
                epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if full else 0))
                watched ^= {fd}
