"""What can be read of the jobs in a damaged database.

The file is only read, its log with it; nothing of either is believed that does not look like a row of ours. A job is
whole where its row, all its recipients and, while any of them waits, its content were read. That no recipient is
missing is known from what follows the last one. Of two readings of one recipient the one that ended counts, so that
whoever is known anywhere to have got the message does not get it again. Rows that may be a former state of the queue
are used, but what they tell is `doubtful`: such a job is not to be sent before somebody has looked at it.

What cannot be noticed: octets overwritten within a text that still make a text, and transactions at the very end of the
log, or all of a log that is missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from service.queue.found import Found, find
from service.queue.frames import Frame, LogFile, read_log
from service.queue.pages import Pages, Unreadable
from service.queue.plausible import fault_of_content, fault_of_job, fault_of_recipients
from service.queue.schema import VERSION
from service.queue.shapes import Table, tables
from service.queue.store import StoreFailed

Row = dict[str, Any]

_MAGIC: Final = b"SQLite format 3\0"
_PAGE: Final = 4096
"""Octets of a page where the file does not say: SQLite's own choice, which deferd leaves as it is."""


class Salvaged(msgspec.Struct, kw_only=True):
    """A job as far as it could be read.

    `why` tells what is missing, None where it is whole. `fit`: it may go into a queue. `content` is None where none is
    needed any more, or none was found.
    """

    id: int
    why: str | None = None
    fit: bool = False
    doubtful: bool = False
    job: Row | None = None
    recipients: list[Row] = []
    deliveries: list[Row] = []
    aliases: list[str] = []
    owed: bool = False
    content: bytes | None = None

    @property
    def nothing(self) -> bool:
        """Whether no more is known than that there was a job."""
        return self.job is None and not self.recipients and not self.content


