"""Result files: results/NAME.json tells the application how its job stands.

The store is the truth; a file is a copy of it, written to a temporary name and renamed into place, so that nobody ever
reads half of one. It is not synced: that would cost more than the delivery, and what a power cut takes away is still in
the store for 7 days. Which files are owed is part of the store's transactions, so that none is forgotten.

A job that has not ended is shown at the earliest a second after the change: one that ends by then is written once.

To make a file may take the system fifty microseconds or several milliseconds, and a sick disk for ever: a thread does
it, a batch at a time, so that no delivery waits. The store is looked at, and told, on the reactor's thread. In a burst,
when jobs end by the hundreds a second, even that is left for ten seconds: mail goes first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from deferred.defer import Deferred, inline_callbacks
from deferred.interfaces import Reactor, TimerHandle
from service.journal import Journal
from service.queue.drop import remove_rejected
from service.queue.layout import Layout, make_again
from service.queue.owing import Changed, OwedResult
from service.queue.schema import FAULTS
from service.queue.sqlite import SQLiteStore

_GRACE: Final = 1.0  # seconds in which a job may end and have its final result only
_GATHER: Final = 0.05  # seconds in which results gather for one batch
_BATCH: Final = 100
_LOOKED_UP: Final = 10  # jobs at a time: each may have a thousand recipients
_ASKED: Final = 500  # names that the store is asked about in one turn
_SLICE: Final = 0.004  # seconds of work in one turn
_BURST: Final = 500.0  # jobs that end in a second
_COUNTED: Final = 0.25  # seconds over which they are counted
_GIVES_WAY: Final = 10.0  # seconds of a burst, or of several, in which nothing is written
_PAUSES: Final = (1.0, 5.0, 15.0, 60.0)
_encode: Final = msgspec.json.Encoder().encode


class ResultWriter:
    """Writes what the store owes, one batch of files after the other."""

    def __init__(self, reactor: Reactor, store: SQLiteStore, journal: Journal, layout: Layout) -> None:
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._layout = layout
        self._ready: dict[int, None] = {}
        self._soon: dict[int, float] = {}  # in the order of their times
        self._late: set[int] = set()  # could not be written
        self._writing = False
        self._ended = 0  # jobs since `_counted_at`
        self._counted_at = reactor.time()
        self._in_burst = False
        self._behind_since: float | None = None
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
                self._ended += 1
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
        if self._writing:
            return  # it comes back by itself
        if self._timer is not None:
            if self._timer.when() <= self._reactor.time() + delay:
                return
            self._timer.cancel()
        self._timer = self._reactor.call_later(delay, self._write_some)

    def _write_some(self) -> None:
        self._timer = None
        if self._gives_way():
            self._wake(_GATHER)
            return
        batch: list[OwedResult] = []
        try:
            self._gather()
            self._look_up(batch)
        except FAULTS as error:  # of the store, while looking: whoever was looked for is still ready
            self._tell_failed("", str(error))
            if not batch:
                self._wake(_PAUSES[0])
                return
        if not batch:
            self._rest()
            return
        self._writing = True
        d: Deferred[Any] = self._reactor.defer_to_thread(write_results, self._layout.results, batch)
        d.add_errback(lambda failure: [failure.get_error_message()] * len(batch))  # there is no thread to be had
        d.add_callback(self._written, batch)

    def _gives_way(self) -> bool:
        """Whether this is the beginning of a burst, in which the machine is better left to the deliveries. Who has not
        caught up in the lull after it gives way no longer in the next."""
        if self._stopped is not None:
            return False
        now = self._reactor.time()
        elapsed = now - self._counted_at
        if elapsed >= _COUNTED:
            self._in_burst = self._ended > _BURST * elapsed
            self._ended, self._counted_at = 0, now
        if self._in_burst and self._behind_since is None:
            self._behind_since = now
        return self._in_burst and self._behind_since is not None and now - self._behind_since < _GIVES_WAY

    def _look_up(self, batch: list[OwedResult]) -> None:
        """Take what is ready into the batch."""
        end = self._reactor.time() + _SLICE
        while self._ready and len(batch) < _BATCH and self._reactor.time() < end:
            jobs = list(islice(self._ready, _LOOKED_UP))
            batch += self._store.owed_results(jobs)
            for job in jobs:
                del self._ready[job]

    def _written(self, troubles: list[str | None], batch: list[OwedResult]) -> None:
        self._writing = False
        done: list[OwedResult] = []
        for owed, why in zip(batch, troubles, strict=True):
            if why is not None:
                self._put_off(owed, why)
            else:
                done.append(owed)
                self._failures = 0 if not self._late else self._failures
        if done:
            self._store.reported(done).add_errback(lambda _: None)  # the store is closed: written anew next time
        self._rest()

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
        if self._ready or self._catching_up is not None:
            self._wake(0)
            return
        if not self._in_burst:
            self._behind_since = None
        if self._soon:
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


def write_results(directory: Path, batch: Sequence[OwedResult]) -> list[str | None]:
    """Write these files; return for each what went wrong, None for nothing. For a thread."""
    troubles: list[str | None] = []
    for owed in batch:
        try:
            write_result(directory, owed)
        except OSError as error:
            if error.errno == errno.ENOENT:
                make_again(directory)  # for the next one
            troubles.append(error.strerror or str(error))
        else:
            troubles.append(None)
    return troubles


def write_result(directory: Path, owed: OwedResult) -> None:
    """Write this file and rename it into place. Raises `OSError`."""
    temporary = f"{directory}/.{owed.view.id}.tmp"  # the name itself may be as long as a name can be
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
