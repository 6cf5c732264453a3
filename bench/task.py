"""What a client is told to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from bench.mail import Mail

PeerName = Literal["bare", "sessions", "examples", "aiosmtplib", "seldom", "threads", "processes"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Send this mail over so many connections, all open at once, to these addresses in turn.

    With `folder` each message is read from a file there, else it is made when its turn comes.
    """

    peer: PeerName
    mail: Mail
    connections: int
    addresses: tuple[tuple[str, int], ...]
    folder: str | None = None

    def share(self, number: int) -> range:
        """The messages of connection number `number`."""
        return self.mail.numbers[number :: self.connections]

    def content(self, number: int) -> bytes:
        """A message, ready for the wire."""
        if self.folder is None:
            return self.mail.content(number)
        return (Path(self.folder) / f"{number}.eml").read_bytes()

    def write_files(self) -> None:
        """Make the files that `content` reads."""
        assert self.folder is not None
        for number in self.mail.numbers:
            (Path(self.folder) / f"{number}.eml").write_bytes(self.mail.content(number))
