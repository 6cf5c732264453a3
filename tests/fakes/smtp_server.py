"""An SMTP server to be told what to do: it runs on whatever reactor it is given, and does as its script says.

    server = SMTPServer(reactor).listen("192.0.2.1", 25)
    server.on("rcpt", "450 4.2.0 greylisted")      # the first RCPT; the next ones are answered as usual
    server.always("connect", SILENT)               # every connection

Script words are: connect, ehlo, helo, starttls, tls, auth, mail, rcpt, rcpt:ADDRESS, data, body, chunk, confirm, rset,
noop, quit.
`connect` is the greeting, `tls` the handshake after 220 to STARTTLS, `resumed` what follows a handshake that resumed a
session, `body` the first octets of content (what is said then is the answer, if BDAT brought them), `chunk` the answer
to a BDAT, `confirm` that to the final dot or to the last BDAT. BDAT is taken whether `extensions` has CHUNKING or not.
"""

from __future__ import annotations

import base64
import ssl
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Final

from deferred.interfaces import Reactor, Server
from deferred.protocol import BaseProtocol, Transport


@dataclass(frozen=True)
class Do:
    """Something else than an answer."""

    what: str


CLOSE: Final = Do("close")
"""Close the connection in good order, without a word."""

RESET: Final = Do("reset")
"""Cut the connection."""

SILENT: Final = Do("silent")
"""Say nothing, ever."""

STALL: Final = Do("stall")
"""Say nothing, and read nothing any more."""

PROCEED: Final = Do("proceed")
"""Do as usual."""


@dataclass(frozen=True)
class Drip:
    """Answer, an octet every so many seconds."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Late:
    """Answer after so many seconds."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Then:
    """Answer, and close."""

    text: str


Action = str | Do | Drip | Late | Then


