"""The queue as a command sees it: looked at and changed at once, beside a running daemon or without one."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, TypeVar

import apsw

from service.queue import changing, looking, owing
from service.queue.calendar import BootClock, resumed
from service.queue.details import JobDetails, ListedJob, details, listed, named
from service.queue.ids import id_number, id_text
from service.queue.owing import ResultPolicy
from service.queue.schema import FAULTS, explain, open_reader, open_writer
from service.queue.settlements import OPEN
from service.queue.sqlite import DATABASE
from service.queue.standing import Standing, standing
from service.queue.store import Change, Counts, JobState, StoreFailed
from service.queue.timekeeping import read_seen

T = TypeVar("T")
_WAITING: Final = """
SELECT DISTINCT r.address FROM delivery d JOIN recipient r ON r.job = d.job AND r.site = d.site
WHERE r.state = 'waiting'
"""
_PATIENCE = 10.0  # seconds to wait for a lock that the daemon has for milliseconds
_PASSED_OVER: Final[dict[Change, str]] = {
    "retry": "held: release it first",
    "hold": "held already",
    "release": "not held",
    "remove": "gone already",
}
"""Why a change leaves an unfinished job as it is."""


class Done(NamedTuple):
    """What a change did: how many jobs it changed, how many it left as they were, and of those that were named, why, by
    their ids, which are `ids`. Of those that it was for `in_flight` were being sent, or about to be."""

    changed: int
    unchanged: int
    why: dict[str, str]
    ids: tuple[str, ...] = ()
    in_flight: int = 0


class CommandStore:
    """Looks and changes. Opens the store for writing only when something is to be changed. `boot` tells a jump of the
    wall clock from time that passed.

    Every method raises `StoreFailed` where the store is missing, damaged, unreadable or locked for too long. A context
    manager, which closes it.
    """

    def __init__(
        self,
        directory: Path,
        wall_time: Callable[[], float],
        results: ResultPolicy = "all",
        boot: BootClock | None = None,
    ) -> None:
        self._path = directory / DATABASE
        self._wall_time = wall_time
        self._boot = boot
        self._results: ResultPolicy = results
        self._reader = open_reader(self._path, busy_timeout=_PATIENCE)
        self._writer: apsw.Connection | None = None

    def __enter__(self) -> CommandStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def show(self, job: str, max_age: float) -> JobDetails | None:
        """All of one job, whether finished or not, by its id or else by the name of its result. `max_age` is how long,
        in seconds, a job is kept at that does not say it itself."""
        return self._guard(lambda: self._show(job, max_age))

    def _show(self, job: str, max_age: float) -> JobDetails | None:
        offset = self._offset()
        now = self._wall_time() - offset
        found = details(self._reader, job, now, offset, max_age)
        if found is None and (id := named(self._reader, job)) is not None:
            return details(self._reader, id, now, offset, max_age)
        return found

    def count(self) -> Counts:
        """How much waits."""
        return self._guard(lambda: looking.count(self._reader))

    def waiting(self) -> list[str]:
        """The addresses of recipients that wait, each once."""
        return self._guard(lambda: [address for (address,) in self._reader.execute(_WAITING)])

    def standing(self, site: str | None = None) -> Standing:
        """How the whole queue stands, site by site, or one site."""
        return self._guard(lambda: self._standing(site))

    def _standing(self, site: str | None) -> Standing:
        offset = self._offset()
        return standing(self._reader, site, self._wall_time() - offset, offset)

    def change(self, change: Change, ids: Iterable[str] | None = None, site: str | None = None) -> Done:
        """Retry, hold, release or remove the jobs with these ids, or whose results have these names, or of this site,
        or all; tell what changed.

        Raises `UnknownJob` where one is not in the queue; nothing is changed then. A running daemon is to be poked
        afterwards.
        """
        return self._guard(lambda: self._change(change, ids, site))

    def _change(self, change: Change, ids: Iterable[str] | None, site: str | None) -> Done:
        jobs = changing.jobs_to_change(self._reader, None if ids is None else map(self._id_of, ids), site)
        if self._writer is None:
            self._writer = open_writer(self._path, busy_timeout=_PATIENCE)
        writer = self._writer
        changed = in_flight = 0
        passed_over: list[int] = []
        # In slices, so that a daemon beside us commits in between.
        for first in range(0, len(jobs), changing.SLICE):
            part = jobs[first : first + changing.SLICE]
            writer.execute("BEGIN IMMEDIATE")
            try:
                now = self._wall_time() - self._offset()
                in_flight += changing.count_in_flight(writer, part, site)
                done = changing.change_jobs(writer, change, part, site, now)
                owing.owe(writer, done, self._results, int(now * 1000))
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise
            changed += len(done)
            touched = {job for job, _ in done}
            passed_over += [job for job in part if job not in touched]
        if ids is None:  # those that have ended meanwhile were not meant
            return Done(changed, changing.count_open(self._reader, passed_over), {}, in_flight=in_flight)
        why = {id_text(job): self._why(change, job) for job in passed_over}
        return Done(changed, len(passed_over), why, tuple(map(id_text, jobs)), in_flight)

    def _id_of(self, job: str) -> str:
        """The id that is meant, by itself or by the name of its job's result."""
        known = self._reader.execute("SELECT 1 FROM job WHERE id = ?", (id_number(job),)).get
        return job if known else named(self._reader, job) or job

    def _why(self, change: Change, job: int) -> str:
        """Why it was left as it is."""
        state = self._reader.execute("SELECT state FROM job WHERE id = ?", (job,)).get
        return _PASSED_OVER[change] if state in OPEN else f"ended meanwhile ({state})"

    def _offset(self) -> float:
        """What the wall clock has beyond the store's times, as the daemon has noted or would find it."""
        return resumed(read_seen(self._reader), self._wall_time(), self._boot)

    def close(self) -> None:
        """Let go of the store."""
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def list(self, *, site: str | None = None, state: JobState | None = None, limit: int = 100) -> list[ListedJob]:
        """Jobs, oldest first. Without `state`, those that are not finished."""
        return self._guard(lambda: self._list(site, state, limit))

    def _list(self, site: str | None, state: JobState | None, limit: int) -> builtins.list[ListedJob]:
        offset = self._offset()
        jobs = looking.list_jobs(self._reader, site, state, limit, offset)
        return listed(self._reader, jobs, self._wall_time() - offset)

    def _guard(self, run: Callable[[], T]) -> T:
        try:
            return run()
        except FAULTS as error:
            raise StoreFailed(explain(self._path, error)) from error


def open_for_commands(
    directory: Path, wall_time: Callable[[], float], results: ResultPolicy = "all", boot: BootClock | None = None
) -> CommandStore:
    """The queue in `directory`. Raises `StoreFailed` where there is none, or it cannot be read."""
    return CommandStore(directory, wall_time, results, boot)
