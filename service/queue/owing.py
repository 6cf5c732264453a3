"""Statements about result files that are still to be written.

A row in `owed` says that a job's result file does not show how the job stands now. Its version changes with the job, so
that a file written from an older view does not pay for a newer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import apsw
import msgspec

from service.queue.looking import view
from service.queue.store import JobView

ResultPolicy = Literal["all", "failed", "none"]
Changed = tuple[int, bool]
"""A job's number, and whether it has ended."""


class OwedResult(msgspec.Struct, frozen=True):
    """What is to be written of a job: `names` are those of the files, without their ending: its own, then those of jobs
    with its key that were not taken again. `version` tells which state the view shows."""

    job: int
    version: int
    names: tuple[str, ...]
    view: JobView


def owe(connection: apsw.Connection, changed: Sequence[Changed], results: ResultPolicy, version: int) -> list[Changed]:
    """Note that these jobs' results are to be written, as far as they get one; return those that may."""
    if results == "none":
        return []
    if results == "failed":
        query = "SELECT 1 FROM job WHERE id = ? AND state IN ('failed', 'partly')"
        changed = [one for one in changed if one[1] and connection.execute(query, (one[0],)).fetchone()]
    connection.executemany(
        "INSERT OR REPLACE INTO owed SELECT id, ? FROM job WHERE id = ? AND shown",
        [(version, job) for job, _ in changed],
    )
    return list(changed)


def owed_results(connection: apsw.Connection, jobs: Iterable[int], offset: float) -> list[OwedResult]:
    """What is to be written for these jobs; those that owe nothing any more are left out.

    `offset` is what the wall clock has beyond the store's times.
    """
    found = []
    for job in jobs:
        row = connection.execute("SELECT version FROM owed WHERE job = ?", (job,)).fetchone()
        standing = view(connection, job, offset) if row else None
        if row and standing:
            aliases = connection.execute("SELECT result FROM alias WHERE job = ? ORDER BY result", (job,))
            found.append(OwedResult(job, row[0], (standing[0], *(name for (name,) in aliases)), standing[1]))
    return found


def owed_jobs(connection: apsw.Connection, after: int, limit: int) -> list[int]:
    """The next jobs after number `after` that owe a result."""
    return [job for (job,) in connection.execute("SELECT job FROM owed WHERE job > ? LIMIT ?", (after, limit))]


def discharge(connection: apsw.Connection, written: Iterable[tuple[int, int]]) -> None:
    """These (job, version) have been written; a job that has changed since still owes."""
    connection.executemany("DELETE FROM owed WHERE job = ? AND version = ?", written)
