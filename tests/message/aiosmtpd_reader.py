"""What a server makes of what follows DATA: aiosmtpd's reader, fed with octets and without a network."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session

_BEFORE: Final = b"EHLO client.example\r\nMAIL FROM:<ann@a.example>\r\nRCPT TO:<bob@b.example>\r\nDATA\r\n"


class _Patient(SMTP):
    """No limit on a line's length: deferd leaves lines as long as they are."""

    line_length_limit = 1 << 22


class _Wire(asyncio.Transport):
    """Swallows what the server says."""

    def __init__(self, protocol: SMTP) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self._protocol = protocol
        self._closing = False

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


class _Box:
    """Keeps messages."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert envelope.original_content is not None
        self.messages.append(envelope.original_content)
        return "250 ok"


def received(body: bytes) -> list[bytes]:
    """The contents of all messages that the server believes to have got, once it has heard this and QUIT."""

    async def converse() -> list[bytes]:
        box = _Box()
        server = _Patient(box, hostname="mx.example", loop=asyncio.get_running_loop(), data_size_limit=1 << 26)
        wire = _Wire(server)
        server.connection_made(wire)
        server.data_received(_BEFORE + body + b"QUIT\r\n")
        while not wire.is_closing():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return box.messages

    return asyncio.run(converse())
