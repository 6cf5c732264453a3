"""Where the rows of each job are in a damaged database.

There are two ways to them. The trees lead to what is in the queue; where a tree has a gap, the pages that no tree leads
to any more are gone through one by one. Such a page may also have been given up long ago, with rows that have changed
since: only where the list of free pages is intact is it known that it was not, and its rows are as good as the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from service.queue.pages import (
    INNER_INDEX,
    INNER_TABLE,
    LEAF_INDEX,
    LEAF_TABLE,
    Cell,
    Pages,
    Unreadable,
    values,
)
from service.queue.shapes import Table

_WANTED: Final = ("job", "recipient", "delivery", "content", "piece", "owed", "alias")
_ALIKE: Final = "alias"  # its rows look like those of an index: only its tree tells them apart
_OF_STATE: Final = "job_state"


class Found:
    """The places of rows, by the jobs that they belong to, as one way led to them.

    `trusts` tells whether a page is as the queue last had it, not a former state of it. `gaps` has the tables of which
    something may be missing. A place is a page's number and, in its lowest 16 bits, a cell's.
    """

    def __init__(self, pages: Pages, tables: dict[str, Table], trusts: Callable[[int], bool]) -> None:
        self.pages = pages
        self.tables = tables
        self.gaps: set[str] = set()
        self.jobs: dict[int, int] = {}
        self.content: dict[int, int] = {}
        self.owed: dict[int, int] = {}
        self.pieces: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self.recipients: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self.ends: dict[int, int] = {}
        """The last position of each job behind whose recipients it is known that there is none more."""
        self.deliveries: defaultdict[int, list[int]] = defaultdict(list)
        self.aliases: defaultdict[int, list[int]] = defaultdict(list)
        self.indexed: dict[int, str] = {}
        """The state of each job, where only the index of jobs tells of it."""
        self._trusts = trusts

    def trusts(self, place: int) -> bool:
        """Whether the row there is as the queue last had it."""
        return self._trusts(place >> 16)

    def row(self, table: str, place: int) -> dict[str, Any]:
        """The row at this place. Raises `Unreadable`."""
        return self.tables[table].row(self.pages, self.pages.cell(place >> 16, place & 0xFFFF))

    def blob(self, table: str, place: int) -> tuple[bytes, bool]:
        """The content at this place, as far as it is there, and whether that is all. Raises `Unreadable`."""
        return self.tables[table].blob(self.pages, self.pages.cell(place >> 16, place & 0xFFFF))

    def take(self, name: str, cells: Iterable[Cell | None]) -> set[int]:
        """Note the rows of this table among the cells, which are in their order; return the pages that have any."""
        table = self.tables[name]
        pages: set[int] = set()
        before: tuple[int, int] | None = None
        for cell in cells:
            if cell is None or not table.fits(cell):
                self.gaps.add(name)
                before = None
                continue
            pages.add(cell.page)
            job, position = self._note(name, cell)
            if name == "recipient":
                self._end(before, job)
                before = job, position
        self._end(before, None)
        return pages

    def _end(self, before: tuple[int, int] | None, job: int | None) -> None:
        if before is not None and before[0] != job:
            self.ends[before[0]] = before[1]

    def _note(self, name: str, cell: Cell) -> tuple[int, int]:
        """Note one row; return the job, and the number that its row has there."""
        place = cell.page << 16 | cell.slot
        if name in ("job", "content", "owed"):
            {"job": self.jobs, "content": self.content, "owed": self.owed}[name].setdefault(cell.key, place)
            return cell.key, 0
        first = values(cell.local, 2)
        if name == "alias":
            self.aliases[int(first[1])].append(place)
            return int(first[1]), 0
        job = int(first[0])
        if name == "delivery":
            self.deliveries[job].append(place)
            return job, 0
        (self.recipients if name == "recipient" else self.pieces)[job].setdefault(int(first[1]), place)
        return job, int(first[1])

    def take_index(self, index: Table) -> None:
        """Note which jobs the index by state knows."""
        for cell in self.pages.walk(index.root, index.leaf):
            if cell is None:
                continue
            try:
                state, job = values(cell.local, 2)
            except (Unreadable, ValueError):
                continue
            if isinstance(state, str) and isinstance(job, int):
                self.indexed[job] = state


def find(pages: Pages, tables: dict[str, Table], free: set[int] | None, trusts: Callable[[int], bool]) -> list[Found]:
    """Go both ways: what the trees lead to and, if they have gaps, what is on the pages that they miss.

    `free` are the pages that are free, None where that is not known; `trusts` tells whether a page's newest content is
    there.
    """
    by_tree = Found(pages, tables, trusts)
    taken: set[int] = set()
    for name in _WANTED:
        if name in tables:
            taken |= by_tree.take(name, pages.walk(tables[name].root, tables[name].leaf))
    if not by_tree.gaps:
        return [by_tree]
    if "job" in by_tree.gaps:
        by_tree.take_index(tables[_OF_STATE])
    missed = Found(pages, tables, _nothing if free is None else trusts)
    names = by_tree.gaps - {_ALIKE}
    for run in _strays(pages, taken | (free or set())):
        for name in names:
            if any(cell is not None and tables[name].fits(cell) for cell in run):
                missed.take(name, run)
    return [by_tree, missed]


def _nothing(_: int) -> bool:
    return False


def _strays(pages: Pages, known: set[int]) -> Iterator[list[Cell | None]]:
    """The rows on pages that are not known, in runs that follow one another in their tree."""
    kinds = {}
    for number in range(2, pages.count + 1):
        if number not in known:
            kind = _kind(pages, number)
            if kind is not None:
                kinds[number] = kind
    children = {child for number, kind in kinds.items() if kind == INNER_INDEX for child in _children(pages, number)}
    seen: set[int] = set()
    tops = [number for number, kind in kinds.items() if kind == INNER_INDEX and number not in children]
    rest = [number for number, kind in kinds.items() if kind != INNER_TABLE]
    for number in (*tops, *rest):
        if number not in seen:
            leaf = LEAF_TABLE if kinds[number] == LEAF_TABLE else LEAF_INDEX
            run = [*pages.walk(number, leaf), None]
            seen.add(number)
            seen.update(cell.page for cell in run if cell is not None)
            yield run


def _kind(pages: Pages, number: int) -> int | None:
    try:
        return pages.page(number).kind
    except Unreadable:
        return None


def _children(pages: Pages, number: int) -> Iterator[int]:
    """The pages below an inner page."""
    page = pages.page(number)
    yield page.last
    for index in range(len(page.cells)):
        try:
            yield pages.cell(number, index).child
        except Unreadable:
            continue
