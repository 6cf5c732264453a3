"""Statements by which an operator, a new configuration or the calendar changes what waits."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import apsw

from service.queue.ids import id_number
from service.queue.owing import Changed
from service.queue.schema import CLAIMED
from service.queue.settling import REMOVED, bring_up_to_date
from service.queue.store import Change, Source, UnknownJob

SLICE: Final = 500
"""Jobs in one transaction of a change that goes through the whole queue."""

_LOOKED: Final = 200  # unfinished jobs with large contents that one sweep steps over

RECIPIENTS: Final = 500
"""Recipients after which a transaction that gives jobs their sites anew takes no further job."""

# Where part of the job goes to that site already they travel together: what an operator holds stays held (as soon as
# it lands where it is in flight), and what has been tried more often counts.
_MOVE: Final = """
INSERT INTO delivery (job, site, state, due, attempts, doubts, warned, priority)
SELECT job, ?, state, iif(rested, min(due, ?), due), attempts, doubts, warned, priority
FROM delivery WHERE job = ? AND site = ?
ON CONFLICT (job, site) DO UPDATE SET
    state = iif(state = 1, 1, max(state, excluded.state)),
    hold = hold OR state = 1 AND excluded.state = 2,
    rested = rested AND due <= excluded.due,
    due = min(due, excluded.due),
    attempts = max(attempts, excluded.attempts),
    doubts = max(doubts, excluded.doubts),
    warned = max(warned, excluded.warned)
