"""The sink of sink.c in Python: where there is no compiler, and for TLS, which the other has not.

Same command line, same reports; `-c FILE` (key and chain, PEM) makes it offer STARTTLS. It costs several times what
the one in C does, so that a fast client is more likely to find it busy.
"""

from __future__ import annotations

import getopt
import heapq
import itertools
import json
import os
import resource
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from bench.conversation import Conversation

READ_AT_ONCE = 1 << 18


class Place:
    """An endpoint, and what came to it."""

    def __init__(self, number: int, text: str) -> None:
        address, *options = text.split(",")
        host, _, port = address.rpartition(":")
        self.number = number
        self.delay = 0.0
        self.tarpit = "tarpit" in options
        self.silent = "silent" in options
        for option in options:
            name, _, value = option.partition("=")
            if name == "delay":
                self.delay = float(value) / 1000
            elif option not in ("tarpit", "silent"):
                raise ValueError(option)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, int(port)))
        self.socket.listen(65535)
        self.socket.setblocking(False)
        self.messages = self.recipients = self.connections = self.open = self.most = self.octets = self.errors = 0
        self.connected = self.first = self.last = 0.0

    def seen(self) -> dict[str, int | float]:
        """As the report has it."""
        names = "messages recipients connections open most octets errors connected first last"
        return {"port": self.socket.getsockname()[1]} | {name: getattr(self, name) for name in names.split()}


class Peer:
    """A connection: its socket, its conversation, and what has not been written yet, some of it `held` for later."""

    def __init__(self, sink: PythonSink, connection: socket.socket, place: Place) -> None:
        self.sink = sink
        self.socket = connection
        self.place = place
        self.conversation = Conversation(self)
        self.shaking_hands = False
        self.held = 0
        self.out = b""
        self.mask = select.EPOLLIN

    @property
    def offers_tls(self) -> bool:
        """Whether STARTTLS is understood."""
        return self.sink.context is not None

    def hello(self, secure: bool) -> bytes:
        """The answer to EHLO."""
        return self.sink.hello(secure)

    def took(self, size: int, recipients: int, head: bytes) -> bool:
        """A message has come; a tarpit does not say so."""
        place = self.place
        if place.tarpit:
            return False
        place.last = time.monotonic()
        place.first = place.first or place.last
        place.messages += 1
        place.recipients += recipients
        self.sink.took(place, size, recipients, head)
        return True

    def refused(self) -> None:
        """A command made no sense."""
        self.place.errors += 1


