"""A database file read page by page, without SQLite: whatever of it is intact can be had, whatever else is not.

SQLite refuses a table as soon as one page on the way is damaged. Here each page, cell and value stands for itself
(https://www.sqlite.org/fileformat2.html): what cannot be read raises `Unreadable` or is None, never anything else, and
no page is believed to be more than its own content proves.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

INNER_INDEX: Final = 2
INNER_TABLE: Final = 5
LEAF_INDEX: Final = 10
LEAF_TABLE: Final = 13
_CHILDREN: Final = {LEAF_TABLE: INNER_TABLE, LEAF_INDEX: INNER_INDEX}
_DEEPEST: Final = 24
_HEADER: Final = 100
_INTEGERS: Final = (0, 1, 2, 3, 4, 6, 8)  # octets, by serial type
_REAL: Final = 7


class Unreadable(Exception):
    """It is not what it should be."""


class Page(NamedTuple):
    """A page of a tree: its kind, its content, where its cells begin, and its last child (0: none)."""

    kind: int
    data: bytes
    cells: tuple[int, ...]
    last: int


class Cell(NamedTuple):
    """A row, or (in an inner page of a table) only a way to one.

    `page` and `slot` are its place. `key` is the row's number in a table; `size` octets are the row, of which `local`
    are here and the rest in a chain of pages that begins with `chain`. `child` has all that comes before.
    """

    page: int
    slot: int
    key: int
    size: int
    local: bytes
    chain: int
    child: int


class Pages:
    """The pages of the file `fd`, of which some are in the log instead: `overlay` tells where."""

    def __init__(
        self, fd: int, page_size: int, count: int, log: int | None = None, overlay: Mapping[int, int] | None = None
    ) -> None:
        self.size = page_size
        self.count = count
        self._fd = fd
        self._log = log
        self._overlay = overlay or {}
        self.page = lru_cache(1000)(self._page)
        """The page of a tree with this number. Raises `Unreadable`."""

    def read(self, number: int) -> bytes:
        """A page's content. Raises `Unreadable`; `OSError` where more is at fault than this page."""
        if not 1 <= number <= self.count:
            raise Unreadable(f"there is no page {number}")
        at = self._overlay.get(number)
        try:
            if at is not None and self._log is not None:
                data = os.pread(self._log, self.size, at)
            else:
                data = os.pread(self._fd, self.size, (number - 1) * self.size)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise Unreadable(f"page {number}: {error.strerror}") from error
        if len(data) < self.size:
            raise Unreadable(f"page {number} is not there")
        return data

    def _page(self, number: int) -> Page:
        data = self.read(number)
        at = _HEADER if number == 1 else 0
        kind = data[at]
        inner = kind in (INNER_INDEX, INNER_TABLE)
        if not inner and kind not in (LEAF_INDEX, LEAF_TABLE):
            raise Unreadable(f"page {number} is no page of a tree")
        count = int.from_bytes(data[at + 3 : at + 5], "big")
        first = at + (12 if inner else 8)
        if first + 2 * count > self.size:
            raise Unreadable(f"page {number} cannot have {count} cells")
        last = int.from_bytes(data[at + 8 : at + 12], "big") if inner else 0
        return Page(kind, data, struct.unpack_from(f">{count}H", data, first), last)

    def cell(self, number: int, index: int) -> Cell:
        """One cell of a page. Raises `Unreadable`."""
        page = self.page(number)
        try:
            return self._cell(page, number, index)
        except IndexError:
            raise Unreadable(f"page {number} has no such cell") from None

    def _cell(self, page: Page, number: int, index: int) -> Cell:
        data, at = page.data, page.cells[index]
        child = key = 0
        if page.kind in (INNER_INDEX, INNER_TABLE):
            child = int.from_bytes(data[at : at + 4], "big")
            at += 4
        if page.kind == INNER_TABLE:
            return Cell(number, index, _varint(data, at)[0], 0, b"", 0, child)
        size, at = _varint(data, at)
        if page.kind == LEAF_TABLE:
            key, at = _varint(data, at)
            key -= (key >> 63) << 64
        here = self._local(size, page.kind == LEAF_TABLE)
        end = at + here
        if end + (4 if here < size else 0) > self.size:
            raise Unreadable(f"page {number}: a cell beyond its end")
        chain = int.from_bytes(data[end : end + 4], "big") if here < size else 0
        return Cell(number, index, key, size, data[at:end], chain, child)

    def _local(self, size: int, table: bool) -> int:
        """How much of so large a row is in its cell."""
        most = self.size - 35 if table else (self.size - 12) * 64 // 255 - 23
        if size <= most:
            return size
        least = (self.size - 12) * 32 // 255 - 23
        fitting = least + (size - least) % (self.size - 4)
        return fitting if fitting <= most else least

    def payload(self, cell: Cell, most: int) -> bytes:
        """A whole row, or as much of it as its chain of pages holds; a longer one than `most` is none."""
        if cell.size > most:
            return cell.local
        parts, left, page = [cell.local], cell.size - len(cell.local), cell.chain
        while left > 0:
            try:
                data = self.read(page)
            except Unreadable:
                break
            parts.append(data[4 : 4 + left])
            left -= len(parts[-1])
            page = int.from_bytes(data[:4], "big")
        return b"".join(parts)

    def walk(self, root: int, leaf: int) -> Iterator[Cell | None]:
        """All rows of a tree in their order, with None in each place where there may be more that cannot be read.

        `leaf` is the kind of its leaves.
        """
        return self._walk(root, leaf, set(), 0)

    def _walk(self, number: int, leaf: int, seen: set[int], depth: int) -> Iterator[Cell | None]:
        try:
            page = self.page(number)
        except Unreadable:
            yield None
            return
        inner = page.kind == _CHILDREN[leaf]
        if number in seen or depth > _DEEPEST or not (inner or page.kind == leaf):
            yield None
            return
        seen.add(number)
        for index in range(len(page.cells)):
            try:
                cell = self.cell(number, index)
            except Unreadable:
                yield None
                continue
            if inner:
                yield from self._walk(cell.child, leaf, seen, depth + 1)
            if page.kind != INNER_TABLE:
                yield cell
        if inner:
            yield from self._walk(page.last, leaf, seen, depth + 1)

    def free(self, first: int, count: int) -> set[int] | None:
        """The pages that the free list names; None where it is damaged, so that any page may be free."""
        found: set[int] = set()
        try:
            while first:
                data = self.read(first)
                leaves = int.from_bytes(data[4:8], "big")
                if first in found or leaves > self.size // 4 - 2:
                    return None
                found.add(first)
                found.update(struct.unpack_from(f">{leaves}I", data, 8))
                first = int.from_bytes(data[:4], "big")
        except Unreadable:
            return None
        return found if len(found) == count else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine octets, and where it ends."""
    value = 0
    for step in range(8):
        octet = data[at + step]
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, at + step + 1
    return value << 8 | data[at + 8], at + 9


def types(local: bytes) -> tuple[list[int], int]:
    """The serial types of a row's values, and where the values begin. Raises `Unreadable`."""
    try:
        length, at = _varint(local, 0)
        found = []
        while at < length:
            kind, at = _varint(local, at)
            found.append(kind)
    except IndexError:
        raise Unreadable("a row without its head") from None
    if at != length or 10 in found or 11 in found:
        raise Unreadable("a row with a wrong head")
    return found, length


def extent(kind: int) -> int:
    """The octets that a value of this serial type takes."""
    if kind >= 12:
        return (kind - 12) // 2
    return 8 if kind == _REAL else _INTEGERS[kind] if kind < 7 else 0


def values(payload: bytes, most: int | None = None) -> list[Any]:
    """A row's values, or its first `most`; a value that the payload does not hold whole is cut, or None for a number.

    Text that is not UTF-8 stays bytes. Raises `Unreadable` where the row's head is not whole.
    """
    kinds, at = types(payload)
    found: list[Any] = []
    for kind in kinds[:most]:
        octets = payload[at : at + extent(kind)]
        at += extent(kind)
        found.append(_value(kind, octets))
    return found


def _value(kind: int, octets: bytes) -> Any:
    if kind == 0 or (len(octets) < extent(kind) and kind < 12):
        return None
    if kind in (8, 9):
        return kind - 8
    if kind == _REAL:
        return struct.unpack(">d", octets)[0]
    if kind < 12:
        return int.from_bytes(octets, "big", signed=True)
    if kind % 2:
        try:
            return octets.decode()
        except UnicodeDecodeError:
            return octets
    return octets