"""


def jobs_to_change(connection: apsw.Connection, ids: Iterable[str] | None, site: str | None) -> list[int]:
    """The jobs that a change speaks of, in order. Raises `UnknownJob` for an id that is not in the queue."""
    if ids is not None:
        return [_open_job(connection, id) for id in dict.fromkeys(ids)]
    if site is not None:
        rows = connection.execute("SELECT job FROM delivery WHERE state IN (0, 1, 2) AND site = ?", (site,))
        return sorted(job for (job,) in rows)
    return [job for (job,) in connection.execute("SELECT DISTINCT job FROM delivery ORDER BY job")]


def _open_job(connection: apsw.Connection, id: str) -> int:
    number = id_number(id)
    if number is None or not connection.execute("SELECT 1 FROM delivery WHERE job = ? LIMIT 1", (number,)).fetchone():
        ended = connection.execute("SELECT state FROM job WHERE id = ?", (number,)).get
        raise UnknownJob(f"{id} is not in the queue" + (f": it has ended ({ended})" if ended else ""), id)
    return number


def count_open(connection: apsw.Connection, jobs: Sequence[int]) -> int:
    """How many of these jobs have not ended."""
    query = "SELECT count(DISTINCT job) FROM delivery WHERE job IN (SELECT value FROM json_each(?))"
    number: int = connection.execute(query, (str(list(jobs)),)).get
    return number


def count_in_flight(connection: apsw.Connection, jobs: Sequence[int], site: str | None) -> int:
    """How many of these jobs the daemon has claimed, for `site` or (None) any."""
    query = (
        "SELECT count(DISTINCT job) FROM delivery"
        " WHERE job IN (SELECT value FROM json_each(?1)) AND state = ?2 AND (?3 IS NULL OR site = ?3)"
    )
    number: int = connection.execute(query, (str(list(jobs)), CLAIMED, site)).get
    return number


def change_jobs(
    connection: apsw.Connection, change: Change, jobs: Sequence[int], site: str | None, now: float
) -> list[Changed]:
    """Change these jobs, or of each only what goes to `site`; return those that were changed."""
    apply = {"retry": _retry, "hold": _hold, "release": _release, "remove": _remove}[change]
    changed = []
    for job in jobs:
        if apply(connection, job, site, now):
            state = bring_up_to_date(connection, job, now)
            changed.append((job, state not in ("queued", "held")))
    return changed


def _retry(connection: apsw.Connection, job: int, site: str | None, now: float) -> bool:
    # What is in flight is as good as due now, and counts; what is held, or will be as soon as it lands, stays so.
    sites = connection.execute(
        "SELECT site FROM delivery WHERE job = ?1 AND (?2 IS NULL OR site = ?2) AND state < 2 AND NOT hold", (job, site)
    ).fetchall()
    connection.execute(
        "UPDATE delivery SET due = min(due, ?3) WHERE job = ?1 AND (?2 IS NULL OR site = ?2) AND state = 0",
        (job, site, now),
    )
    connection.executemany("INSERT OR IGNORE INTO retried VALUES (?)", sites)
    return bool(sites)


def _hold(connection: apsw.Connection, job: int, site: str | None, _: float) -> bool:
    connection.execute(
        "UPDATE delivery SET hold = (state = 1), state = iif(state = 0, 2, state)"
        " WHERE job = ?1 AND (?2 IS NULL OR site = ?2) AND state < 2 AND NOT hold",
        (job, site),
    )
    return bool(connection.changes())


def _release(connection: apsw.Connection, job: int, site: str | None, now: float) -> bool:
    connection.execute(
        "UPDATE delivery SET hold = 0, state = iif(state = 2, 0, state),"
        " due = iif((SELECT begins_at FROM job WHERE id = ?1) > ?3, due, min(due, ?3))"
        " WHERE job = ?1 AND (?2 IS NULL OR site = ?2) AND (state = 2 OR hold)",
        (job, site, now),
    )
    released = bool(connection.changes())
    if released:  # whoever held it, and why: somebody has looked at it
        connection.execute("UPDATE job SET deaths = 0, died_in = NULL WHERE id = ? AND deaths > 0", (job,))
    return released


def _remove(connection: apsw.Connection, job: int, site: str | None, now: float) -> bool:
    """End the job: its waiting recipients fail without a report, and keep what their last try brought; an attempt under
    way finds its claim gone."""
    connection.execute("DELETE FROM delivery WHERE job = ?1 AND (?2 IS NULL OR site = ?2)", (job, site))
    removed = bool(connection.changes())
    connection.execute(
        "UPDATE recipient SET state = 'failed', text = ?3 || iif(text > '', '; the last try said: ' || text, ''),"
        " at = coalesce(at, ?4) WHERE job = ?1 AND (?2 IS NULL OR site = ?2) AND state = 'waiting'",
        (job, site, REMOVED, now),
    )
    return removed


def begin_rerouting(connection: apsw.Connection, fingerprint: str) -> bool:
    """Whether the queue is not yet as these routes have it; from now on it is as no routes have it."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'routes'").fetchone()
    if row is not None and row[0] == fingerprint:
        return False
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('routes', '')")
    return True


class Rerouted(NamedTuple):
    """What became of a job: whether any of it moved, whether any is in flight, how many recipients were looked at."""

    moved: bool
    flying: bool
    recipients: int


def reroute_slice(
    connection: apsw.Connection, state: str, after: int, site_of: Callable[[str], str], now: float
) -> tuple[int | None, int, bool]:
    """Give the waiting recipients of the next jobs in `state` after job number `after` their sites anew.

    Returns the last job looked at (None where none was left), how many messages moved, and whether something in
    flight had to be passed over.
    """
    rows: list[Any] = connection.execute(
        "SELECT id FROM job WHERE state = ? AND id > ? ORDER BY id LIMIT ?", (state, after, 200)
    ).fetchall()
    sites: dict[str, str] = {}

    def known_site_of(address: str) -> str:
        domain = address.rpartition("@")[2]
        if domain not in sites:
            sites[domain] = site_of(address)
        return sites[domain]

    last, moved, skipped, looked = None, 0, False, 0
    for (last,) in rows:
        done = reroute_job(connection, last, known_site_of, now)
        moved += done.moved
        skipped = skipped or done.flying
        looked += done.recipients
        if looked >= RECIPIENTS:
            break
    return last, moved, skipped


