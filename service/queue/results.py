"""Result files: results/NAME.json tells the application how its job stands.

The store is the truth; a file is a copy of it, written to a temporary name and renamed into place, so that nobody ever
reads half of one. It is not synced: that would cost more than the delivery, and what a power cut takes away is still in
the store for 7 days. Which files are owed is part of the store's transactions, so that none is forgotten.

A job that has not ended is shown at the earliest a second after the change: one that ends by then is written once.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Generator, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from deferred.defer import Deferred, inline_callbacks
from deferred.interfaces import Reactor, TimerHandle
from service.journal import Journal
from service.queue.drop import remove_rejected
from service.queue.ids import id_text
from service.queue.layout import Layout
from service.queue.owing import Changed, OwedResult
from service.queue.schema import FAULTS
from service.queue.sqlite import SQLiteStore

_GRACE: Final = 1.0  # seconds in which a job may end and have its final result only
_GATHER: Final = 0.05  # seconds in which results gather for one batch
_BATCH: Final = 100
_ASKED: Final = 500  # names that the store is asked about in one turn
_SLICE: Final = 0.004  # seconds of work in one turn
_PAUSES: Final = (1.0, 5.0, 15.0, 60.0)
_encode: Final = msgspec.json.Encoder().encode


class ResultWriter:
    """Writes what the store owes, some files a turn.

    On the reactor's thread: in another, each of a file's few system calls would give the GIL away and wait for it
    again, which costs more than the file.
    """

    def __init__(self, reactor: Reactor, store: SQLiteStore, journal: Journal, layout: Layout) -> None:
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._layout = layout
        self._ready: dict[int, None] = {}
        self._parts: deque[OwedResult] = deque()  # of the job that was looked up last: an own result, and aliases
        self._soon: dict[int, float] = {}  # in the order of their times
        self._late: set[int] = set()  # could not be written
        self._timer: TimerHandle | None = None
        self._late_timer: TimerHandle | None = None
        self._failures = 0  # in a row
        self._catching_up: int | None = None
        self._stopped: Deferred[None] | None = None
        store.changed = self.changed

    def start(self) -> None:
        """Write what a former process still owed, and from now on what changes. Again: also what commands changed."""
        self._catching_up = 0
        self._wake(0)

    def changed(self, jobs: Iterable[Changed]) -> None:
        """These jobs have changed, and that is committed."""
        at = self._reactor.time() + _GRACE
        for job, ended in jobs:
            if ended:
                self._soon.pop(job, None)
                self._ready[job] = None
            elif job not in self._ready:
                self._soon.setdefault(job, at)
        self._wake(_GATHER if self._ready else _GRACE)

    def stop(self) -> Deferred[None]:
        """Write what has changed until now; fire when that has been tried."""
        self._stopped = Deferred()
        self._ready |= dict.fromkeys((*self._soon, *self._late))
        self._soon.clear()
        self._late.clear()
        if self._late_timer is not None:
            self._late_timer.cancel()
        self._wake(0)
        return self._stopped

    def _wake(self, delay: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= self._reactor.time() + delay:
                return
            self._timer.cancel()
        self._timer = self._reactor.call_later(delay, self._write_some)

    def _write_some(self) -> None:
        self._timer = None
        written: list[OwedResult] = []
        try:
            self._gather()
            self._write_slice(written)
        except FAULTS as error:  # of the store, while looking: whoever was looked for is still ready
            self._tell_failed("", str(error))
            self._timer = self._reactor.call_later(_PAUSES[0], self._write_some)
        if written:
            self._store.reported(written).add_errback(lambda _: None)  # the store is closed: written anew next time
        if self._timer is None:
            self._rest()

    def _write_slice(self, written: list[OwedResult]) -> None:
        end = self._reactor.time() + _SLICE
        while len(written) < _BATCH and self._reactor.time() < end:
            if not self._parts:
                job = next(iter(self._ready), None)
                if job is None:
                    return
                self._parts.extend(self._store.owed_results(job))
                del self._ready[job]
                continue
            owed = self._parts.popleft()
            try:
                write_result(self._layout.results, owed)
            except OSError as error:
                self._put_off(owed, error.strerror or str(error))
            else:
                written.append(owed)
                self._failures = 0 if not self._late else self._failures

    def _gather(self) -> None:
        now = self._reactor.time()
        for job, at in list(islice(self._soon.items(), _BATCH)):
            if at > now:
                break
            del self._soon[job]
            self._ready[job] = None
        if self._catching_up is not None and len(self._ready) < _BATCH:
            jobs = self._store.owed_jobs(self._catching_up, _BATCH)
            self._catching_up = jobs[-1] if jobs else None
            self._ready |= {job: None for job in jobs if job not in self._soon and job not in self._late}

    def _rest(self) -> None:
        if self._ready or self._parts or self._catching_up is not None:
            self._wake(0)
        elif self._soon:
            self._wake(max(0, next(iter(self._soon.values())) - self._reactor.time()))
        elif self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def _put_off(self, owed: OwedResult, why: str) -> None:
        """Try this one again later, and the others beside it; at the end not at all: the next start does."""
        self._tell_failed(owed.name, why)
        if self._stopped is not None:
            return
        if not self._late:
            delay = _PAUSES[min(self._failures, len(_PAUSES)) - 1]
            self._late_timer = self._reactor.call_later(delay, self._try_late)
        self._late.add(owed.job)

    def _tell_failed(self, name: str, why: str) -> None:
        if self._failures == 0:
            self._journal.tell("result_failed", name=name, why=why)
        self._failures += not self._late

    def _try_late(self) -> None:
        self._ready |= dict.fromkeys(self._late)
        self._late.clear()
        self._wake(0)

    @inline_callbacks
    def purge(self, before: float) -> Generator[Deferred[Any], Any, None]:
        """Remove results whose job has been forgotten, and what was rejected, from before then (wall time)."""
        cleaned = self._reactor.defer_to_thread(_clean_rejected, self._layout.rejected, before)
        cleaned.add_errback(lambda failure: self._tell_failed("", failure.get_error_message()))
        names = yield self._reactor.defer_to_thread(old_results, self._layout.results, before)
        for at in range(0, len(names), _ASKED):  # each slice in a turn of its own
            part = [name for name in names[at : at + _ASKED] if not self._store.keeps(name[: -len(".json")])]
            yield self._reactor.defer_to_thread(_remove_results, self._layout.results, part, before)
        yield cleaned


def write_result(directory: Path, owed: OwedResult) -> None:
    """Write this file and rename it into place. Raises `OSError`."""
    temporary = f"{directory}/.{id_text(owed.job)}.tmp"  # the name itself may be as long as a name can be
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        data = _encode(owed.view) + b"\n"
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
    os.rename(temporary, f"{directory}/{owed.name}.json")  # noqa: PTH104 (two paths a file would cost as much as the file)


def old_results(directory: Path, before: float) -> list[str]:
    """The names of result files last written before then. For a thread."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.name.endswith((".json", ".tmp")) and _older(entry, before)]


def _older(entry: os.DirEntry[str] | Path, before: float) -> bool:
    """Whether it was last written before then; what is gone meanwhile, or cannot be looked at, was not."""
    try:
        status = entry.lstat() if isinstance(entry, Path) else entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return status.st_mtime < before


def _remove_results(directory: Path, names: Iterable[str], before: float) -> None:
    for name in names:
        path = directory / name
        if _older(path, before):  # still: a new job may have got the name
            with contextlib.suppress(OSError):
                path.unlink()


def _clean_rejected(directory: Path, before: float) -> None:
    with os.scandir(directory) as entries:
        # A file keeps its own time when it is moved; its note has the time at which it was rejected.
        notes = [entry.path for entry in entries if entry.name.endswith(".why") and _older(entry, before)]
    for note in notes:
        remove_rejected(Path(note[: -len(".why")]))
