"""The store's calendar, kept: what was seen of the clocks is remembered, scheduled jobs follow the wall clock.

The clocks are remembered at the start, with what is committed anyhow (once a minute at most), after a jump and at the
end. Scheduled jobs are moved a slice in each transaction; a crash in between leaves them marked as not moved, and the
next start moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import apsw
import msgspec

from deferred.defer import Deferred, inline_callbacks
from deferred.failure import Failure
from deferred.interfaces import Reactor
from service.journal import Journal
from service.queue.calendar import BootClock, Calendar, Seen
from service.queue.commit import GroupCommit
from service.queue.store import StoreFailed

SCHEDULED: Final = (
    "SELECT id FROM job INDEXED BY job_scheduled WHERE not_before IS NOT NULL AND begins_at > ? AND finished_at IS NULL"
)
_KEEP_EVERY: Final = 60.0  # seconds
_SLICE: Final = 500  # jobs moved in one transaction
_NEVER: Final = float("-inf")

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Seen).decode


def read_seen(connection: apsw.Connection) -> Seen | None:
    """What the store remembers of the clocks; None where nothing yet."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'clock'").fetchone()
    return None if row is None else _decode(row[0])


def offset_of(clock: object) -> float:
    """The offset that a store's memory of the clocks tells, as it was read from elsewhere; 0 where there is none."""
    try:
        return _decode(clock).offset if isinstance(clock, str) else 0.0
    except msgspec.DecodeError:
        return 0.0


def write_seen(connection: apsw.Connection, seen: Seen) -> None:
    """Remember the clocks."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (_encode(seen).decode(),))


def move_scheduled(connection: apsw.Connection, jobs: Sequence[int], now: float, offset: float) -> None:
    """Let these jobs begin when the wall clock, `offset` ahead of queue time, shows their `not_before`: now, where it
    does already. What was made due before its time, by an operator, stays so."""
    for job in jobs:
        not_before, begins = connection.execute("SELECT not_before, begins_at FROM job WHERE id = ?", (job,)).get
        moved = max(now, not_before - offset)
        connection.execute("UPDATE delivery SET due = ? WHERE job = ? AND due = ?", (moved, job, begins))
        connection.execute(
            "UPDATE job SET begins_at = ?1, expires_at = expires_at + ?1 - begins_at WHERE id = ?2", (moved, job)
        )


class Timekeeper:
    """Keeps `calendar` for one store. `moved` is called when scheduled jobs have been moved."""

    def __init__(
        self, reactor: Reactor, journal: Journal, commit: GroupCommit, seen: Seen | None, boot: BootClock | None
    ) -> None:
        self.moved: Callable[[], object] = lambda: None
        self.calendar = Calendar(reactor, journal, boot, seen)
        self.calendar.jumped = self._jumped
        self._reactor = reactor
        self._journal = journal
        self._commit = commit
        self._kept_at = _NEVER
        self._keeping = False
        self._aligning = False

    def record(self, connection: apsw.Connection) -> None:
        """Remember the clocks as they are at the start: what happens in this boot is known from now on."""
        self._kept_at = self._reactor.time()
        write_seen(connection, self.calendar.seen())

    def start(self) -> None:
        """Go on with what a former process has not finished, or what happened to the clock since it ended."""
        if not self.calendar.aligned:
            self._jumped()

    def due_by(self) -> float:
        """Whatever is due at this time (queue time) may be handed out: nothing, while scheduled jobs are moved."""
        now = self.calendar.now()
        return now if self.calendar.aligned else _NEVER

    def keep(self) -> None:
        """Something is being committed: remember the clocks with it, unless that was done a moment ago."""
        if self._reactor.time() - self._kept_at >= _KEEP_EVERY:
            self.save()

    def save(self) -> None:
        """Remember the clocks with the next commit."""
        self._kept_at = self._reactor.time()
        if not self._keeping:
            self._keeping = True
            d = self._commit.submit(lambda connection, _: write_seen(connection, self.calendar.seen()), last=True)
            d.add_both(self._kept)

    def _kept(self, result: object) -> None:
        self._keeping = False
        if isinstance(result, Failure):
            self._kept_at = _NEVER
            result.trap(StoreFailed)  # closed: the next start goes on from what was remembered before

    def _jumped(self) -> None:
        self.save()
        if not self._aligning:
            self._aligning = True
            self._align().add_both(self._aligned)

    @inline_callbacks
    def _align(self) -> Generator[Deferred[Any], Any, None]:
        calendar = self.calendar
        while not calendar.aligned:
            jumps = calendar.jumps
            jobs: list[int] = yield self._commit.submit(self._scheduled)
            for at in range(0, len(jobs), _SLICE):
                yield self._commit.submit(self._move(jobs[at : at + _SLICE]), cost=_SLICE)
            calendar.align(jumps)  # there may be more of them by now: then once more
        self.save()

    def _scheduled(self, connection: apsw.Connection, _: bool) -> list[int]:
        return [job for (job,) in connection.execute(SCHEDULED, (self.calendar.reached,))]

    def _move(self, jobs: list[int]) -> Callable[[apsw.Connection, bool], None]:
        return lambda connection, _: move_scheduled(connection, jobs, self.calendar.now(), self.calendar.offset)

    def _aligned(self, result: object) -> None:
        self._aligning = False
        if isinstance(result, Failure):
            if not result.check(StoreFailed):  # closed: the next start does it
                self._journal.tell("unhandled_error", where="clock", error=result.get_traceback())
            return
        self.moved()
