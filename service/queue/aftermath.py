"""Statements about what a daemon leaves behind that died: the messages that it had in flight.

Where the final dot may be out, somebody may have the message, though nobody told us. And what the daemon was at work
on when it died may be the reason why it did. So what was in flight is, at the next start,

    held, in doubt     where the job says so (`in_doubt: hold`) and the final dot may have gone out
    held, as deadly    where a daemon has now died twice in a row at work on the job, both times in the same phase
    due in a while     where one has died just after work on it (`suspects`): the others go first, then one at a time
    due at once        else

That it may be a second copy is remembered, and told when it is sent. Many who stop a daemon kill it in the middle of
its work, and no message is to blame for that: so it takes two deaths at one point, with no end of an attempt between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, Final

import apsw
import msgspec

from service.journal import Journal
from service.message.outcome import Phase
from service.queue.ids import id_text
from service.queue.settling import bring_up_to_date
from service.queue.store import Source
from service.queue.suspects import DEADLY, WorkedOn, blame, leave_aside

IN_DOUBT: Final = (
    "deferd died between the final dot and the answer, so the server may have the message:"
    " release it to send it again, or remove it"
)
IS_DEADLY: Final = "deferd has died twice at work on this message: release it to try it again, or remove it"


class AtWork(msgspec.Struct, frozen=True):
    """What a daemon was at work on when it died: deliveries, and dropped files that it was reading."""

    deliveries: tuple[WorkedOn, ...] = ()
    files: tuple[Source, ...] = ()


NOTHING: Final = AtWork()


class HeldBack(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is held because its daemon died; `why` is what its waiting recipients now show."""

    id: str
    name: str
    site: str
    recipients: tuple[str, ...]
    attempts: int
    host: str | None
    why: str

    @property
    def in_doubt(self) -> bool:
        """Whether it is held for its own safety, not for ours."""
        return self.why is IN_DOUBT


class Aftermath(msgspec.Struct, frozen=True):
    """How many messages were in flight, which of them are held now, and which dropped files are deadly: not to be read
    again."""

    in_flight: int = 0
    held: tuple[HeldBack, ...] = ()
    deadly: tuple[Source, ...] = ()


_IN_FLIGHT: Final = """
SELECT d.job, d.site, d.dot, d.hold, j.in_doubt, j.name, d.attempts
FROM delivery d JOIN job j ON j.id = d.job WHERE d.state = 1 ORDER BY d.job, d.site
"""


def sort_out(connection: apsw.Connection, before: AtWork, now: float, present: Callable[[Source], bool]) -> Aftermath:
    """Take back every claim of the daemon that died, and decide what becomes of each message and of each file that it
    was reading, as far as that is `present` still."""
    deadly = blame(connection, before.deliveries)
    _blame_files(connection, before.files, now)
    in_flight, held = _take_back(connection, now, deadly)
    leave_aside(connection, before.deliveries, now)
    return Aftermath(in_flight, held, _deadly_files(connection, present))


def _take_back(connection: apsw.Connection, now: float, deadly: Set[int]) -> tuple[int, tuple[HeldBack, ...]]:
    rows: list[Any] = connection.execute(_IN_FLIGHT).fetchall()
    held = []
    for job, site, dot, hold, in_doubt, name, attempts in rows:
        doubtful = dot is not None or in_doubt == "retry"  # of these no dot is noted: any may have gone out
        why = IN_DOUBT if dot is not None and in_doubt == "hold" else IS_DEADLY if job in deadly else None
        connection.execute(
            "UPDATE delivery SET state = ?, hold = 0, lease = 0, dot = NULL, due = min(due, ?), doubts = doubts + ?"
            " WHERE job = ? AND site = ?",
            (2 if why or hold else 0, now, doubtful, job, site),
        )
        if why is not None:
            people = _explain(connection, job, site, dot, why, now)
            facts = {"id": id_text(job), "name": name, "site": site, "attempts": attempts, "host": dot}
            held.append(HeldBack(**facts, recipients=people, why=why))
        bring_up_to_date(connection, job, now)
    return len(rows), tuple(held)


def _explain(
    connection: apsw.Connection, job: int, site: str, host: str | None, why: str, now: float
) -> tuple[str, ...]:
    """Write at each waiting recipient why it is held; return who they are."""
    phase = Phase.CONFIRM.value if why is IN_DOUBT else None
    rows: list[Any] = connection.execute(
        "UPDATE recipient SET code = NULL, enhanced = NULL, text = ?, host = ?, phase = ?, at = ?"
        " WHERE job = ? AND site = ? AND state = 'waiting' RETURNING position, address",
        (why, host, phase, now, job, site),
    ).fetchall()
    return tuple(address for _, address in sorted(rows))


def _blame_files(connection: apsw.Connection, files: Sequence[Source], now: float) -> None:
    """A daemon died while it read these files."""
    connection.executemany(
        "INSERT INTO suspect VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET deaths = deaths + 1, at = excluded.at",
        [(file.name, file.inode, file.mtime_ns, file.size, now) for file in files],
    )


def _deadly_files(connection: apsw.Connection, present: Callable[[Source], bool]) -> tuple[Source, ...]:
    """The files that have killed a daemon as often as any may; what is not there any more is forgotten."""
    rows: list[Any] = connection.execute("SELECT file, inode, mtime_ns, octets, deaths FROM suspect").fetchall()
    gone = [row[:4] for row in rows if not present(Source(*row[:4]))]
    connection.executemany("DELETE FROM suspect WHERE (file, inode, mtime_ns, octets) = (?, ?, ?, ?)", gone)
    return tuple(Source(*row[:4]) for row in rows if row[4] >= DEADLY and row[:4] not in gone)


def tell_aftermath(journal: Journal, aftermath: Aftermath) -> None:
    """Say what became of the messages that a daemon which died had in flight."""
    if aftermath.in_flight:
        journal.tell("taken_up", in_flight=aftermath.in_flight, held=len(aftermath.held))
    for held in aftermath.held:
        journal.tell("job_held", id=held.id, name=held.name, site=held.site, why=held.why)
        for recipient in held.recipients if held.in_doubt else ():
            journal.tell(
                "in_doubt",
                id=held.id,
                recipient=recipient,
                site=held.site,
                host=held.host,
                phase=Phase.CONFIRM.value,
                code=None,
                text=held.why,
                attempt=held.attempts + 1,
                decision="hold",
            )
