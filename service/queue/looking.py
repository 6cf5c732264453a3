"""Statements that look: how jobs stand, in the words of the contract."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import apsw
import msgspec

from service.message.outcome import Phase, State
from service.queue.ids import id_number, id_text
from service.queue.store import PRIORITIES, Counts, JobState, JobView, RecipientView, SiteBacklog
from service.timestamp import rfc3339

_STATE: Final = {state.value: state for state in State}
_PHASE: Final = {phase.value: phase for phase in Phase}
_decode_tags = msgspec.json.Decoder(dict[str, Any]).decode

_THESE: Final = "IN (SELECT value FROM json_each(?))"
_JOBS: Final = f"""
SELECT id, name, state, attempts, accepted_at, finished_at, tags, result FROM job WHERE id {_THESE} ORDER BY id
"""  # noqa: S608 (the words above)
_RECIPIENTS: Final = f"""
SELECT job, address, state, code, enhanced, text, host, phase, at FROM recipient WHERE job {_THESE}
ORDER BY job, position
"""  # noqa: S608 (as above)
NEXT_TRY: Final = "max(d.due, ifnull(x.ends, d.due), ifnull(p.next, d.due))"
"""When a delivery `d` is tried next: not before its site's rest `x` is over, nor before its time by the pace `p`."""
_NEXT: Final = f"""
SELECT d.job, min(iif(d.state = 0, {NEXT_TRY}, d.due))
FROM delivery d LEFT JOIN rest x ON x.site = d.site LEFT JOIN pace p ON p.site = d.site
WHERE d.job {_THESE} AND d.state < 2 AND NOT d.hold GROUP BY d.job
"""  # noqa: S608 (as above)
_OF_STATE: Final = "SELECT id FROM job WHERE state = ? ORDER BY id LIMIT ?"
_OF_STATE_AND_SITE: Final = """
SELECT id FROM job WHERE state = ? AND EXISTS (SELECT 1 FROM recipient r WHERE r.job = job.id AND r.site = ?)
ORDER BY id LIMIT ?
"""
_OPEN_AT_SITE: Final = "SELECT DISTINCT job FROM delivery WHERE state IN (0, 1, 2) AND site = ? ORDER BY job LIMIT ?"
_HELD_OR_QUEUED_AT_SITE: Final = """
SELECT DISTINCT d.job FROM delivery d JOIN job j ON j.id = d.job
WHERE d.state IN (0, 1, 2) AND d.site = ? AND j.state = ? ORDER BY d.job LIMIT ?
"""


def by_the_wall(offset: float) -> Callable[[float], str]:
    """What gives a time of the store's as RFC 3339 by the wall clock, which has `offset` beyond it."""
    if not offset:
        return rfc3339
    # rounded, as what was made of a time to the millisecond and back again may be a little less
    return lambda at: rfc3339(round(at + offset, 5))


def rfc3339_wall(at: float | None, offset: float) -> str | None:
    """One such time, if there is one."""
    return None if at is None else by_the_wall(offset)(at)


def view(connection: apsw.Connection, job: int, offset: float) -> tuple[str, JobView] | None:
    """The name of the job's result and how the job stands; None where there is no such job."""
    return next(((result, found) for _, result, found in views(connection, [job], offset)), None)


def views(connection: apsw.Connection, jobs: Sequence[int], offset: float) -> Iterator[tuple[int, str, JobView]]:
    """Of those of these jobs that there are, in the order of their numbers: the number, the name of the result, and how
    the job stands. `offset` is what the wall clock has beyond the store's times."""
    rows: list[Any] = connection.execute(_JOBS, (str(list(jobs)),)).fetchall()
    waiting = [row[0] for row in rows if row[5] is None]
    shown = by_the_wall(offset)
    dues: Iterable[Any] = connection.execute(_NEXT, (str(waiting),)) if waiting else ()
    next_attempts = {job: shown(due) for job, due in dues}
    people: dict[int, list[RecipientView]] = {row[0]: [] for row in rows}
    recipients: Iterable[Any] = connection.execute(_RECIPIENTS, (str(list(people)),))
    for job, address, state, code, enhanced, text, host, phase, at in recipients:
        people[job].append(
            RecipientView(
                address=address,
                state=_STATE[state],
                code=code,
                enhanced=enhanced or None,
                text=text,
                host=host or None,
                phase=None if phase is None else _PHASE[phase],
                at=None if at is None else shown(at),
            )
        )
    for id, name, state, attempts, accepted_at, finished_at, tags, result in rows:
        yield (
            id,
            result,
            JobView(
                id=id_text(id),
                name=name,
                state=state,
                attempts=attempts,
                next_attempt=next_attempts.get(id),
                recipients=tuple(people[id]),
                accepted_at=shown(accepted_at),
                finished_at=None if finished_at is None else shown(finished_at),
                tags=_decode_tags(tags) if tags != "{}" else {},
            ),
        )


