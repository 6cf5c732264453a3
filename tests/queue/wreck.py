"""A queue with jobs of all kinds, and ways to damage it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec

from service.queue.changing import change_jobs
from service.queue.pages import LEAF_INDEX, LEAF_TABLE, Cell, Pages, values
from service.queue.salvage import Salvage, Salvaged
from service.queue.schema import PIECE, open_writer
from service.queue.sqlite import SQLiteStore
from service.queue.store import Claim, Settlement, Submission


def message(size: int, mark: str) -> bytes:
    """A message of about this many octets."""
    line = f"{mark} 0123456789 abcdefghijklmnopqrstuvwxyz\r\n".encode()
    return b"Subject: " + mark.encode() + b"\r\n\r\n" + line * max(1, size // len(line))


def fill(
    store: SQLiteStore,
    reactor: Any,
    submission: Callable[..., Submission],
    settlement: Callable[..., Settlement],
    number: int = 60,
) -> None:
    """Accept jobs with one recipient and many, with small content and large; end, hold and claim some."""

    def give(n: int) -> Submission:
        many = 90 if n % 10 == 3 else 1 + n % 3
        size = 3 * PIECE + 1000 if n % 20 == 7 else 20_000 if n % 7 == 2 else 300
        content = message(size, f"job-{n}")
        if n % 6 == 5:
            content += "Grüße\r\n".encode()
        people = [f"person-{n}-{m}@{'abc'[m % 3]}.example" for m in range(many)]
        facts = {"key": f"key-{n}", "tags": {"n": n}, "in_doubt": "hold" if n % 9 == 4 else "retry"}
        return submission(*people, name=f"job-{n}", content=content, **facts)

    for first in range(0, number, 20):
        reactor.wait(store.accept([give(n) for n in range(first, min(first + 20, number))]))

    def settle(claim: Claim, n: int) -> Settlement:
        return settlement(claim, ("delivered", "waiting", "failed", "delivered")[n % 4], hold=n % 16 == 1)

    for site in ("a.example", "b.example"):
        claims = reactor.wait(store.claim(site, number // 2))
        reactor.wait(store.settle([settle(claim, n) for n, claim in enumerate(claims[: number // 3])]))


def hold_some(database: Path, now: float) -> None:
    """Hold every seventh job that waits, as a command does."""
    connection = open_writer(database)
    with connection:
        jobs = [job for (job,) in connection.execute("SELECT DISTINCT job FROM delivery ORDER BY job")]
        change_jobs(connection, "hold", jobs[::7], None, now)
        if connection.execute("SELECT 1 FROM pragma_table_info('delivery') WHERE name = 'dot'").fetchone():
            connection.execute(  # the final dot of some may be out
                "UPDATE delivery SET dot = 'mx.example:25' WHERE state = 1"
                " AND job IN (SELECT id FROM job WHERE in_doubt = 'hold')"
            )
    connection.close()


class Jobs(msgspec.Struct):
    """What SQLite says is in an undamaged queue, by the job's number."""

    job: dict[int, dict[str, Any]]
    recipients: dict[int, list[dict[str, Any]]]
    deliveries: dict[int, dict[str, dict[str, Any]]]
    content: dict[int, bytes]


