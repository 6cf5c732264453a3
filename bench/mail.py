"""What benchmarks send: messages of an exact size, each with a Message-ID of its own."""

from __future__ import annotations

import msgspec

SENDER = "app@bench.example"
LINE = b"Nothing is in this line, but it is as long as the lines of letters commonly are."


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """Some messages: how many, of how many octets, to which domains in turn, numbered from `first`."""

    messages: int
    size: int = 4096
    domains: tuple[str, ...] = ("sink.example",)
    first: int = 0

    @property
    def numbers(self) -> range:
        """The messages' numbers."""
        return range(self.first, self.first + self.messages)

    def recipient(self, number: int) -> str:
        """To whom a message goes."""
        return f"user{number}@{self.domains[number % len(self.domains)]}"

    def content(self, number: int, stamp: int = 0) -> bytes:
        """A message ready for the wire. `stamp`, say a time, goes into its Message-ID."""
        head = (
            f"From: {SENDER}\r\nTo: {self.recipient(number)}\r\nSubject: number {number}\r\n"
            f"Date: Mon, 01 Jan 2024 00:00:00 +0000\r\nMessage-ID: {message_id(number, stamp)}\r\n\r\n"
        ).encode()
        return head + filler(max(2, self.size - len(head)))


def message_id(number: int, stamp: int = 0) -> str:
    """The Message-ID of a message."""
    return f"<{number}.{stamp}@bench.example>"


def parts(message_id: str) -> tuple[int, int]:
    """The number and the stamp that a Message-ID was made of. Raises `ValueError` for any other."""
    number, _, stamp = message_id.removeprefix("<").removesuffix("@bench.example>").partition(".")
    return int(number), int(stamp)


def filler(octets: int) -> bytes:
    """Lines of text, all whole, of exactly so many octets together."""
    line = LINE + b"\r\n"
    whole, rest = divmod(octets, len(line))
    if rest == 1 and whole:  # too few for a line: the last one is longer by it
        return line * (whole - 1) + LINE + b".\r\n"
    return line * whole + (b"x" * (rest - 2) + b"\r\n" if rest else b"")