def reroute_job(connection: apsw.Connection, job: int, site_of: Callable[[str], str], now: float) -> Rerouted:
    """Give one job's waiting recipients their sites anew.

    What waited for its old site to end its rest is due at the new one at once.
    """
    flying = {site for (site,) in connection.execute("SELECT site FROM delivery WHERE job = ? AND state = 1", (job,))}
    rows: list[Any] = connection.execute(
        "SELECT position, address, site FROM recipient WHERE job = ? AND state = 'waiting'", (job,)
    ).fetchall()
    moves = [(site_of(address), site, position) for position, address, site in rows if site not in flying]
    moves = [move for move in moves if move[0] != move[1]]
    for new, old in dict.fromkeys((new, old) for new, old, _ in moves):
        connection.execute(_MOVE, (new, now, job, old))
    connection.executemany(
        "UPDATE recipient SET site = ? WHERE job = ? AND position = ?", [(new, job, at) for new, _, at in moves]
    )
    if moves:
        connection.execute(
            "DELETE FROM delivery WHERE job = ?1 AND state <> 1 AND NOT EXISTS"
            " (SELECT 1 FROM recipient r WHERE r.job = ?1 AND r.site = delivery.site AND r.state = 'waiting')",
            (job,),
        )
    return Rerouted(bool(moves), bool(flying), len(rows))


def purge_slice(
    connection: apsw.Connection, before: float, now: float, present: Callable[[Source], bool]
) -> tuple[list[str], bool]:
    """Forget some jobs that were finished before then; return the names of their results, and whether more may follow.

    A job whose dropped file is `present` still is kept for as long again: without its row the file would be taken anew.
    """
    rows: list[Any] = connection.execute(
        "SELECT id, result, file, inode, mtime_ns, octets FROM job WHERE finished_at < ? LIMIT ?", (before, SLICE)
    ).fetchall()
    kept = {row[0] for row in rows if any(map(present, _files(connection, row)))}
    connection.executemany("UPDATE job SET finished_at = ? WHERE id = ?", [(now, job) for job in kept])
    gone = [(row[0],) for row in rows if row[0] not in kept]
    names = [row[1] for row in rows if row[0] not in kept]
    names += [name for job in gone for (name,) in connection.execute("SELECT result FROM alias WHERE job = ?", job)]
    for table, column in (
        ("job", "id"),
        *((each, "job") for each in ("recipient", "owed", "owed_alias", "alias", "repeated")),
    ):
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", gone)  # noqa: S608 (names from the line above)
    return names, len(rows) == SLICE


def _files(connection: apsw.Connection, row: tuple[Any, ...]) -> Iterator[Source]:
    """The dropped files that made the job, or would have, were it not for its key."""
    if row[2] is not None:
        yield Source(row[2], row[3], row[4], row[5])
    query = "SELECT file, inode, mtime_ns, octets FROM repeated WHERE job = ?"
    files: list[Any] = connection.execute(query, (row[0],)).fetchall()
    yield from (Source(*file) for file in files)


def drop_left_pieces(connection: apsw.Connection, after: int, staging: Container[int]) -> int | None:
    """Delete up to 4 pieces (1 MiB) without an unfinished job, looking after job number `after`, but for those that
    are being put in (`staging`).

    Returns the job to go on after, None when there is nothing more. Freeing a large content at once would stall
    the reactor, and the pieces of a job that never came to be are left over by a crash.
    """
    for _ in range(_LOOKED):
        job: int | None = connection.execute("SELECT min(job) FROM piece WHERE job > ?", (after,)).get
        if job is None:
            return None
        row = connection.execute("SELECT finished_at IS NULL FROM job WHERE id = ?", (job,)).fetchone()
        if job not in staging and (row is None or not row[0]):
            break
        after = job
    else:
        return after
    connection.execute(
        "DELETE FROM piece WHERE rowid IN (SELECT rowid FROM piece WHERE job = ? ORDER BY number LIMIT 4)", (job,)
    )
    return job - 1
