"""The demo's mail server: the server's half of SMTP, just enough of it, on the same reactor as the client's."""

from __future__ import annotations

from collections.abc import Callable

from deferred.protocol import BaseProtocol, Transport

Script = dict[str, list[str]]
"""For a recipient, the replies that its RCPTs get, one after the other; then it is accepted."""


class DemoServer(BaseProtocol):
    """One conversation. Takes every message and gives it to `arrived`, but refuses what the script says."""

    def __init__(self, script: Script, arrived: Callable[[bytes], None]) -> None:
        self._script = script
        self._arrived = arrived
        self._octets = bytearray()
        self._content: bytearray | None = None  # being received; None between messages
        self._recipients = 0

    def connection_made(self, transport: Transport) -> None:
        """Greet."""
        self._transport = transport
        self._reply("220 demo.example ESMTP")

    def data_received(self, data: bytes) -> None:
        """Answer each whole line; keep the rest."""
        self._octets += data
        while (end := self._octets.find(b"\r\n")) >= 0:
            line = bytes(self._octets[:end])
            del self._octets[: end + 2]
            if self._content is None:
                self._command(line.decode("utf-8", "replace"))
            else:
                self._content_line(self._content, line)

    def _content_line(self, content: bytearray, line: bytes) -> None:
        if line != b".":
            content += line.removeprefix(b".") + b"\r\n"
            return
        self._content = None
        self._arrived(bytes(content))
        self._reply("250 2.0.0 taken")

    def _command(self, line: str) -> None:
        verb = line[:4].upper()
        if verb == "EHLO":
            self._reply("250-demo.example", "250-PIPELINING", "250-8BITMIME", "250 ENHANCEDSTATUSCODES")
        elif verb == "RCPT":
            self._recipient(line.partition("<")[2].partition(">")[0])
        elif verb == "DATA" and not self._recipients:
            self._reply("554 5.5.1 no valid recipients")
        elif verb == "DATA":
            self._content = bytearray()
            self._recipients = 0
            self._reply("354 go ahead, end with a lone dot")
        elif verb == "QUIT":
            self._reply("221 2.0.0 bye")
            self._transport.close()
        else:
            self._reply("250 2.0.0 ok")

    def _recipient(self, address: str) -> None:
        refusals = self._script.get(address)
        if refusals:
            self._reply(refusals.pop(0))
        else:
            self._recipients += 1
            self._reply("250 2.1.5 recipient ok")

    def _reply(self, *lines: str) -> None:
        self._transport.write("".join(f"{line}\r\n" for line in lines).encode())