class Salvage:
    """The jobs in the database at `path`. A context manager, which closes the file.

    `log_damaged` tells that transactions are missing from the log: the jobs may have gone further than they show.
    `meta` has the queue's single values, as far as they can be read.
    """

    def __init__(self, path: Path) -> None:
        """Find what there is. Raises `OSError`, and `StoreFailed` where a newer deferd has written the file."""
        self._files = [os.open(path, os.O_RDONLY | os.O_CLOEXEC)]
        try:
            log = self._open_log(path)
            self.meta: dict[str, Any] = {}
            self._ways = self._find(path, log)
            self.log_damaged = log.damaged
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Salvage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and its log."""
        while self._files:
            os.close(self._files.pop())

    def _open_log(self, path: Path) -> LogFile:
        try:
            self._files.append(os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return LogFile()
        return read_log(self._files[1], _page_size(os.pread(self._files[0], 100, 0)))

    def _find(self, path: Path, log: LogFile) -> list[Found]:
        """Look through the newest state first, then through the one that SQLite would take, if that is another."""
        states = [(*log.frames, *log.beyond), log.frames] if log.damaged else [log.frames]
        found = []
        for number, frames in enumerate(states):
            pages, free = self._pages(path, log, frames)
            shapes = tables(pages)
            found += find(pages, shapes, free, log.trusts if number == 0 else lambda _: False)
            self.meta = _meta(pages, shapes["meta"]) | self.meta
        return found

    def _pages(self, path: Path, log: LogFile, frames: tuple[Frame, ...]) -> tuple[Pages, set[int] | None]:
        database = self._files[0]
        size = log.page_size or _page_size(os.pread(database, 100, 0))
        count = max(os.fstat(database).st_size // size, *(frame.commit for frame in frames), 0)
        overlay = {frame.page: frame.at for frame in frames}
        pages = Pages(database, size, count, self._files[1] if overlay else None, overlay)
        try:
            header = pages.read(1)[:100]
        except Unreadable:
            return pages, None
        if not header.startswith(_MAGIC):
            return pages, None
        version = int.from_bytes(header[60:64], "big")
        if VERSION < version < VERSION + 1000:  # beyond that it is no version
            raise StoreFailed(f"{path} was written by a newer deferd (schema {version}, known {VERSION})")
        return pages, pages.free(int.from_bytes(header[32:36], "big"), int.from_bytes(header[36:40], "big"))

    def jobs(self) -> Iterator[Salvaged]:
        """Every job that there is a trace of, oldest first."""
        ids = {id for way in self._ways for id in way.jobs}
        if any("job" in way.gaps for way in self._ways):  # else what has no job is a left-over, not a loss
            for way in self._ways:
                ids.update(way.indexed, way.recipients, way.deliveries, way.content, way.pieces, way.owed)
        return (self._salvage(id) for id in sorted(ids))

    def _salvage(self, id: int) -> Salvaged:
        salvaged = Salvaged(id=id)
        positions = self._recipients(salvaged)
        self._job(salvaged)
        salvaged.deliveries = self._rows(id, "delivery")
        salvaged.aliases = [row["result"] for row in self._rows(id, "alias")]
        salvaged.owed = any(id in way.owed for way in self._ways)
        job = salvaged.job
        if job is None:
            salvaged.content = self._content(id, None)[0]
            salvaged.why = "the job itself cannot be read" + self._state(id)
            return salvaged
        ends = [way.ends[id] for way in self._ways if id in way.ends]
        missing = not positions or positions != list(range(max(ends, default=-1) + 1))
        damaged = fault_of_recipients(salvaged.recipients)
        if damaged is not None or missing:
            salvaged.why = damaged or "some of its recipients cannot be read"
        waiting = any(row["state"] == "waiting" for row in salvaged.recipients)
        if job["finished_at"] is not None or not (waiting or missing):
            salvaged.fit = damaged is None
            return salvaged
        content, fault = self._content(id, job)
        salvaged.content = content
        salvaged.why = salvaged.why or fault
        salvaged.fit = salvaged.why is None
        return salvaged

    def _state(self, id: int) -> str:
        state = next((way.indexed[id] for way in self._ways if id in way.indexed), None)
        return f"; it was {state}" if state else ""

    def _job(self, salvaged: Salvaged) -> None:
        """The first reading of the job's row, but one that ended before any that did not."""
        for way in self._ways:
            place = way.jobs.get(salvaged.id)
            if place is None:
                continue
            try:
                row = way.row("job", place)
            except Unreadable:
                continue
            if fault_of_job(salvaged.id, row) is None and (salvaged.job is None or row["finished_at"] is not None):
                salvaged.job = row
                salvaged.doubtful = salvaged.doubtful or not way.trusts(place)
                if row["finished_at"] is not None:
                    break

    def _recipients(self, salvaged: Salvaged) -> list[int]:
        """The recipients by their positions, which are returned."""
        found: dict[int, Row] = {}
        for way in self._ways:
            for position, place in way.recipients.get(salvaged.id, {}).items():
                try:
                    row = way.row("recipient", place)
                except Unreadable:
                    continue
                known = found.get(position)
                if known is None:
                    found[position] = row
                    salvaged.doubtful = salvaged.doubtful or not way.trusts(place)
                elif known["state"] == "waiting" and known["address"] == row["address"]:
                    found[position] = row
        positions = sorted(found)
        salvaged.recipients = [found[position] for position in positions]
        return positions

    def _rows(self, id: int, table: str) -> list[Row]:
        """The job's rows in this table, one of each name."""
        found: dict[str, Row] = {}
        for way in self._ways:
            for place in (way.deliveries if table == "delivery" else way.aliases).get(id, ()):
                try:
                    row = way.row(table, place)
                except Unreadable:
                    continue
                found.setdefault(row["site"] if table == "delivery" else row["result"], row)
        return list(found.values())

    def _content(self, id: int, job: Row | None) -> tuple[bytes | None, str | None]:
        """The most that was read of its content, and what is wrong with it."""
        best: bytes | None = None
        fault: str | None = "its content cannot be read"
        for way in self._ways:
            content = _read(way, id)
            if content is None:
                continue
            wrong = None if job is None else fault_of_content(content, job["size"], bool(job["eight_bit"]))
            if wrong is None:
                return content, None
            if best is None or len(content) > len(best):
                best, fault = content, wrong
        return best, fault


def _read(way: Found, id: int) -> bytes | None:
    """The content as far as it goes without a gap; None where there is none."""
    if id in way.content:
        places, table = [way.content[id]], "content"
    elif id in way.pieces:
        pieces = way.pieces[id]
        end = next(number for number in range(len(pieces) + 1) if number not in pieces)
        places, table = [pieces[number] for number in range(end)], "piece"
    else:
        return None
    parts = []
    for place in places:
        try:
            data, whole = way.blob(table, place)
        except Unreadable:
            break
        parts.append(data)
        if not whole:
            break
    return b"".join(parts) if parts else None


def _meta(pages: Pages, table: Table) -> dict[str, Any]:
    found = {}
    for cell in pages.walk(table.root, table.leaf):
        if cell is not None and table.fits(cell):
            with contextlib.suppress(Unreadable):
                row = table.row(pages, cell)
                found[row["name"]] = row["value"]
    return found


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    return size if header.startswith(_MAGIC) and size >= 512 and size & (size - 1) == 0 else _PAGE