@dataclass(frozen=True)
class Message:
    """What was delivered, as it came, dots unstuffed."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    at: float


@dataclass
class SMTPServer:
    """Takes everything, but for what its script says. `latency` is in seconds, for each read; `ends` has the error with
    which each connection ended, None where it was closed in good order; `reads` is what came, as it came; `resumed`
    tells of each TLS handshake whether it was a former session's. One that is `forgetful` throws away what comes
    behind a message before it has answered that."""

    reactor: Reactor
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SIZE 52428800", "ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    accounts: dict[str, str] = field(default_factory=dict)
    latency: float = 0.0
    forgetful: bool = False
    messages: list[Message] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    reads: list[bytes] = field(default_factory=list)
    resumed: list[bool] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most_open: int = 0
    connected_at: list[float] = field(default_factory=list)
    ends: list[Exception | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._script: defaultdict[str, deque[Action]] = defaultdict(deque)
        self._standing: dict[str, Action] = {}
        self._peers: list[_Peer] = []
        self._server: Server | None = None

    def listen(self, host: str, port: int) -> SMTPServer:
        tls = self.tls if self.implicit_tls else None
        self._server = self.reactor.create_server(lambda: _Peer(self), host, port, tls=tls)
        return self

    def close(self) -> None:
        """Accept nothing more, and cut what is open."""
        if self._server is not None:
            self._server.close()
        self.reset_all()

    def reset_all(self) -> None:
        """Cut every connection."""
        for peer in list(self._peers):
            peer.transport.abort()

    def say(self, text: str) -> None:
        """Say something to everybody, asked or not."""
        for peer in list(self._peers):
            peer.reply(text)

    def on(self, word: str, *actions: Action) -> SMTPServer:
        """Do these, one each time; then as usual."""
        self._script[word].extend(actions)
        return self

    def always(self, word: str, action: Action) -> SMTPServer:
        """Do this each time."""
        self._standing[word] = action
        return self

    def usually(self, word: str) -> SMTPServer:
        """Undo `always` and `on`."""
        self._standing.pop(word, None)
        self._script[word].clear()
        return self

    def action(self, *words: str) -> Action:
        """What to do now for the first of these words that the script has something for."""
        for word in words:
            if self._script[word]:
                return self._script[word].popleft()
            if word in self._standing:
                return self._standing[word]
        return PROCEED


class _Peer(BaseProtocol):
    """One connection."""

    transport: Transport

    def __init__(self, server: SMTPServer) -> None:
        self.server = server
        self.buffer = b""
        self.lines: deque[bytes] = deque()
        self.secure = server.implicit_tls
        self.deaf = False
        self.in_body = False
        self.body_began = False
        self.spoiled = False
        self.chunk: tuple[int, bool] | None = None
        self.chunks: list[bytes] = []
        self.chunk_answered = False
        self.auth: list[str] | None = None
        self.sender: str | None = None
        self.recipients: list[str] = []

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        server = self.server
        if self.secure:
            self.tls_done(None)
        server._peers.append(self)
        server.connections += 1
        server.connected_at.append(server.reactor.time())
        server.open += 1
        server.most_open = max(server.most_open, server.open)
        self.act(server.action("connect"), "220 mx.test ESMTP")

    def connection_lost(self, error: Exception | None) -> None:
        self.server._peers.remove(self)
        self.server.ends.append(error)
        self.server.open -= 1
        self.deaf = True

    def data_received(self, data: bytes) -> None:
        self.server.reads.append(data)
        if self.server.latency:
            self.server.reactor.call_later(self.server.latency, self.take, data)
        else:
            self.take(data)

    def take(self, data: bytes) -> None:
        self.buffer += data
        while not self.deaf and self.buffer:
            if not self.take_some():
                return

    def take_some(self) -> bool:
        if self.chunk is not None:
            return self.take_chunk(*self.chunk)
        return self.take_body() if self.in_body else self.take_line()

    # answering

    def act(self, action: Action, usual: str) -> bool:
        """Do what the script says; True if all went as usual."""
        match action:
            case Do("proceed"):
                self.reply(usual)
                return True
            case Do("close"):
                self.deaf = True
                self.transport.close()
            case Do("reset"):
                self.deaf = True
                self.transport.abort()
            case Do("silent"):
                self.deaf = True
            case Do("stall"):
                self.deaf = True
                self.transport.pause_reading()
            case Drip(text=text, seconds=seconds):
                self.deaf = True
                self.drip(text + "\r\n", seconds)
                return text[:1] in "23"
            case Late(text=text, seconds=seconds):
                self.deaf = True
                self.server.reactor.call_later(seconds, self.late, text)
                return text[:1] in "23"
            case Then(text=text):
                self.reply(text)
                self.deaf = True
                self.transport.close()
            case str():
                self.reply(action)
                return action[:1] in "23"
        return False

    def reply(self, text: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(text.encode("latin-1") + b"\r\n")

    def late(self, text: str) -> None:
        self.reply(text)
        self.listen_again()

    def drip(self, text: str, seconds: float) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(text[:1].encode())
        if len(text) > 1:
            self.server.reactor.call_later(seconds, self.drip, text[1:], seconds)
        else:
            self.listen_again()

    def listen_again(self) -> None:
        self.deaf = self.transport.is_closing()
        self.take(b"")

    # commands

    def take_line(self) -> bool:
        line, found, rest = self.buffer.partition(b"\r\n")
        if not found:
            return False
        self.buffer = rest
        text = line.decode("utf-8", "replace")
        self.server.commands.append(text)
        if self.auth is not None:
            self.auth_line(text)
            return True
        verb = text.split(" ")[0].split(":")[0].upper()
        getattr(self, f"do_{verb.lower()}", self.do_unknown)(text)
        return True

    def do_unknown(self, text: str) -> None:
        self.reply("500 5.5.2 what?")

    def do_ehlo(self, text: str) -> None:
        offered = ["mx.test", *self.server.extensions]
        if self.server.tls is not None and not self.secure:
            offered.append("STARTTLS")
        if self.server.accounts:
            offered.append("AUTH PLAIN LOGIN")
        lines = [f"250-{offer}" for offer in offered[:-1]] + [f"250 {offered[-1]}"]
        self.act(self.server.action("ehlo"), "\r\n".join(lines))

    def do_lhlo(self, text: str) -> None:
        self.do_ehlo(text)

    def do_helo(self, text: str) -> None:
        self.act(self.server.action("helo"), "250 mx.test")

    def do_starttls(self, text: str) -> None:
        if not self.act(self.server.action("starttls"), "220 2.0.0 go ahead"):
            return
        self.buffer = b""
        action = self.server.action("tls")
        if action is PROCEED:
            assert self.server.tls is not None
            d: Any = self.transport.start_tls(self.server.tls, server_side=True, timeout=None)
            d.add_callbacks(self.tls_done, lambda failure: None)
        else:
            self.act(action, "")

    def tls_done(self, _: None) -> None:
        self.secure = True
        self.server.resumed.append(self.transport.get_extra_info("ssl_object").session_reused)
        if self.server.resumed[-1]:
            action = self.server.action("resumed")
            if action is not PROCEED:
                self.act(action, "")

    def do_auth(self, text: str) -> None:
        action = self.server.action("auth")
        if action is not PROCEED:
            self.act(action, "")
            return
        words = text.split(" ")
        if words[1].upper() == "PLAIN":
            _, user, password = base64.b64decode(words[2]).decode().split("\0")
            self.judge(user, password)
        else:
            self.auth = [] if len(words) < 3 else [words[2]]
            self.ask()

    def ask(self) -> None:
        assert self.auth is not None
        self.reply("334 " + base64.b64encode(b"Username:" if not self.auth else b"Password:").decode())

    def auth_line(self, text: str) -> None:
        assert self.auth is not None
        self.auth.append(text)
        if len(self.auth) < 2:
            self.ask()
            return
        user, password = (base64.b64decode(word).decode() for word in self.auth)
        self.auth = None
        self.judge(user, password)

    def judge(self, user: str, password: str) -> None:
        good = self.server.accounts.get(user) == password
        self.reply("235 2.7.0 welcome" if good else "535 5.7.8 bad credentials")

    def do_mail(self, text: str) -> None:
        if self.chunks:
            self.reply("503 5.5.1 RSET first")
        elif self.act(self.server.action("mail"), "250 2.1.0 ok"):
            self.sender = text.partition("<")[2].partition(">")[0]
            self.recipients = []

    def do_rcpt(self, text: str) -> None:
        if self.sender is None:
            self.reply("503 5.5.1 MAIL first")
            return
        address = text.partition("<")[2].rpartition(">")[0]
        if self.act(self.server.action(f"rcpt:{address}", "rcpt"), "250 2.1.5 ok"):
            self.recipients.append(address)

    def do_data(self, text: str) -> None:
        action = self.server.action("data")
        if not self.recipients:
            self.act(action, "554 5.5.1 no valid recipients")
        elif self.act(action, "354 go on"):
            self.in_body, self.body_began, self.spoiled = True, False, False

    def do_bdat(self, text: str) -> None:
        _, size, *last = text.split(" ")
        self.chunk = int(size), bool(last)
        if not self.chunks:
            self.body_began = self.spoiled = False
        if size == "0":
            self.take_some()

    def do_rset(self, text: str) -> None:
        self.sender, self.recipients, self.chunks = None, [], []
        self.act(self.server.action("rset"), "250 2.0.0 ok")

    def do_noop(self, text: str) -> None:
        self.act(self.server.action("noop"), "250 2.0.0 ok")

    def do_quit(self, text: str) -> None:
        if self.act(self.server.action("quit"), "221 2.0.0 bye"):
            self.deaf = True
            self.transport.close()

    # content

    def begin_body(self) -> bool:
        """Do what the script says of the first octets; False if nothing is read any more."""
        action = PROCEED if self.body_began else self.server.action("body")
        self.body_began = True
        if action is not PROCEED:
            self.spoiled = not self.act(action, "")
            self.chunk_answered = self.chunk is not None
        return not self.deaf

    def take_chunk(self, size: int, last: bool) -> bool:
        """A chunk is thrown away where there is nobody to get it, or one before it was refused: until RSET."""
        if not self.begin_body() or len(self.buffer) < size:
            return False
        piece, self.buffer, self.chunk = self.buffer[:size], self.buffer[size:], None
        self.chunks.append(piece)
        if self.chunk_answered:
            self.chunk_answered = False
        elif self.spoiled or not self.recipients:
            self.spoiled = True
            self.reply("503 5.5.1 out of turn")
        elif not last:
            self.spoiled = not self.act(self.server.action("chunk"), f"250 2.0.0 {size} octets")
        elif self.finish(b"".join(self.chunks)):
            self.chunks = []
        return True

    def take_body(self) -> bool:
        if not self.begin_body():
            return False
        whole = b"\r\n" + self.buffer
        end = whole.find(b"\r\n.\r\n")
        if end < 0:
            return False
        content, self.buffer = whole[2 : end + 2], b"" if self.server.forgetful else whole[end + 5 :]
        self.in_body = False
        self.finish(unstuff(content))
        return True

    def finish(self, content: bytes) -> bool:
        sender, recipients = self.sender or "", tuple(self.recipients)
        self.sender, self.recipients = None, []
        if self.spoiled:  # it has been refused before its end
            return False
        taken = self.act(self.server.action("confirm"), "250 2.0.0 taken")
        if taken:
            self.server.messages.append(Message(sender, recipients, content, self.server.reactor.time()))
        return taken


def unstuff(content: bytes) -> bytes:
    """Content without the dots that were put before dots."""
    return (b"\r\n" + content).replace(b"\r\n..", b"\r\n.")[2:]
