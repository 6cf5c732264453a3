"""Statements that take a job in.

A job is ours once the transaction around `accept_job` has committed. Each entry has its id before its first try, so
that a transaction which failed at COMMIT and came back all the same is recognised when it is tried again.

A job with the key of one that was accepted before is not taken; its result is an alias: one more file that shows how
the first stands.
"""

from __future__ import annotations

import apsw
import msgspec

from service.queue.ids import id_text
from service.queue.owing import Changed
from service.queue.schema import PIECE
from service.queue.store import PRIORITIES, Accepted, Source, Submission

KEY_KEPT = 7 * 86400.0
"""Seconds for which a key is remembered, from the first job's acceptance (README, Jobs)."""

_ALIASES = "SELECT 1 FROM alias WHERE result = ?"
_IS_ALIAS = "SELECT 1 FROM alias WHERE result = ? AND job = ?"
_RESULT_OCTETS = 255 - len(".json")
_encode = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, frozen=True):
    """A submission with what is decided once, before it is tried: its id and the (queue) time."""

    id: int
    at: float
    submission: Submission


def accept_job(
    connection: apsw.Connection, entry: Entry, again: bool = False, *, offset: float = 0.0
) -> tuple[Accepted, Changed | None]:
    """Insert one job with its recipients, its deliveries and, where it is small, its content.

    Returns what to tell, and the job whose result is to be written, if any. `again`: an earlier try failed at COMMIT.
    `offset` is what the wall clock, which a `not_before` goes by, has beyond the entry's time.
    """
    submission = entry.submission
    if again:
        row = connection.execute("SELECT result FROM job WHERE id = ?", (entry.id,)).fetchone()
        if row is not None:
            return Accepted(id_text(entry.id), row[0]), (entry.id, False)
    known = _known_file(connection, entry) or (None if again else _repeated_file(connection, entry))
    if known is not None:
        return known, None
    first = _first_with_key(connection, entry)
    if first is not None:
        return _accept_alias(connection, entry, *first)
    job = submission.job
    begins = entry.at if job.not_before is None else max(entry.at, job.not_before - offset)
    name = _insert_job(connection, entry, begins)
    rows = [
        (entry.id, position, address, site)
        for position, (address, site) in enumerate(zip(job.recipients, submission.sites, strict=True))
    ]
    connection.executemany("INSERT INTO recipient (job, position, address, site) VALUES (?, ?, ?, ?)", rows)
    connection.executemany(
        "INSERT INTO delivery (job, site, due, priority) VALUES (?, ?, ?, ?)",
        [(entry.id, site, begins, PRIORITIES.index(job.priority)) for site in dict.fromkeys(submission.sites)],
    )
    if len(job.content) <= PIECE:
        connection.execute("INSERT INTO content VALUES (?, ?)", (entry.id, job.content))
    return Accepted(id_text(entry.id), name), (entry.id, False)


def insert_piece(connection: apsw.Connection, job: int, number: int, data: bytes | memoryview) -> None:
    """Stage one piece of a large content ahead of its job, so that no transaction carries all of it."""
    connection.execute("INSERT OR REPLACE INTO piece VALUES (?, ?, ?)", (job, number, data))


