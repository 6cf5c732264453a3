"""Statements that take a job in.

A job is ours once the transaction around `accept_job` has committed. Each entry has its id before its first try, so
that a transaction which failed at COMMIT and came back all the same is recognised when it is tried again.
"""

from __future__ import annotations

import apsw
import msgspec

from service.queue.ids import id_text
from service.queue.schema import PIECE
from service.queue.store import Accepted, Submission

KEY_KEPT = 7 * 86400.0
"""Seconds for which a key is remembered, from the first job's acceptance (README, Jobs)."""

_RESULT_OCTETS = 255 - len(".json")
_encode = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, frozen=True):
    """A submission with what is decided once, before it is tried: its id and the time."""

    id: int
    at: float
    submission: Submission


def accept_job(connection: apsw.Connection, entry: Entry, again: bool = False) -> tuple[Accepted, bool]:
    """Insert one job with its recipients, its deliveries and, where it is small, its content.

    Returns what to tell, and whether anything was inserted. `again`: an earlier try failed at COMMIT.
    """
    submission = entry.submission
    if again:
        row = connection.execute("SELECT result FROM job WHERE id = ?", (entry.id,)).fetchone()
        if row is not None:
            return Accepted(id_text(entry.id), row[0]), True
    known = _known(connection, entry)
    if known is not None:
        return known, False
    name = _insert_job(connection, entry)
    job = submission.job
    rows = [
        (entry.id, position, address, site)
        for position, (address, site) in enumerate(zip(job.recipients, submission.sites, strict=True))
    ]
    connection.executemany("INSERT INTO recipient (job, position, address, site) VALUES (?, ?, ?, ?)", rows)
    due = max(entry.at, job.not_before or 0)
    connection.executemany(
        "INSERT INTO delivery (job, site, due) VALUES (?, ?, ?)",
        [(entry.id, site, due) for site in dict.fromkeys(submission.sites)],
    )
    if len(job.content) <= PIECE:
        connection.execute("INSERT INTO content VALUES (?, ?)", (entry.id, job.content))
    return Accepted(id_text(entry.id), name), True


def insert_piece(connection: apsw.Connection, job: int, number: int, data: bytes | memoryview) -> None:
    """Stage one piece of a large content ahead of its job, so that no transaction carries all of it."""
    connection.execute("INSERT OR REPLACE INTO piece VALUES (?, ?, ?)", (job, number, data))


def _insert_job(connection: apsw.Connection, entry: Entry) -> str:
    submission, job, source = entry.submission, entry.submission.job, entry.submission.source
    content = job.content
    id = id_text(entry.id)
    name = result_name(submission.name, id)
    if submission.name_taken or not _free_name(connection, name):
        name = result_name(submission.name, id, taken=True)
    connection.execute(
        "INSERT INTO job (id, name, result, state, sender, accepted_at, begins_at, expires_at, in_doubt, size,"
        " eight_bit, pieces, tags, key, inode, mtime_ns, octets, file, shown)"
        " VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.id,
            submission.name,
            name,
            job.sender,
            entry.at,
            begins := max(entry.at, job.not_before or 0),
            None if job.expires is None else begins + job.expires,
            job.in_doubt,
            len(content),
            not content.isascii(),
            max(1, -(-len(content) // PIECE)),
            _encode(job.tags).decode() if job.tags else "{}",
            job.key,
            source and source.inode,
            source and source.mtime_ns,
            source and source.size,
            source and source.name,
            submission.result,
        ),
    )
    return name


def _free_name(connection: apsw.Connection, name: str) -> bool:
    """Whether a result may be called so: no job has the name, or one whose result is written and, so, was removed."""
    former = connection.execute(
        "SELECT id, name, finished_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM owed WHERE owed.job = job.id)"
        " FROM job WHERE result = ?",
        (name,),
    ).fetchone()
    if former is None:
        return True
    job, dropped, over = former
    if over:  # the application has read its result and removed it: the name is the next job's
        connection.execute(
            "UPDATE job SET result = ? WHERE id = ?", (result_name(dropped, id_text(job), taken=True), job)
        )
    return bool(over)


def _known(connection: apsw.Connection, entry: Entry) -> Accepted | None:
    source, key = entry.submission.source, entry.submission.job.key
    row = None
    if source is not None:
        row = connection.execute(
            "SELECT id, result FROM job WHERE inode = ? AND mtime_ns = ? AND octets = ? AND file = ?",
            (source.inode, source.mtime_ns, source.size, source.name),
        ).fetchone()
    if row is None and key is not None:
        row = connection.execute(
            "SELECT id, result FROM job WHERE key = ? AND (accepted_at > ? OR finished_at IS NULL)",
            (key, entry.at - KEY_KEPT),
        ).fetchone()
    return None if row is None else Accepted(id_text(row[0]), row[1], known=True)


def result_name(name: str, id: str, *, taken: bool = False) -> str:
    """`name`, or NAME-ID where the name is `taken`, or too long for `.json` behind it and has to be cut."""
    octets = name.encode()
    if not taken and len(octets) <= _RESULT_OCTETS:
        return name
    return octets[: _RESULT_OCTETS - len(id) - 1].decode(errors="ignore") + f"-{id}"
