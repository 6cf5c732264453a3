"""Statements that look at jobs for an operator: what a result says of each, and what only the queue knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

import apsw
import msgspec

from config.units import rate_in_words
from service.message.job import InDoubt, Priority
from service.queue.ids import id_number, id_text
from service.queue.looking import NEXT_TRY, rfc3339_wall, show
from service.queue.schema import CLAIMED, READY
from service.queue.store import PRIORITIES, JobView
from service.timestamp import rfc3339

AtSite = Literal["waiting", "in_flight", "held", "done"]
_AT_SITE: Final[tuple[AtSite, ...]] = ("waiting", "in_flight", "held")
"""By the state of a delivery."""

UNDER_WAY: Final = f"""
SELECT d.job, d.state, d.priority, {NEXT_TRY}, d.rested, iif(d.due = j.begins_at, j.not_before, NULL),
       x.ends, x.why, p.next, p.rate
FROM delivery d JOIN job j ON j.id = d.job
LEFT JOIN rest x ON x.site = d.site LEFT JOIN pace p ON p.site = d.site
WHERE d.job IN (SELECT value FROM json_each(?))
"""  # noqa: S608 (the words of `looking`)
SITES: Final = f"""
SELECT r.site, d.state, d.attempts, iif(d.state = 0, {NEXT_TRY}, NULL), d.doubts,
       iif(d.state = 0, x.why, NULL), p.rate
FROM (SELECT site, min(position) AS first FROM recipient WHERE job = ?1 GROUP BY site) r
LEFT JOIN delivery d ON d.job = ?1 AND d.site = r.site LEFT JOIN rest x ON x.site = r.site
LEFT JOIN pace p ON p.site = r.site ORDER BY r.first
"""  # noqa: S608 (as above)
NAMED: Final = """
SELECT id FROM job WHERE result = ?1 UNION ALL SELECT job FROM alias WHERE result = ?1
"""
FACTS: Final = "SELECT sender, size, key, in_doubt, ifnull(expires_at, begins_at + ?) FROM job WHERE id = ?"


class ListedJob(JobView, frozen=True, kw_only=True):
    """A job as `deferd queue list` shows it. `in_flight`: the daemon has claimed some of it, and sends it or is about
    to. `priority` is forgotten (None) when the job ends. `waits` says in words what keeps it from being tried now: its
    hour, its next try by the schedule, a site that rests or has a rate, an operator; None for nothing."""

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
    rows: Iterable[Any] = connection.execute(UNDER_WAY, (str([id_number(job.id) for job in jobs]),))
    known: dict[str, list[_Delivery]] = {}
    for id, *facts in rows:
        known.setdefault(id_text(id), []).append(_Delivery(*facts))
    return [_listed(job, known.get(job.id, []), now) for job in jobs]


class _Delivery(NamedTuple):
    """A job's message for one site; `not_before` where it is due then, `rested` where it is so as the rest ends."""

    state: int
    priority: int
    next_try: float
    rested: int
    not_before: float | None
    rest_ends: float | None
    rests: str | None
    next_at: float | None
    rate: float | None

    def waits(self, now: float) -> str | None:
        """What it waits for: of all that it does, the last."""
        if self.next_try <= now:
            return None
        if self.rest_ends is not None and self.rest_ends > now and (self.rested or self.next_try == self.rest_ends):
            return f"its site, which rests: {self.rests}"
        if self.rate is not None and self.next_try == self.next_at:
            return f"its turn: its site is given {rate_in_words(self.rate)}"
        return "its next try" if self.not_before is None else f"its not_before, {rfc3339(self.not_before)}"


def _listed(job: JobView, deliveries: Sequence[_Delivery], now: float) -> ListedJob:
    ready = [each for each in deliveries if each.state == READY]
    waits = min(ready, key=lambda each: each.next_try).waits(now) if ready else None
    return ListedJob(
        **msgspec.structs.asdict(job),
        in_flight=any(each.state == CLAIMED for each in deliveries),
        priority=PRIORITIES[min(each.priority for each in deliveries)] if deliveries else None,
        waits="an operator: release or remove it" if job.state == "held" else waits,
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
