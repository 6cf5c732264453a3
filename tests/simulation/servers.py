"""Simulated SMTP servers: they take mail in their own manner, and write down what they took and who heard of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from deferred.interfaces import Server, TimerHandle
from deferred.protocol import BaseProtocol, Transport
from deferred.testing import SimulatedReactor
from deferred.testing.network import SimulatedStream
from tests.simulation.books import Books, Mail, Report, Taking

PATIENCE = 600.0
"""Seconds after which a server gives up a client that says nothing."""

MISHAPS: dict[str, tuple[str, ...]] = {
    "greeting": ("421", "4xx", "5xx", "silent", "close", "reset", "garbage", "late", "drip"),
    "ehlo": ("421", "4xx", "5xx", "silent", "close", "reset", "garbage", "late"),
    "mail": ("421", "slow", "slow", "4xx", "5xx", "silent", "close", "reset", "garbage", "late"),
    "rcpt": ("421", "slow", "4xx", "4xx", "4xx", "5xx", "5xx", "close", "late"),
    "data": ("421", "4xx", "5xx", "silent", "close", "reset", "late"),
    "body": ("close", "reset", "deaf"),
    "bdat": ("unknown",),
    "chunk": ("421", "4xx", "5xx", "silent", "close", "reset", "late"),
    "confirm": (
        *("421", "slow", "4xx", "4xx", "5xx", "silent", "close", "reset"),
        *("taken, silent", "taken, close", "taken, reset", "taken, garbage", "taken, late", "taken, drip"),
    ),
    "quit": ("silent", "reset"),
}
_ENHANCED = {
    "4xx": "450 4.2.0 not now",
    "5xx": "550 5.7.1 no",
    "421": "421 4.3.2 going down",
    "slow": "450 4.7.0 too many messages from you, slow down",
    "garbage": "what?",
}
_IDLE = 3.0
"""Seconds of silence after which a client shall wait for a sign of life before it sends content, the way included."""
_TOKEN = re.compile(rb"X-Token: (\w+)")
_ABOUT = re.compile(rb"Final-Recipient: rfc822; (\S+)\r\nAction: (\w+)")
_MESSAGE_ID = re.compile(rb"Message-ID: (\S+)")


@dataclass
class MailServer:
    """A server at one address. `mishaps` is how often a step goes wrong (0 to 1), `gentle` one that refuses nobody."""

    machine: SimulatedReactor
    books: Books
    random: Random
    host: str
    mishaps: float = 0.0
    gentle: bool = False
    pipelining: bool = True
    chunking: bool = False
    troubled: bool = False
    """Whether the way to it has been in trouble: what was sent may have come at any time since."""
    watch: Callable[[MailServer, str, _Conversation], object] = lambda *_: None
    """Called at each step, with its word."""
    conversations: dict[_Conversation, None] = field(default_factory=dict)
    greylisted: dict[str, int] = field(default_factory=dict)
    _server: Server | None = None

    def boot(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = self.machine.create_server(lambda: _Conversation(self), self.host, 25)

    def crash(self) -> None:
        """Be gone, with every conversation."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for conversation in list(self.conversations):
            conversation.transport.abort()

    def mishap(self, step: str) -> str | None:
        """What goes wrong now, if anything does."""
        if self.mishaps == 0 or self.random.random() >= self.mishaps:
            return None
        kind = self.random.choice(MISHAPS[step])
        if self.gentle and kind == "5xx":
            kind = "4xx"
        self.books.faults[f"server: {kind} at {step}"] += 1
        return kind


