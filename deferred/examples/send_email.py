"""The e-mail: connect to a server, wait for its answer, check that it can take the message, send it, wait for the
confirmation, and disconnect. Every wait is a Deferred, so that no wait keeps anything else from going on.

    python -m deferred.examples.send_email localhost:25 ann@example.org bob@example.net < message.txt

The SMTP here (RFC 5321) is as little as the story needs; `service.smtp` is the real one.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from typing import Final

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.interfaces import Reactor
from deferred.protocol import BaseProtocol, Transport
from deferred.reactor import get_reactor

LONGEST_LINE: Final = 8192
_ADDRESS: Final = re.compile(r"[!-;=?-~]+@[!-;=?-~]+")  # above all: no line end, which would be a command of its own


class Refused(Exception):
    """The server said no; the text is its answer."""


class Unconfirmed(Exception):
    """The server vanished after the final dot: nobody knows whether it has the message."""


def send_email(
    reactor: Reactor, host: str, port: int, sender: str, recipient: str, message: bytes, timeout: float = 60
) -> Deferred[str]:
    """Fire with the server's confirmation once it has taken the message.

    Fails with `Refused`, `OSError`, or `TimeoutError` when all this takes longer than `timeout` seconds; once all of
    the message is out, with `Refused` or `Unconfirmed`.
    """

    def converse(mail: MailConnection) -> Deferred[str]:
        d = mail.handshake()
        d.add_callback(lambda _: mail.check(sender, recipient))
        d.add_callback(lambda _: mail.send(message))
        d.add_callback(lambda _: mail.confirm())
        return d.add_both(mail.disconnect)

    d = reactor.getaddrinfo(host, port).add_callback(lambda found: reactor.create_connection(MailConnection, found))
    return d.add_callback(converse).add_timeout(timeout, reactor)


class MailConnection(BaseProtocol):
    """A conversation in lines: each wait for an answer is a Deferred."""

    def __init__(self) -> None:
        self._transport: Transport
        self._received = b""
        self._answers: deque[str] = deque()  # come, but not yet waited for
        self._waiting: Deferred[str] | None = None
        self._lost: Exception | None = None

    def handshake(self) -> Deferred[str]:
        """Wait for the greeting, say hello, wait for the answer."""
        return self._answer("2").add_callback(lambda _: self._ask("HELO localhost", "2"))

    def check(self, sender: str, recipient: str) -> Deferred[str]:
        """Ask whether the server takes a message from this sender, for this recipient, now."""
        for address in (sender, recipient):
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"{address!a} is no address")
        d = self._ask(f"MAIL FROM:<{sender}>", "2")
        d.add_callback(lambda _: self._ask(f"RCPT TO:<{recipient}>", "2"))
        return d.add_callback(lambda _: self._ask("DATA", "3"))

    def send(self, message: bytes) -> None:
        """Send the message. A lone dot ends it, so a line that begins with one gets another (RFC 5321, 4.5.2)."""
        for line in message.splitlines():
            self._transport.write((b"." if line.startswith(b".") else b"") + line + b"\r\n")
        self._transport.write(b".\r\n")

    def confirm(self) -> Deferred[str]:
        """Wait until the server says that the message is its concern from now on."""

        def doubt(failure: Failure) -> Failure:
            if failure.check(Refused):
                return failure
            raise Unconfirmed(failure.get_error_message() or "no answer in time")

        return self._answer("2").add_errback(doubt)

    def disconnect(self, result: str | Failure) -> str | Failure:
        """Say goodbye, and hand on what came of it, be it good or bad."""
        self._transport.write(b"QUIT\r\n")
        self._transport.close()
        return result

    def _ask(self, command: str, wanted: str) -> Deferred[str]:
        self._transport.write(command.encode() + b"\r\n")
        return self._answer(wanted)

    def _answer(self, wanted: str) -> Deferred[str]:
        """Fire with the next answer; fail with `Refused` if its first digit is another than `wanted`."""

        def judge(answer: str) -> str:
            if not answer.startswith(wanted):
                raise Refused(answer)
            return answer

        d: Deferred[str] = Deferred(lambda _: self._transport.abort())
        if self._answers:
            d.callback(self._answers.popleft())
        elif self._lost is not None:
            d.errback(self._lost)
        else:
            self._waiting = d
        return d.add_callback(judge)

    def connection_made(self, transport: Transport) -> None:
        """The server is there."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came apart into lines; the last line of an answer has no hyphen after its code."""
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > LONGEST_LINE or len(self._answers) > 10:
            self._transport.abort()
            return
        for line in lines:
            if line[3:4] != b"-":
                self._answers.append(ascii(line.decode("latin-1").rstrip())[1:-1])
        if self._waiting is not None and self._answers:
            waiting, self._waiting = self._waiting, None
            waiting.callback(self._answers.popleft())

    def connection_lost(self, error: Exception | None) -> None:
        """The server is gone: whoever waits, waits in vain."""
        self._lost = error or ConnectionError("the server closed the connection")
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(self._lost)


def main(server: str, sender: str, recipient: str, message: bytes) -> None:
    """Send `message` by `server` ("host:port" or "host"), and print what became of it."""
    host, _, port = server.rpartition(":") if ":" in server else (server, "", "25")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        sys.exit(__doc__)

    def explain(failure: Failure) -> None:
        fate = "may or may not have been sent" if failure.check(Unconfirmed) else "is not sent"
        print(f"The message {fate}: {failure.get_error_message()}")

    reactor = get_reactor()
    d = send_email(reactor, host, int(port), sender, recipient, message)
    d.add_callbacks(lambda confirmation: print(f"The server has confirmed: {confirmation}"), explain)
    d.add_callback(lambda _: reactor.stop())
    print("A Deferred is here, the confirmation is not.")
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.stdin.buffer.read())
