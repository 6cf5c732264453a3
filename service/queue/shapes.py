"""What the rows of each table look like, as the database file itself says, or else as this deferd makes its tables.

A row is told from any other sequence of octets by its values' types and its length. So a page that no tree leads to
any more can be recognised, and one that the wrong tree leads to is not believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import apsw

from service.queue.pages import LEAF_INDEX, LEAF_TABLE, Cell, Pages, Unreadable, extent, types, values
from service.queue.schema import PIECE, TABLES

_MOST: Final = 8 * 1024 * 1024  # octets of a row that is believed to be one
_SCHEMA: Final = 5  # values of a row that describes a table


class Column(NamedTuple):
    """A column: `number` where it is the row's number, `needed` where NULL is no value of it."""

    name: str
    kind: str
    number: bool
    needed: bool
    default: Any

    def takes(self, type: int) -> bool:
        """Whether a value of this serial type may be in it."""
        if type == 0 or self.number:
            return type == 0 and (self.number or not self.needed)
        if self.kind == "TEXT":
            return type >= 13 and type % 2 == 1
        if self.kind == "BLOB":
            return type >= 12 and type % 2 == 0
        return self.kind == "ANY" or type < 7 or type in (8, 9) or (self.kind == "REAL" and type == 7)


class Table(NamedTuple):
    """A table: its tree's first page, the kind of its leaves, its columns in the order in which a row has them."""

    name: str
    root: int
    leaf: int
    columns: tuple[Column, ...]

    def fits(self, cell: Cell) -> bool:
        """Whether the cell looks like a row of this table."""
        try:
            kinds, start = types(cell.local)
        except Unreadable:
            return False
        if not 0 < len(kinds) <= len(self.columns) or start + sum(map(extent, kinds)) != cell.size:
            return False
        if not all(column.takes(kind) for column, kind in zip(self.columns, kinds, strict=False)):
            return False
        return all(not column.needed or column.default is not None for column in self.columns[len(kinds) :])

    def row(self, pages: Pages, cell: Cell) -> dict[str, Any]:
        """The row by its columns' names. Raises `Unreadable` where any of it is missing, or text is no text."""
        payload = pages.payload(cell, _MOST)
        if len(payload) < cell.size:
            raise Unreadable(f"a row of {self.name} is not whole")
        found: dict[str, Any] = {column.name: column.default for column in self.columns}
        for column, value in zip(self.columns, values(payload), strict=False):
            if column.kind == "TEXT" and isinstance(value, bytes):
                raise Unreadable(f"{self.name}.{column.name} is no text")
            if column.number:
                found[column.name] = cell.key
            else:  # whole numbers are kept as such also where any are meant
                found[column.name] = float(value) if column.kind == "REAL" and value is not None else value
        return found

    def blob(self, pages: Pages, cell: Cell) -> tuple[bytes, bool]:
        """The BLOB that ends the row, as far as it is there, and whether that is all. Raises `Unreadable`."""
        payload = pages.payload(cell, 2 * PIECE)
        data = values(payload)[-1]
        return data if isinstance(data, bytes) else b"", len(payload) == cell.size


def tables(pages: Pages) -> dict[str, Table]:
    """The tables and (without columns) the indexes of the database, by name."""
    fresh = _fresh(pages.size)
    found = {name: (root, sql) for name, root, sql in _described(pages) if name in fresh and 1 < root <= pages.count}
    with _memory() as memory:
        return {name: _table(memory, name, found.get(name, made), made[1]) for name, made in fresh.items()}


def _described(pages: Pages) -> Iterator[tuple[str, int, str]]:
    """What the file says of its tables, as far as it can be read."""
    for cell in pages.walk(1, LEAF_TABLE):
        if cell is None:
            continue
        try:
            found = values(pages.payload(cell, _MOST))
        except Unreadable:
            continue
        if len(found) == _SCHEMA and isinstance(found[3], int) and all(isinstance(found[n], str) for n in (1, 4)):
            yield found[1], found[3], found[4]


class _memory:  # noqa: N801 (used as a word)
    """A database in memory."""

    def __init__(self, page_size: int = 4096) -> None:
        self._connection = apsw.Connection(":memory:")
        self._connection.execute(f"PRAGMA page_size = {page_size}")

    def __enter__(self) -> apsw.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _fresh(page_size: int) -> dict[str, tuple[int, str]]:
    """A database that was just made: its tables and indexes, each with its first page and its description."""
    with _memory(page_size) as connection:
        connection.execute(TABLES)
        rows = connection.execute("SELECT name, rootpage, sql FROM sqlite_schema WHERE rootpage > 0 AND sql NOT NULL")
        return {name: (root, sql) for name, root, sql in rows}


def _table(memory: apsw.Connection, name: str, found: tuple[int, str], ours: str) -> Table:
    root, sql = found
    if not ours.startswith("CREATE TABLE"):
        return Table(name, root, LEAF_INDEX, ())
    try:
        rowid, columns = _columns(memory, name, sql)
    except apsw.Error:  # its description is damaged
        rowid, columns = _columns(memory, name, ours)
    return Table(name, root, LEAF_TABLE if rowid else LEAF_INDEX, columns)


def _columns(memory: apsw.Connection, name: str, sql: str) -> tuple[bool, tuple[Column, ...]]:
    """Whether its rows have numbers, and the columns in the order in which a row has them."""
    memory.execute(f'DROP TABLE IF EXISTS "{name}"')
    memory.execute(sql)
    rowid = not memory.execute("SELECT wr FROM pragma_table_list(?)", (name,)).get
    rows: list[tuple[str, str, int, str | None, int]] = memory.execute(  # type: ignore[assignment]
        "SELECT name, type, pk, dflt_value, [notnull] FROM pragma_table_info(?)", (name,)
    ).fetchall()
    keys = sorted((row for row in rows if row[2]), key=lambda row: row[2])
    if not rows:
        raise apsw.SQLError(f"this does not make {name}")
    if not rowid:
        rows = [*keys, *(row for row in rows if not row[2])]
    return rowid, tuple(
        Column(
            column,
            kind,
            number=rowid and bool(key) and kind == "INTEGER" and len(keys) == 1,
            needed=bool(needed or key),
            default=None if default is None else memory.execute(f"SELECT {default}").get,
        )
        for column, kind, key, default, needed in rows
    )
