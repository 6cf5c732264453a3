"""The log beside a database file (SQLite's WAL), read without SQLite.

A log is a header of 32 octets and frames of 24 octets and a page. Each frame carries the log's salts and a checksum
that goes on from that of the frame before; a frame that ends a transaction tells the database's size. SQLite takes the
frames up to the first that does not fit, and whatever follows is nothing to it: the rest of a log that was begun anew,
a transaction that a power cut tore, or transactions that were told of and are damaged. This module tells the last from
the others: where frames after the break fit one another again, and one of them was written after the end of a
transaction, that transaction had been synced, for nothing is written behind one that was not. Damage within the last
transaction of a log looks like a power cut, and cannot be told from it.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = 0x377F0682
"""The lowest bit tells that the checksums read big-endian words."""

Sum = tuple[int, int]


class Frame(NamedTuple):
    """A frame of the log: which page it is, where in the file its content is, and the database's size in pages where
    it ends a transaction, else 0."""

    page: int
    at: int
    commit: int


@dataclass(frozen=True)
class LogFile:
    """What a log holds.

    `frames` are those that SQLite takes; `beyond` those that it does not, where it is proved that they were committed.
    `lost` are pages of damaged frames among these; `blind` tells that of some not even the page is known.
    """

    page_size: int = 0
    frames: tuple[Frame, ...] = ()
    beyond: tuple[Frame, ...] = ()
    lost: frozenset[int] = frozenset()
    blind: bool = False

    @property
    def damaged(self) -> bool:
        """Whether transactions are in it that SQLite does not see."""
        return bool(self.beyond)

    def trusts(self, page: int) -> bool:
        """Whether no newer content of this page was lost with the damaged frames."""
        return page not in self.lost and (not self.blind or page in self._later)

    @cached_property
    def _later(self) -> set[int]:
        return {frame.page for frame in self.beyond}


def read_log(fd: int, page_size: int, after: int = 0) -> LogFile:
    """Read the log. `page_size` is used where the log's header is damaged.

    With `after`, a number of frames that SQLite has checked already, it begins behind them, and looks no further than
    to the proof. Raises `OSError`.
    """
    return _Reader(fd, page_size).read(after)


class _Reader:
    def __init__(self, fd: int, page_size: int) -> None:
        self._fd = fd
        header = os.pread(fd, _HEADER.size, 0)
        fields = _HEADER.unpack(header) if len(header) == _HEADER.size else (0,) * 8
        known = fields[0] | 1 == _MAGIC | 1
        self._words = ">II" if (fields[0] & 1 if known else sys.byteorder == "big") else "<II"
        self._sound = known and self._add((0, 0), header[:24]) == fields[6:8]
        self._page_size = fields[2] if self._sound else page_size
        self._step = _FRAME.size + self._page_size
        self._salts = (fields[4], fields[5]) if self._sound else self._likely_salts()
        self._sum: Sum = fields[6:8]  # of all up to here, as long as nothing is broken
        self._broken = not self._sound
        self._frames: list[Frame] = []
        self._beyond: list[Frame] = []
        self._lost: list[int] = []
        self._proved = False
        self._blind = False
        self._gap: list[int | None] = []  # pages of the frames that do not fit since the last that did

    def _likely_salts(self) -> Sum:
        """Those of the first two frames that agree."""
        before: Sum = (0, 0)
        at = _HEADER.size
        while len(head := os.pread(self._fd, _FRAME.size, at)) == _FRAME.size:
            salts = _FRAME.unpack(head)[2:4]
            if salts == before and any(salts):
                break
            before = salts
            at += self._step
        return before

    def _add(self, start: Sum, data: bytes) -> Sum:
        first, second = start
        for one, two in struct.iter_unpack(self._words, data):
            first = (first + one + second) & 0xFFFFFFFF
            second = (second + two + first) & 0xFFFFFFFF
        return first, second

    def read(self, after: int) -> LogFile:
        at = _HEADER.size + after * self._step
        before = os.pread(self._fd, _FRAME.size, at - self._step) if after else b""
        if after:
            self._sum = _FRAME.unpack(before)[4:6]
        stored = self._sum  # what the frame before says its checksum is
        while len(head := os.pread(self._fd, _FRAME.size, at)) == _FRAME.size and not (after and self._proved):
            page, commit, *rest = _FRAME.unpack(head)
            frame = Frame(page, at + _FRAME.size, commit)
            if (rest[0], rest[1]) != self._salts:
                self._miss(None)
            else:
                data = os.pread(self._fd, self._page_size, frame.at)
                if len(data) < self._page_size:
                    break
                start = stored if self._broken else self._sum
                if self._add(self._add(start, head[:8]), data) == (rest[2], rest[3]):
                    self._take(frame, (rest[2], rest[3]))
                else:
                    self._miss(page)
            stored = (rest[2], rest[3])
            at += self._step
        return self._told()

    def _miss(self, page: int | None) -> None:
        self._broken = True
        self._gap.append(page)

    def _take(self, frame: Frame, total: Sum) -> None:
        if not self._broken:
            self._sum = total
            self._frames.append(frame)
            return
        # In a log whose very header is damaged nothing can be the rest of a failed transaction.
        self._proved = self._proved or not self._sound or bool(not self._gap and self._beyond[-1].commit)
        self._lost += [page for page in self._gap if page is not None]
        self._blind = self._blind or None in self._gap
        self._gap = []
        self._beyond.append(frame)

    def _told(self) -> LogFile:
        beyond = _to_last_commit(self._beyond) if self._proved else ()
        later = {frame.page for frame in beyond}
        return LogFile(
            page_size=self._page_size,
            frames=_to_last_commit(self._frames),
            beyond=beyond,
            lost=frozenset(self._lost) - later if beyond else frozenset(),
            blind=self._blind and bool(beyond),
        )


def _to_last_commit(frames: list[Frame]) -> tuple[Frame, ...]:
    end = len(frames)
    while end and not frames[end - 1].commit:
        end -= 1
    return tuple(frames[:end])