class PythonSink:
    """The server: one thread around epoll."""

    def __init__(
        self,
        places: Sequence[Place],
        *,
        keywords: str,
        expected: int = 0,
        log: TextIO | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.context = context
        self._places = places
        self._keywords = [word for word in keywords.split(",") if word]
        self._expected = expected
        self._log = log
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._held: list[tuple[float, int, Peer, bytes]] = []
        self._number = itertools.count()
        self._messages = self._most = self._handshakes = self._resumed = 0
        self._cpu_before = 0.0  # the first connection
        self._greetings = {False: self._greeting(False), True: self._greeting(True)}

    def _greeting(self, secure: bool) -> bytes:
        words = [*self._keywords, *(["STARTTLS"] if self.context and not secure else []), "HELP"]
        lines = ["sink.example", *words]
        return "".join(f"250{'-' if n + 1 < len(lines) else ' '}{line}\r\n" for n, line in enumerate(lines)).encode()

    def hello(self, secure: bool) -> bytes:
        """The answer to EHLO."""
        return self._greetings[secure]

    def took(self, place: Place, size: int, recipients: int, head: bytes) -> None:
        """A message has come."""
        self._messages += 1
        if self._log is not None:
            at = b"\n" + head
            found = at.lower().find(b"\nmessage-id:")
            words = at[found + 12 :].split(None, 1) if found >= 0 else []
            name = words[0].decode("latin-1") if words else "-"
            self._log.write(f"{place.last:.6f} {place.number} {size} {recipients} {name}\n")
        if self._messages == self._expected:
            self.report("expected")

    def report(self, why: str) -> None:
        """Print what has been seen."""
        if self._log is not None:
            self._log.flush()
        report = {
            "why": why,
            "now": time.monotonic(),
            "cpu": time.process_time() - self._cpu_before,
            "most": self._most,
            "handshakes": self._handshakes,
            "resumed": self._resumed,
            "endpoints": [place.seen() for place in self._places],
        }
        print(json.dumps(report), flush=True)

    def run(self) -> None:
        """Print the ports, and serve until SIGTERM or SIGINT."""
        wake_in, wake_out = os.pipe()
        for end in (wake_in, wake_out):
            os.set_blocking(end, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wake_out)
        self._epoll.register(wake_in, select.EPOLLIN)
        listening = {place.socket.fileno(): place for place in self._places}
        for fd in listening:
            self._epoll.register(fd, select.EPOLLIN)
        print(" ".join(str(place.seen()["port"]) for place in self._places), flush=True)
        while True:
            wait = max(0.0, self._held[0][0] - time.monotonic()) if self._held else -1
            for fd, mask in self._epoll.poll(wait, 512):
                if fd == wake_in:
                    signals = os.read(wake_in, 100)
                    if any(number != signal.SIGUSR1 for number in signals):
                        self.report("ended")
                        return
                    self.report("asked")
                elif fd in listening:
                    self._welcome(listening[fd])
                elif fd in self._peers:
                    self._ready(self._peers[fd], mask)
            self._release()

    def _welcome(self, place: Place) -> None:
        while True:
            try:
                connection, _ = place.socket.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(self, connection, place)
            self._peers[connection.fileno()] = peer
            self._epoll.register(connection.fileno(), select.EPOLLIN)
            if not self._most:
                self._cpu_before = time.process_time()
            place.connected = place.connected or time.monotonic()
            place.connections += 1
            place.open += 1
            place.most = max(place.most, place.open)
            self._most = max(self._most, len(self._peers))
            if not place.silent:
                self._send(peer, b"220 sink.example ESMTP\r\n")

    def _ready(self, peer: Peer, mask: int) -> None:
        try:
            if peer.shaking_hands:
                self._shake_hands(peer)
            else:
                if mask & select.EPOLLOUT:
                    self._write(peer)
                self._hear(peer)
        except (ssl.SSLWantReadError, BlockingIOError):
            self._watch(peer, select.EPOLLIN | (select.EPOLLOUT if peer.out else 0))
        except ssl.SSLWantWriteError:
            self._watch(peer, select.EPOLLOUT)
        except OSError:
            self._hang_up(peer)

    def _hear(self, peer: Peer) -> None:
        """Everything that is there: TLS may hold octets that epoll knows nothing of."""
        while peer.socket.fileno() >= 0:
            data = peer.socket.recv(READ_AT_ONCE)
            if not data:
                self._hang_up(peer)
                return
            peer.place.octets += len(data)
            replies = peer.conversation.feed(data)
            if replies:
                self._send(peer, replies)
            if peer.shaking_hands or not isinstance(peer.socket, ssl.SSLSocket):
                return

    def _shake_hands(self, peer: Peer) -> None:
        assert isinstance(peer.socket, ssl.SSLSocket)
        peer.socket.do_handshake()
        peer.shaking_hands = False
        self._handshakes += 1
        self._resumed += bool(peer.socket.session_reused)
        self._watch(peer, select.EPOLLIN)
        self._hear(peer)

    def _send(self, peer: Peer, replies: bytes) -> None:
        if peer.place.delay:
            peer.held += 1
            heapq.heappush(self._held, (time.monotonic() + peer.place.delay, next(self._number), peer, replies))
            return
        peer.out += replies
        self._write(peer)

    def _release(self) -> None:
        now = time.monotonic() + 50e-6
        while self._held and self._held[0][0] <= now:
            _, _, peer, replies = heapq.heappop(self._held)
            peer.held -= 1
            if peer.socket.fileno() >= 0:
                peer.out += replies
                try:
                    self._write(peer)
                except OSError:
                    self._hang_up(peer)

    def _write(self, peer: Peer) -> None:
        try:
            while peer.out:
                peer.out = peer.out[peer.socket.send(peer.out) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._watch(peer, select.EPOLLIN | select.EPOLLOUT)
            return
        self._watch(peer, select.EPOLLIN)
        if peer.held:
            return
        if peer.conversation.leaving:
            self._hang_up(peer)
        elif peer.conversation.start_tls:
            self._begin_tls(peer)

    def _begin_tls(self, peer: Peer) -> None:
        assert self.context
        fd = peer.socket.fileno()
        peer.socket = self.context.wrap_socket(peer.socket, server_side=True, do_handshake_on_connect=False)
        assert peer.socket.fileno() == fd  # it is the same connection, and epoll watches it on
        peer.conversation.secured()
        peer.shaking_hands = True

    def _watch(self, peer: Peer, mask: int) -> None:
        if mask != peer.mask and peer.socket.fileno() >= 0:
            self._epoll.modify(peer.socket.fileno(), mask)
            peer.mask = mask

    def _hang_up(self, peer: Peer) -> None:
        fd = peer.socket.fileno()
        if fd >= 0:
            del self._peers[fd]
            peer.socket.close()
            peer.place.open -= 1


def main(arguments: list[str]) -> int:
    """Serve at the endpoints that the command line names."""
    options, endpoints = getopt.getopt(arguments, "k:l:n:c:")
    given = dict(options)
    context = None
    if "-c" in given:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given["-c"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    places = [Place(number, text) for number, text in enumerate(endpoints)]
    log = Path(given["-l"]).open("w", encoding="latin-1") if "-l" in given else None  # noqa: SIM115 (to the end)
    keywords = given.get("-k", "PIPELINING,CHUNKING,8BITMIME,SMTPUTF8,SIZE 104857600")
    sink = PythonSink(places, keywords=keywords, expected=int(given.get("-n", 0)), log=log, context=context)
    sink.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