class _Conversation(BaseProtocol):
    """One connection."""

    transport: Transport

    def __init__(self, server: MailServer) -> None:
        self.server = server
        self.buffer = b""
        self.said = 0
        self.deaf = False
        self.in_body = False
        self.chunk: tuple[int, bool] | None = None
        self.chunks: list[bytes] = []
        self.spoiled = False
        self.said_at = 0.0
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.messages = 0
        self.timer: TimerHandle | None = None

    @property
    def client(self) -> SimulatedStream:
        """The other end."""
        transport: Any = self.transport
        end: SimulatedStream = transport.link.client
        return end

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.server.conversations[self] = None
        self.timer = self.server.machine.call_later(PATIENCE, transport.abort)
        self.step("greeting", "220 mx.test ESMTP")

    def connection_lost(self, error: Exception | None) -> None:
        self.server.conversations.pop(self, None)
        self.deaf = True
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        assert self.timer is not None
        self.timer.reset(PATIENCE)
        self.check_silence(data)
        self.buffer += data
        self.go_on()

    def check_silence(self, data: bytes) -> None:
        """A connection that has been idle may be dead: the client shall not send content before it knows."""
        now, began = self.server.machine.time(), data.startswith(b"MAIL") and b"\r\nBDAT " in data
        if self.messages and began and now - self.said_at > _IDLE and not self.server.troubled:
            self.server.books.violated(now, f"content came at once after {now - self.said_at:.1f} s of silence")

    def go_on(self) -> None:
        while not self.deaf and (self.buffer or self.chunk):
            if not self.take_some():
                return

    def take_some(self) -> bool:
        if self.chunk is not None:
            return self.take_chunk(*self.chunk)
        return self.take_body() if self.in_body else self.take_line()

    # answering

    def step(self, step: str, usual: str) -> bool:
        """Answer, unless something goes wrong; True if all went as usual (or only late)."""
        self.server.watch(self.server, step, self)
        kind = self.server.mishap(step)
        if kind is None:
            self.say(usual)
            return True
        return self.go_wrong(kind, usual)

    def go_wrong(self, kind: str, usual: str) -> bool:
        match kind:
            case "4xx" | "5xx" | "slow":
                self.say(_ENHANCED[kind])
            case "421":
                self.say(_ENHANCED[kind])
                self.hang_up(self.transport.close)
            case "garbage":
                self.say(_ENHANCED[kind])
            case "close":
                self.hang_up(self.transport.close)
            case "reset":
                self.hang_up(self.transport.abort)
            case "silent":
                self.deaf = True
            case "deaf":
                self.deaf = True
                self.transport.pause_reading()
            case "late":
                self.deaf = True
                self.server.machine.call_later(self.server.random.uniform(0.5, 400.0), self.say_late, usual)
                return True
            case "drip":
                self.deaf = True
                self.drip(usual + "\r\n", self.server.random.uniform(0.1, 30.0))
                return True
        return False

    def hang_up(self, how: Callable[[], object]) -> None:
        self.deaf = True
        how()

    def say(self, text: str) -> None:
        data = text.encode() + b"\r\n"
        self.said += len(data)
        self.said_at = self.server.machine.time()
        self.transport.write(data)

    def say_late(self, text: str) -> None:
        if not self.transport.is_closing():
            self.say(text)
            self.deaf = False
            self.go_on()

    def drip(self, text: str, seconds: float) -> None:
        if self.transport.is_closing():
            return
        self.said += 1
        self.said_at = self.server.machine.time()
        self.transport.write(text[:1].encode())
        if len(text) > 1:
            self.server.machine.call_later(seconds, self.drip, text[1:], seconds)
        else:
            self.deaf = False
            self.go_on()

    # commands

    def take_line(self) -> bool:
        line, found, rest = self.buffer.partition(b"\r\n")
        if not found:
            return False
        self.buffer = rest
        text = line.decode(errors="replace")
        verb = text[:4].upper()
        if verb in ("EHLO", "HELO"):
            more = "250-PIPELINING\r\n" if self.server.pipelining and verb == "EHLO" else ""
            more += "250-CHUNKING\r\n" if self.server.chunking and verb == "EHLO" else ""
            self.step("ehlo", f"250-mx.test\r\n{more}250 8BITMIME" if verb == "EHLO" else "250 mx.test")
        elif verb == "MAIL":
            if self.spoiled:
                self.say("503 5.5.1 RSET first")
            elif self.step("mail", "250 2.1.0 ok"):
                self.sender, self.recipients = text.partition("<")[2].partition(">")[0], []
        elif verb == "RCPT":
            self.take_recipient(text.partition("<")[2].rpartition(">")[0])
        elif verb == "DATA":
            if not self.recipients:
                self.say("554 5.5.1 nobody to take it for")
            elif self.step("data", "354 go on"):
                self.in_body = True
        elif verb == "BDAT" and self.server.mishap("bdat") is None:
            _, size, *last = text.split(" ")
            self.chunk = int(size), bool(last)
        elif verb == "RSET":
            self.sender, self.recipients, self.chunks, self.spoiled = None, [], [], False
            self.say("250 2.0.0 ok")
        elif verb == "QUIT":
            if self.step("quit", "221 2.0.0 bye"):
                self.hang_up(self.transport.close)
        else:
            self.say("500 5.5.2 what?")
        return True

    def take_recipient(self, address: str) -> None:
        """`bad…` is nobody here, `grey…` comes back later (each of its messages twice)."""
        server = self.server
        if self.sender is None:
            self.say("503 5.5.1 MAIL first")
        elif address.startswith("bad"):
            self.say("550 5.1.1 nobody of this name")
        elif address.startswith("grey") and server.greylisted.get(address, 0) < 2:
            server.greylisted[address] = server.greylisted.get(address, 0) + 1
            self.say("450 4.7.1 greylisted")
        elif self.step("rcpt", "250 2.1.5 ok"):
            self.recipients.append(address)

    # content

    def take_body(self) -> bool:
        whole = b"\r\n" + self.buffer
        end = whole.find(b"\r\n.\r\n")
        kind = self.server.mishap("body") if len(self.buffer) > 200 and end < 0 else None
        if kind is not None:
            self.go_wrong(kind, "")
            return False
        if end < 0:
            return False
        content, self.buffer = whole[2 : end + 2], whole[end + 5 :]
        self.in_body = False
        self.finish((b"\r\n" + content).replace(b"\r\n..", b"\r\n.")[2:])
        return True

    def take_chunk(self, size: int, last: bool) -> bool:
        """Nothing is taken behind a chunk that was refused, or that nobody is to get, until RSET."""
        if len(self.buffer) < size:
            kind = self.server.mishap("body") if len(self.buffer) > 200 else None
            if kind is not None:
                self.go_wrong(kind, "")
            return False
        self.chunks.append(self.buffer[:size])
        self.buffer, self.chunk = self.buffer[size:], None
        if self.spoiled or not self.recipients:
            self.spoiled = True
            self.say("503 5.5.1 out of turn")
        elif last:
            content, self.chunks = b"".join(self.chunks), []
            self.finish(content)
        else:
            self.spoiled = not self.step("chunk", "250 2.0.0 ok")
        return True

    def finish(self, content: bytes) -> None:
        sender, recipients, self.sender, self.recipients = self.sender or "", self.recipients, None, []
        self.messages += 1
        self.server.watch(self.server, "confirm", self)
        kind = self.server.mishap("confirm")
        taken = kind is None or kind.startswith("taken")
        before = self.said
        usual = "250 2.0.0 taken"
        if kind is None:
            self.say(usual)
        else:
            self.go_wrong(kind.removeprefix("taken, "), usual)
        if taken:
            answers = kind in (None, "taken, late", "taken, drip")
            # a late answer comes behind all that was said before: nothing is said in between
            self.record(sender, recipients, content, before + len(usual) + 2 if answers else float("inf"))

    def record(self, sender: str, recipients: list[str], content: bytes, answer_end: float) -> None:
        server, books = self.server, self.server.books
        now = server.machine.time()
        found = _TOKEN.search(content)
        token = found[1].decode() if found else "?"
        if b"\r\nAuto-Submitted: auto-replied\r\n" in content:
            about = _ABOUT.findall(content)
            name = _MESSAGE_ID.search(content)
            books.trace(now, "report taken", {"token": token, "about": about})
            books.reports.append(
                Report(token, str(name and name[1]), about[0][1].decode(), tuple(each[0].decode() for each in about))
            )
            return
        books.trace(now, "taken", {"token": token, "recipients": recipients, "host": server.host})
        life = books.life_of(self.client.machine)
        for recipient in recipients:
            books.takings.append(Taking(token, recipient, now, life, self.client, answer_end, server.host))
        self.check_hour(books.mail.get(token), now)

    def check_hour(self, mail: Mail | None, now: float) -> None:
        wall = self.client.machine.wall_time()
        if mail is not None and mail.not_before is not None and wall < mail.not_before - 0.1:
            self.server.books.violated(now, f"{mail.token} was sent {mail.not_before - wall:.3f} s before its time")
