"""An SMTP server that accepts everything and keeps nothing, so that a benchmark measures its client.

Run as `python -m bench.sink`: prints its port, then serves until SIGTERM, then prints a JSON object: how many messages
and connections it had, and the CPU seconds it took. A run in which it was busy for more than 80 % of the time says
nothing about the client.
"""

from __future__ import annotations

import json
import resource
import signal
import sys

from deferred.protocol import BaseProtocol, Transport
from deferred.reactor import Reactor

EHLO = b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"
OK = b"250 2.0.0 ok\r\n"
END = b"\r\n.\r\n"


class Counters:
    """What the sink has seen."""

    messages = 0
    connections = 0


class Sink(BaseProtocol):
    """One conversation: commands are told apart by their first letter, content is skipped to its end."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._buffer = b""
        self._content = False

    def connection_made(self, transport: Transport) -> None:
        """Greet."""
        self._counters.connections += 1
        self._transport = transport
        transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer all that is complete, in one write."""
        buffer = self._buffer + data
        answers = []
        at = 0
        while True:
            mark = END if self._content else b"\r\n"
            end = buffer.find(mark, at)
            if end < 0:
                break
            if self._content:
                self._content = False
                self._counters.messages += 1
                answers.append(OK)
                at = end + len(END)
                continue
            verb = buffer[at : at + 1].upper()
            at = end + 2
            if verb == b"D":
                self._content = True
                at -= 2  # the end's first CRLF may be the command's own
                answers.append(b"354 go ahead\r\n")
            elif verb == b"E":
                answers.append(EHLO)
            elif verb == b"Q":
                answers.append(b"221 2.0.0 bye\r\n")
            else:
                answers.append(OK)
        self._buffer = buffer[max(at, len(buffer) - 4) :] if self._content else buffer[at:]
        if answers:
            self._transport.write(b"".join(answers))
            if answers[-1].startswith(b"221"):
                self._transport.close()


def main() -> int:
    """Serve until SIGTERM."""
    reactor = Reactor()
    counters = Counters()
    server = reactor.create_server(lambda: Sink(counters), "127.0.0.1", 0, backlog=4096)
    reactor.add_signal_handler(signal.SIGTERM, reactor.stop)
    print(server.address[1], flush=True)
    reactor.run()
    used = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "messages": counters.messages,
        "connections": counters.connections,
        "cpu": used.ru_utime + used.ru_stime,
    }
    print(json.dumps(report), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
