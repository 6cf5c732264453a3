"""Statements that look at jobs for an operator: what a result says of each, and what only the queue knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import apsw
import msgspec

from config.units import rate_in_words
from service.message.job import InDoubt, Priority
from service.queue.ids import id_number, id_text
from service.queue.looking import rfc3339_wall, show
from service.queue.store import PRIORITIES, JobView
from service.timestamp import rfc3339

AtSite = Literal["waiting", "in_flight", "held", "done"]
_AT_SITE: Final[tuple[AtSite, ...]] = ("waiting", "in_flight", "held")
"""By the state of a delivery."""

UNDER_WAY: Final = """
SELECT d.job, max(d.state = 1), min(d.priority),
       max(iif(d.state = 0 AND d.due >= j.begins_at AND j.begins_at > ?2, j.not_before, NULL)),
       max(iif(d.state = 0, x.why, NULL)), min(iif(d.state = 0, p.rate, NULL))
FROM delivery d JOIN job j ON j.id = d.job
LEFT JOIN rest x ON x.site = d.site LEFT JOIN pace p ON p.site = d.site
WHERE d.job IN (SELECT value FROM json_each(?1)) GROUP BY d.job
"""
SITES: Final = """
SELECT r.site, d.state, d.attempts, iif(d.state = 0, max(d.due, ifnull(x.ends, d.due), ifnull(p.next, d.due)), NULL),
       d.doubts, iif(d.state = 0, x.why, NULL), p.rate
FROM (SELECT site, min(position) AS first FROM recipient WHERE job = ?1 GROUP BY site) r
LEFT JOIN delivery d ON d.job = ?1 AND d.site = r.site LEFT JOIN rest x ON x.site = r.site
LEFT JOIN pace p ON p.site = r.site ORDER BY r.first
"""
NAMED: Final = """
SELECT id FROM job WHERE result = ?1 UNION ALL SELECT job FROM alias WHERE result = ?1
"""
FACTS: Final = "SELECT sender, size, key, in_doubt, ifnull(expires_at, begins_at + ?) FROM job WHERE id = ?"


class ListedJob(JobView, frozen=True, kw_only=True):
    """A job as `deferd queue list` shows it. `in_flight`: the daemon has claimed some of it, and sends it or is about
    to. `priority` is forgotten (None) when the job ends. `waits` says in words what it waits for, whatever servers have
    said of it: its time, a site that rests or has a rate, an operator; None for nothing but its turn."""

    in_flight: bool
    priority: Priority | None
    waits: str | None = None


class JobSite(msgspec.Struct, frozen=True, kw_only=True):
    """A site of a job, with how its message there stands: `done` where no recipient waits any more, and nothing else is
    known then. `doubts` counts how often a server may have got the message without our knowing. `rests` says why the
    site has been given a rest, whichever message it was that met the failure; None where it serves. `rate` is how many
    messages a second the site is given at most; None where it has had none, or there is no limit."""

    site: str
    state: AtSite
    attempts: int | None
    next_attempt: str | None
    doubts: int | None
    rests: str | None
    rate: float | None = None


class JobDetails(ListedJob, frozen=True, kw_only=True):
    """A job as `deferd queue show` shows it. `sender` is "" for the null sender, `size` is in octets, `expires_at` when
    it is given up, by its own `expires` or by the configuration; `in_doubt` is what is done then."""

    sender: str
    size: int
    sites: tuple[JobSite, ...]
    key: str | None
    expires_at: str | None
    in_doubt: InDoubt


def listed(connection: apsw.Connection, jobs: Sequence[JobView], now: float) -> list[ListedJob]:
    """These jobs, with what the queue knows of them besides at that time."""
    rows: Iterable[Any] = connection.execute(UNDER_WAY, (str([id_number(job.id) for job in jobs]), now))
    known = {id_text(id): facts for id, *facts in rows}
    return [_listed(job, *known.get(job.id, (False, None, None, None, None))) for job in jobs]


def _listed(
    job: JobView, in_flight: bool, priority: int | None, not_before: float | None, rests: str | None, rate: float | None
) -> ListedJob:
    waits = None
    if job.state == "held":
        waits = "an operator: release or remove it"
    elif not_before is not None:
        waits = f"its not_before, {rfc3339(not_before)}"
    elif rests is not None:
        waits = f"its site, which rests: {rests}"
    elif rate is not None:
        waits = f"its turn: its site is given {rate_in_words(rate)}"
    return ListedJob(
        **msgspec.structs.asdict(job),
        in_flight=bool(in_flight),
        priority=None if priority is None else PRIORITIES[priority],
        waits=waits,
    )


def named(connection: apsw.Connection, result: str) -> str | None:
    """The id of the job that has the result of this name; None where there is none."""
    row: Any = connection.execute(NAMED, (result,)).fetchone()
    return id_text(row[0]) if row else None


def details(connection: apsw.Connection, id: str, now: float, offset: float, max_age: float) -> JobDetails | None:
    """All of one job at that time, whether finished or not; None where there is no such job. `max_age` is how long, in
    seconds, one without an `expires` of its own is kept at; `offset` is what the wall clock has beyond the store's
    times."""
    job = show(connection, id, offset)
    number = id_number(id)
    row: Any = connection.execute(FACTS, (max_age, number)).fetchone()
    if job is None or row is None:
        return None
    sender, size, key, in_doubt, expires = row
    sites: Iterable[Any] = connection.execute(SITES, (number,))
    return JobDetails(
        **msgspec.structs.asdict(listed(connection, [job], now)[0]),
        sender=sender,
        size=size,
        sites=tuple(
            JobSite(
                site=site,
                state="done" if state is None else _AT_SITE[state],
                attempts=attempts,
                next_attempt=rfc3339_wall(due, offset),
                doubts=doubts,
                rests=rests,
                rate=rate,
            )
            for site, state, attempts, due, doubts, rests, rate in sites
        ),
        key=key,
        expires_at=rfc3339_wall(expires, offset),
        in_doubt=in_doubt,
    )