def jobs(database: Path) -> Jobs:
    """Read an undamaged queue."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)

    def dicts(query: str) -> list[dict[str, Any]]:
        cursor = connection.execute(query)
        return [dict(zip([column[0] for column in cursor.get_description()], row, strict=True)) for row in cursor]

    found = Jobs({row["id"]: row for row in dicts("SELECT * FROM job")}, {}, {}, {})
    for id in found.job:
        found.recipients[id] = dicts(f"SELECT * FROM recipient WHERE job = {id} ORDER BY position")
        found.deliveries[id] = {row["site"]: row for row in dicts(f"SELECT * FROM delivery WHERE job = {id}")}
        pieces = connection.execute("SELECT data FROM piece WHERE job = ? ORDER BY number", (id,)).fetchall()
        content = connection.execute("SELECT data FROM content WHERE job = ?", (id,)).fetchall()
        found.content[id] = b"".join(data for (data,) in (content or pieces))
    connection.close()
    return found


def is_as_before(salvaged: Salvaged, before: Jobs) -> bool:
    """Whether a job that is said to be whole is what it was."""
    id = salvaged.id
    ended = before.job[id]["finished_at"] is not None
    return (
        salvaged.job == before.job[id]
        and salvaged.recipients == before.recipients[id]
        and (ended or salvaged.content == before.content[id])
    )


def copy(database: Path, to: Path) -> Path:
    """The database with its log, as a killed process would leave it, in a folder of its own."""
    to.mkdir()
    for ending in ("", "-wal"):
        path = database.with_name(database.name + ending)
        if path.exists():
            (to / path.name).write_bytes(path.read_bytes())
    return to / database.name


def checkpointed(database: Path) -> Path:
    """The same, with everything in the database and nothing in the log."""
    connection = apsw.Connection(str(database))
    connection.execute("SELECT count(*) FROM job").fetchall()  # only now the log is looked at
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    return database


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Damage."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def overwrite_pages(path: Path, random: Random, number: int, fill: Callable[[int], bytes]) -> set[int]:
    """Overwrite so many pages somewhere after the first; return which."""
    count = path.stat().st_size // 4096
    pages = set(random.sample(range(2, count + 1), number))
    for page in pages:
        overwrite(path, (page - 1) * 4096, fill(4096))
    return pages


def zeros(number: int) -> bytes:
    return bytes(number)


def noise(number: int) -> bytes:
    return Random(number).randbytes(number)


def pages_of_jobs(database: Path) -> dict[int, set[int]]:
    """The pages that each job of an undamaged queue needs: its rows', its content's, and the one that tells what comes
    after its last recipient."""
    with Salvage(database) as salvage:
        (way,) = salvage._ways
        needs: dict[int, set[int]] = {id: {place >> 16} for id, place in way.jobs.items()}
        cells = list(way.pages.walk(way.tables["recipient"].root, LEAF_INDEX))
        for cell, after in zip(cells, [*cells[1:], cells[-1]], strict=True):
            needs[values(cell.local, 1)[0]] |= {cell.page, after.page}
        page = way.tables["recipient"].root  # that nothing comes after the very last is told by all on the way to it
        while page:
            needs[values(cells[-1].local, 1)[0]].add(page)
            page = way.pages.page(page).last
        for table in ("content", "piece"):
            for cell in way.pages.walk(way.tables[table].root, LEAF_TABLE):
                job = cell.key if table == "content" else values(cell.local, 1)[0]
                if job in needs:
                    needs[job] |= {cell.page, *_chain(way.pages, cell)}
    return needs


def _chain(pages: Pages, cell: Cell) -> Iterator[int]:
    left, page = cell.size - len(cell.local), cell.chain
    while left > 0:
        yield page
        left -= pages.size - 4
        page = int.from_bytes(pages.read(page)[:4], "big")


def inner_page(database: Path, table: str, depth: int) -> int:
    """The first page of a table's tree, or the first of those so far below it."""
    with Salvage(database) as salvage:
        (way,) = salvage._ways
        page = way.tables[table].root
        for _ in range(depth):
            if way.pages.page(page).last:
                page = way.pages.cell(page, 0).child
        return page


def content_page(database: Path) -> int:
    """A page in the middle of some large content."""
    with Salvage(database) as salvage:
        (way,) = salvage._ways
        cell = next(way.pages.walk(way.tables["piece"].root, LEAF_TABLE))
        return list(_chain(way.pages, cell))[5]


def leaves(database: Path, table: str) -> list[int]:
    """The pages of a table's rows, in their order."""
    with Salvage(database) as salvage:
        (way,) = salvage._ways
        shape = way.tables[table]
        return list(dict.fromkeys(cell.page for cell in way.pages.walk(shape.root, shape.leaf) if cell is not None))
