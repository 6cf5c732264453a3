"""Statements about suspects: jobs that a daemon was at work on just before it died, any of which may have killed it.

Many are at work at once, and the one that kills need not be the last of which a step was noted; but it is among those
of the last moment. These are all suspects: at the next start they are left aside until the others have gone, and are
then tried one at a time, the latest first. What comes to the end of an attempt, whatever the end, is no suspect any
more. A suspect at work on which a daemon dies again, in the same phase, is deadly

    at the second death   where that came at once after its last step, as it does where a message kills
    at the third          where that came a little later; or where there have been strays: deaths that met no suspect.
                          Then somebody kills the daemon from outside, and that meets one job or another twice.

What is not seen is a message that kills long after its last step (`lastwork.SURVIVED`), since nobody can tell that
from a daemon that is killed while it waits. And who kills a daemon from outside, seconds after its start, may meet a
suspect at the same point by chance: it is held though it is innocent, until somebody releases it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import apsw
import msgspec

from service.message.outcome import Phase
from service.queue.ids import id_number

DEADLY: Final = 2
"""So many deaths of a daemon at work on one thing, and it is not tried again."""

AT_ONCE: Final = 0.02
"""Seconds between a job's last step and a death that is taken to follow from it."""

STRAYS: Final = 2
"""So many deaths that met no suspect, while there were some, and it takes one death more."""

ASIDE: Final = 1.0
"""Seconds after a start in which a job is left aside at which a daemon has died."""

TURN: Final = 0.5
"""Seconds between the suspects' turns: the longer, the less likely a death from outside meets one of them at work."""

LONGEST_ASIDE: Final = 15.0
"""Seconds in which all suspects get their turns, however many there are."""

PATIENCE: Final = 1.0
"""Seconds after which a suspect that is still at work keeps the next one waiting no longer: its server is slow."""

_NO_MAIL_YET: Final = (None, Phase.EHLO.value, Phase.AUTH.value)
"""The last phases before MAIL: on a connection that is kept between messages there is none."""

_BLAME: Final = """
UPDATE job SET deaths = iif(died_in = ?2, deaths, 0) + 1, died_in = ?2
WHERE id = ?1 AND EXISTS (SELECT 1 FROM delivery WHERE job = ?1 AND state = 1) RETURNING deaths
"""
_SUSPECTS: Final = """
SELECT j.id, min(d.due) FROM job j INDEXED BY job_deaths CROSS JOIN delivery d ON d.job = j.id
WHERE j.deaths > 0 AND d.state < 2 GROUP BY j.id
"""
_AT_WORK: Final = """
SELECT 1 FROM job j INDEXED BY job_deaths CROSS JOIN delivery d ON d.job = j.id
WHERE j.deaths > 0 AND d.state = 1 AND d.due > ? LIMIT 1
"""
_WAITING: Final = """
SELECT d.job, min(d.due) FROM job j INDEXED BY job_deaths CROSS JOIN delivery d ON d.job = j.id
WHERE j.deaths > 0 AND d.state = 0 AND d.site = ? AND d.due <= ?
"""


class WorkedOn(msgspec.Struct, frozen=True):
    """A job that a daemon was at work on when it died, the last phase that it had got through (None where that is not
    known: its conversation had begun before), and the seconds that passed since then until the last that was done."""

    id: str
    phase: str | None
    ago: float = 0.0


def blame(connection: apsw.Connection, works: Sequence[WorkedOn]) -> frozenset[int]:
    """Count a death more at each job that was in flight; return those that are deadly. Where a daemon had died at a job
    in another phase before, it begins to count anew."""
    suspected = connection.execute(_SUSPECTS + " LIMIT 1").fetchone() is not None
    strays = _strays(connection) if suspected else 0
    deaths = [(id_number(work.id), work.ago, _one_more(connection, work)) for work in works]
    if works:
        met = any(count >= DEADLY for _, _, count in deaths)
        _set_strays(connection, strays + (suspected and not met))
    sure = DEADLY if strays < STRAYS else DEADLY + 1
    return frozenset(job for job, ago, count in deaths if job and count >= (sure if ago <= AT_ONCE else DEADLY + 1))


def _one_more(connection: apsw.Connection, work: WorkedOn) -> int:
    point = Phase.EHLO.value if work.phase in _NO_MAIL_YET else work.phase
    row = connection.execute(_BLAME, (id_number(work.id), point)).fetchone()
    return row[0] if row else 0


def _strays(connection: apsw.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = 'strays'").fetchone()
    return row[0] if row else 0


def _set_strays(connection: apsw.Connection, number: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('strays', ?)", (number,))


def leave_aside(connection: apsw.Connection, works: Sequence[WorkedOn], now: float) -> None:
    """Give each suspect its turn: those of this death in the order of `works`, then those of earlier ones."""
    places = {id_number(work.id): place for place, work in enumerate(works)}
    rows: list[Any] = connection.execute(_SUSPECTS).fetchall()
    dues: dict[int, float] = dict(rows)
    suspects = sorted(dues, key=lambda job: (places.get(job, len(places)), dues[job]))
    turn = min(TURN, LONGEST_ASIDE / max(1, len(suspects)))
    connection.executemany(
        "UPDATE delivery SET due = max(due, ?) WHERE job = ? AND state = 0",
        [(now + ASIDE + place * turn, job) for place, job in enumerate(suspects)],
    )


def whose_turn(connection: apsw.Connection, site: str, now: float) -> int | None:
    """The suspect that may be tried at this site now, if any: none while another, at whatever site, is at work.

    A claimed suspect's due time is when it was claimed.
    """
    job, _ = connection.execute(_WAITING, (site, now)).get
    if job is None or connection.execute(_AT_WORK, (now - PATIENCE,)).fetchone():
        return None
    number: int = job
    return number
