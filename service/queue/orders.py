"""What operators have changed by commands, for the daemon's log: a line each in the file by which they poke it.

Whoever may change the queue may write there, so that nothing in it is more than a claim; what is no order is passed
over. A daemon begins with an empty file: what was changed while none ran is in no log but the command's own words.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from service.queue.store import Change

MOST_IDS: Final = 20
"""Jobs of an order that are named."""

_LONGEST: Final = 4096  # octets of an order
_AT_ONCE: Final = 256 * 1024
_TO_EMPTY: Final = 64 * 1024  # octets of orders that were read, after which the file is emptied
_OURS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change of `jobs` jobs: those with these `ids` (the first of them), or at this `site`, or neither: all. `by` is
    the user who gave it, as far as that is known."""

    change: Change
    jobs: int
    ids: tuple[str, ...] = ()
    site: str | None = None
    by: str = ""


def write_order(path: Path, order: Order | None) -> None:
    """Append the order, or (None) nothing that anybody reads. Raises `OSError`."""
    line = b"\n" if order is None else msgspec.json.encode(order) + b"\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _OURS, 0o660)
    try:
        os.write(fd, line if len(line) <= _LONGEST else b"\n")
    finally:
        os.close(fd)


class Orders:
    """Reads the orders in the file at `path`, which is made, or emptied, now. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._empty()

    def _empty(self) -> None:
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OURS, 0o660))
        self._at = 0

    def take(self) -> list[Order]:
        """Those that have come since. Where the file cannot be read there are none: it is the queue that counts."""
        lines = b""
        with contextlib.suppress(OSError):
            lines = self._whole_lines()
            if self._at > _TO_EMPTY:
                self._empty()
        return [order for line in lines.splitlines() if (order := _read(line)) is not None]

    def _whole_lines(self) -> bytes:
        fd = os.open(self._path, os.O_RDONLY | _OURS)  # not for writing: the end of that would be a poke
        try:
            if os.fstat(fd).st_size < self._at:  # somebody has emptied it
                self._at = 0
            octets = os.pread(fd, _AT_ONCE, self._at)
        finally:
            os.close(fd)
        lines, end, rest = octets.rpartition(b"\n")
        self._at += len(octets) if len(rest) > _LONGEST else len(lines) + len(end)
        return lines


def _read(line: bytes) -> Order | None:
    try:
        return msgspec.json.decode(line, type=Order) if len(line) <= _LONGEST else None
    except msgspec.DecodeError:
        return None