def show(connection: apsw.Connection, id: str, offset: float) -> JobView | None:
    """One job, whether finished or not."""
    number = id_number(id)
    found = None if number is None else view(connection, number, offset)
    return None if found is None else found[1]


def list_jobs(
    connection: apsw.Connection, site: str | None, state: JobState | None, limit: int, offset: float
) -> list[JobView]:
    """Jobs, oldest first; without `state`, those that are not finished."""
    return [found for _, _, found in views(connection, _ids(connection, site, state, limit), offset)]


def _ids(connection: apsw.Connection, site: str | None, state: JobState | None, limit: int) -> list[int]:
    if site is None:
        # Two looks into the index by state rather than one through all finished jobs.
        runs = [
            [id for (id,) in connection.execute(_OF_STATE, (one, limit))]
            for one in (("queued", "held") if state is None else (state,))
        ]
        return list(heapq.merge(*runs))[:limit]
    if state is None:
        return [id for (id,) in connection.execute(_OPEN_AT_SITE, (site, limit))]
    if state in ("queued", "held"):
        return [id for (id,) in connection.execute(_HELD_OR_QUEUED_AT_SITE, (site, state, limit))]
    return [id for (id,) in connection.execute(_OF_STATE_AND_SITE, (state, site, limit))]


def count(connection: apsw.Connection) -> Counts:
    """How much waits: from the tally and the first entry of an index."""
    jobs = dict(connection.execute("SELECT state, jobs FROM tally"))
    oldest = connection.execute(
        "SELECT min(accepted_at) FROM ("
        "SELECT * FROM (SELECT accepted_at FROM job WHERE state = 'queued' ORDER BY id LIMIT 1) UNION ALL "
        "SELECT * FROM (SELECT accepted_at FROM job WHERE state = 'held' ORDER BY id LIMIT 1))"
    ).get
    return Counts(jobs["queued"] + jobs["held"], jobs["held"], oldest)


BACKLOG: Final = """
WITH RECURSIVE found(site) AS (
    SELECT min(site) FROM delivery WHERE state = 0
    UNION ALL
    SELECT (SELECT min(site) FROM delivery WHERE state = 0 AND site > found.site) FROM found WHERE site IS NOT NULL
)
SELECT site,
    (SELECT min(due) FROM delivery WHERE state = 0 AND site = found.site AND priority = 0),
    (SELECT min(due) FROM delivery WHERE state = 0 AND site = found.site AND priority = 1),
    (SELECT min(due) FROM delivery WHERE state = 0 AND site = found.site AND priority = 2)
FROM found WHERE site IS NOT NULL
"""
"""From each site the index is searched for the next one: what waits at a site is skipped, however much it is."""
FIRST_DUE: Final = "SELECT min(due) FROM delivery WHERE state = 0 AND site = ? AND priority = ?"


def backlog(connection: apsw.Connection) -> list[SiteBacklog]:
    """Each site with ready messages and when its first is due."""
    rows: Iterable[Any] = connection.execute(BACKLOG)
    return [SiteBacklog(site, min(due for due in dues if due is not None)) for site, *dues in rows]


def next_due(connection: apsw.Connection, site: str) -> float | None:
    """When the first ready message of `site` is due."""
    dues = [connection.execute(FIRST_DUE, (site, priority)).get for priority in range(len(PRIORITIES))]
    return min((due for due in dues if due is not None), default=None)
