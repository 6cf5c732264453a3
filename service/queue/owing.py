"""Statements about result files that are still to be written.

A row in `owed` says that a job's result file does not show how the job stands now. Its version changes with the job, so
that a file written from an older view does not pay for a newer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import apsw
import msgspec

from service.queue.looking import views
from service.queue.store import JobView

ResultPolicy = Literal["all", "failed", "none"]
Changed = tuple[int, bool]
"""A job's number, and whether it has ended."""


class OwedResult(msgspec.Struct, frozen=True):
    """A result file to be written: `name` is without its ending, `version` tells which state the view shows. `alias`:
    it is the result of a job with this one's key that was not taken again."""

    job: int
    version: int
    name: str
    view: JobView
    alias: bool = False


def owe(connection: apsw.Connection, changed: Sequence[Changed], results: ResultPolicy, version: int) -> list[Changed]:
    """Note that these jobs' results, and their aliases, are to be written, as far as they get one; return those that
    may."""
    wanted = _wanted(connection, changed, results)
    versions = [(version, job) for job, _ in wanted]
    connection.executemany("INSERT OR REPLACE INTO owed SELECT id, ? FROM job WHERE id = ? AND shown", versions)
    connection.executemany("INSERT OR REPLACE INTO owed_alias SELECT job, result, ? FROM alias WHERE job = ?", versions)
    return wanted


def owe_one(
    connection: apsw.Connection, changed: Changed, name: str, results: ResultPolicy, version: int
) -> list[Changed]:
    """Note that of the results of this job the one of this name is to be written, the job's own or an alias."""
    wanted = _wanted(connection, [changed], results)
    for job, _ in wanted:
        connection.execute(
            "INSERT OR REPLACE INTO owed SELECT id, ? FROM job WHERE id = ? AND result = ? AND shown",
            (version, job, name),
        )
        connection.execute(
            "INSERT OR REPLACE INTO owed_alias SELECT job, result, ? FROM alias WHERE job = ? AND result = ?",
            (version, job, name),
        )
    return wanted


def _wanted(connection: apsw.Connection, changed: Sequence[Changed], results: ResultPolicy) -> list[Changed]:
    if results == "none":
        return []
    if results == "failed":
        query = "SELECT 1 FROM job WHERE id = ? AND state IN ('failed', 'partly')"
        return [one for one in changed if one[1] and connection.execute(query, (one[0],)).fetchone()]
    return list(changed)


_OWED = "FROM {table} WHERE job IN (SELECT value FROM json_each(?))"
_OWN = "SELECT job, version " + _OWED.format(table="owed")
_ALIASES = "SELECT job, result, version " + _OWED.format(table="owed_alias")


def owed_results(connection: apsw.Connection, jobs: Sequence[int], offset: float) -> list[OwedResult]:
    """What is to be written for these jobs.

    `offset` is what the wall clock has beyond the store's times.
    """
    numbers = (str(list(jobs)),)
    # the versions first: a view that is newer than its version is only written once more
    own: dict[Any, Any] = dict(connection.execute(_OWN, numbers))
    aliases: list[Any] = connection.execute(_ALIASES, numbers).fetchall()
    standing = {job: (name, view) for job, name, view in views(connection, [*own, *(a[0] for a in aliases)], offset)}
    found = [OwedResult(job, version, *standing[job]) for job, version in own.items() if job in standing]
    return found + [
        OwedResult(job, version, name, standing[job][1], alias=True)
        for job, name, version in aliases
        if job in standing
    ]


def owed_jobs(connection: apsw.Connection, after: int, limit: int) -> list[int]:
    """The next jobs after number `after` that owe a result."""
    query = (
        "SELECT job FROM (SELECT * FROM (SELECT job FROM owed WHERE job > ?1 ORDER BY job LIMIT ?2)"
        " UNION SELECT * FROM (SELECT DISTINCT job FROM owed_alias WHERE job > ?1 ORDER BY job LIMIT ?2))"
        " ORDER BY job LIMIT ?2"
    )
    return [job for (job,) in connection.execute(query, (after, limit))]


def discharge(connection: apsw.Connection, written: Sequence[OwedResult]) -> None:
    """These have been written; a job that has changed since still owes."""
    connection.executemany(
        "DELETE FROM owed WHERE job = ? AND version = ?",
        [(each.job, each.version) for each in written if not each.alias],
    )
    connection.executemany(
        "DELETE FROM owed_alias WHERE job = ? AND result = ? AND version = ?",
        [(each.job, each.name, each.version) for each in written if each.alias],
    )