def _insert_job(connection: apsw.Connection, entry: Entry, begins: float) -> str:
    submission, job, source = entry.submission, entry.submission.job, entry.submission.source
    content = job.content
    id = id_text(entry.id)
    name = _name_for(connection, submission, id)
    connection.execute(
        "INSERT INTO job (id, name, result, state, sender, accepted_at, begins_at, not_before, expires_at,"
        " in_doubt, size, eight_bit, pieces, tags, key, inode, mtime_ns, octets, file, shown)"
        " VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.id,
            submission.name,
            name,
            job.sender,
            entry.at,
            begins,
            job.not_before if begins > entry.at else None,
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


def _name_for(connection: apsw.Connection, submission: Submission, id: str) -> str:
    name = result_name(submission.name, id)
    if submission.name_taken or not _free_name(connection, name):
        return unused_name(connection, submission.name, id)
    return name


def unused_name(connection: apsw.Connection, name: str, id: str) -> str:
    """NAME-ID, or where somebody has dropped a file of that very name, NAME-ID-2 and so on."""
    number, found = 1, result_name(name, id, taken=True)
    while is_taken(connection, found):
        number += 1
        found = result_name(name, f"{id}-{number}", taken=True)
    return found


def is_taken(connection: apsw.Connection, result: str) -> bool:
    """Whether a job, or an alias, has a result of this name."""
    query = "SELECT 1 FROM job WHERE result = ?1 UNION ALL SELECT 1 FROM alias WHERE result = ?1"
    return connection.execute(query, (result,)).fetchone() is not None


def _free_name(connection: apsw.Connection, name: str) -> bool:
    """Whether a result may be called so: no job has the name, or one whose result is written and, so, was removed."""
    return _free_of_aliases(connection, name) and _free_of_jobs(connection, name)


def _free_of_aliases(connection: apsw.Connection, name: str) -> bool:
    if not connection.execute(_ALIASES, (name,)).fetchone():
        return True
    over = (
        "job IN (SELECT id FROM job WHERE finished_at IS NOT NULL)"
        " AND NOT EXISTS (SELECT 1 FROM owed_alias o WHERE o.job = alias.job AND o.result = alias.result)"
    )
    connection.execute(f"DELETE FROM alias WHERE result = ? AND {over}", (name,))  # noqa: S608 (the words above)
    return not connection.execute(_ALIASES, (name,)).fetchone()


def _free_of_jobs(connection: apsw.Connection, name: str) -> bool:
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
            "UPDATE job SET result = ? WHERE id = ?", (unused_name(connection, dropped, id_text(job)), job)
        )
    return bool(over)


def _known_file(connection: apsw.Connection, entry: Entry) -> Accepted | None:
    """The job that this very file is already."""
    source = entry.submission.source
    if source is None:
        return None
    row = connection.execute(
        "SELECT id, result FROM job WHERE inode = ? AND mtime_ns = ? AND octets = ? AND file = ?",
        _identity(source),
    ).fetchone()
    return None if row is None else Accepted(id_text(row[0]), row[1], known=True)


def _repeated_file(connection: apsw.Connection, entry: Entry) -> Accepted | None:
    """The job whose key this very file has repeated already."""
    source = entry.submission.source
    if source is None:
        return None
    row = connection.execute(
        "SELECT id, result FROM job WHERE id ="
        " (SELECT job FROM repeated WHERE inode = ? AND mtime_ns = ? AND octets = ? AND file = ?)",
        _identity(source),
    ).fetchone()
    return None if row is None else Accepted(id_text(row[0]), row[1], known=True)


def _identity(source: Source) -> tuple[int, int, int, str]:
    return source.inode, source.mtime_ns, source.size, source.name


def _first_with_key(connection: apsw.Connection, entry: Entry) -> tuple[int, str, bool] | None:
    """The job that had this key before: its number, its result's name, whether it has ended."""
    key = entry.submission.job.key
    if key is None:
        return None
    row: tuple[int, str, bool] | None = connection.execute(
        "SELECT id, result, finished_at IS NOT NULL FROM job"
        " WHERE key = ? AND (accepted_at > ? OR finished_at IS NULL) ORDER BY id LIMIT 1",
        (key, entry.at - KEY_KEPT),
    ).fetchone()
    return row


def _accept_alias(
    connection: apsw.Connection, entry: Entry, first: int, result: str, ended: bool
) -> tuple[Accepted, Changed]:
    """Let the first job's result be shown under this one's name, too; the same name is shown anew."""
    submission = entry.submission
    if submission.source is not None:
        connection.execute(
            "INSERT OR REPLACE INTO repeated VALUES (?, ?, ?, ?, ?)", (*_identity(submission.source), first)
        )
    id = id_text(entry.id)
    for own in (result_name(submission.name, id), result_name(submission.name, id, taken=True)):
        if own == result or connection.execute(_IS_ALIAS, (own, first)).fetchone():
            break
    else:
        own = _name_for(connection, submission, id)
        connection.execute("INSERT INTO alias VALUES (?, ?)", (own, first))
    return Accepted(id_text(first), own, known=True), (first, bool(ended))


def result_name(name: str, id: str, *, taken: bool = False) -> str:
    """`name`, or NAME-ID where the name is `taken`, or too long for `.json` behind it and has to be cut."""
    octets = name.encode()
    if not taken and len(octets) <= _RESULT_OCTETS:
        return name
    return octets[: _RESULT_OCTETS - len(id) - 1].decode(errors="ignore") + f"-{id}"
