"""Group commit: what is asked for in one turn of the reactor becomes one transaction.

    submit -> waiting -> [ BEGIN, the operations ] -> COMMIT in a thread -> each Deferred fires

Statements run on the reactor's thread, where the GIL is: in a thread each of them would have to win it back. Only
COMMIT, which waits for the disk, runs in the thread; what is asked for meanwhile gathers for the next transaction.
Nobody is told of a result before the COMMIT that makes it durable, and all are told in the order in which they asked.

An operation that raises is undone alone, and its Deferred fails: the batch is rolled back and run again, each operation
now in a savepoint, which would be a third of the cost of a small one if all had it always. When the store itself fails
(the disk is full, an I/O error), the whole batch is rolled back, the connection is opened anew, and the same operations
are run again after a while, for as long as it takes. A COMMIT that failed may all the same have reached the log, and
come back: an operation run again is told so (`again`) and recognises what it did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from deferred.defer import Deferred, fail
from deferred.failure import Failure
from deferred.interfaces import Reactor, TimerHandle
from service.journal import Journal
from service.queue.damage import note_damage
from service.queue.schema import FAULTS, make_durable, open_writer
from service.queue.store import StoreFailed

T = TypeVar("T")
Run = Callable[[apsw.Connection, bool], T]
"""An operation: its statements, told whether it may have been committed by an earlier try."""

_MOST_OPERATIONS: Final = 500
_MOST_SECONDS: Final = 0.008  # of statements in one turn
_BUSY_PAUSE: Final = 0.005
_BUSY_LONG: Final = 5.0  # seconds of another's lock after which the store counts as failed
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_TELL_AGAIN: Final = 60.0


class _Operation:
    __slots__ = ("again", "cost", "deferred", "patient", "run")

    def __init__(self, run: Run[Any], cost: int, patient: bool) -> None:
        self.run = run
        self.cost = cost
        self.patient = patient
        self.again = False
        self.deferred: Deferred[Any] = Deferred()


class GroupCommit:
    """The one writer of the store's process."""

    def __init__(self, path: Path, reactor: Reactor, journal: Journal) -> None:
        """Open the store. Raises `StoreFailed`."""
        self._path = path
        self._reactor = reactor
        self._journal = journal
        self._connection: apsw.Connection | None = open_writer(path, upgrading=True)
        self._waiting: deque[_Operation] = deque()
        self._timer: TimerHandle | None = None
        self._committing = False
        self._failures = 0
        self._told_at = 0.0
        self._busy_since: float | None = None
        self._why = ""
        self._closing: Deferred[None] | None = None
        self._closed = False

    @property
    def healthy(self) -> bool:
        """Whether the last COMMIT succeeded."""
        return not self._failures

    def submit(self, run: Run[T], *, cost: int = 1, patient: bool = True, last: bool = False) -> Deferred[T]:
        """Run the operation in the next transaction; fire with what it returned once that is committed.

        `cost` is how many messages it writes. One that is not `patient` fails with `StoreFailed` when its transaction
        does; the others wait for a better one. One that is `last` is still taken while the store is being closed.
        """
        if self._closed or (self._closing is not None and not last):
            return fail(StoreFailed(f"{self._path} is closed"))
        if not patient and self._failures:
            return fail(StoreFailed(self._why))
        operation = _Operation(run, cost, patient)
        self._waiting.append(operation)
        if not self._committing and self._timer is None:
            self._timer = self._reactor.call_soon(self._begin)
        return operation.deferred

    def now(self, run: Callable[[apsw.Connection], T]) -> T:
        """Run and commit on this thread, at once: for the start, before the reactor runs. Raises `StoreFailed`.

        What a former process left in the log is durable before anything is made of it.
        """
        assert self._connection is not None
        try:
            self._connection.set_busy_timeout(10_000)  # a command may be at work
            make_durable(self._connection)
            self._connection.execute("BEGIN IMMEDIATE")
            result = run(self._connection)
            self._connection.execute("COMMIT")
            self._connection.set_busy_timeout(0)
        except apsw.Error as error:
            why = note_damage(self._path, error, self._connection)
            self._abandon_connection()
            raise StoreFailed(why) from error
        return result

    def close(self) -> Deferred[None]:
        """Commit what waits, if that can be done at once, and let go of the store."""
        if self._closing is None:
            self._closing = Deferred()
            if not self._committing:
                self._again_after(0)
        return self._closing

    def _begin(self) -> None:
        self._timer = None
        if not self._waiting:
            if self._failures and self._closing is None:
                self._find_out()
            self._finish_closing()
            return
        try:
            if self._connection is None:
                self._connection = open_writer(self._path)
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as error:
            self._wait_for_lock(error)
            return
        except (apsw.Error, StoreFailed) as error:
            self._failed([], error)
            return
        self._busy_since = None
        batch: list[tuple[_Operation, Any]] = []
        try:
            self._run_batch(self._connection, batch)
        except apsw.Error as error:
            self._failed([operation for operation, _ in batch], error)
            return
        self._committing = True
        d = self._reactor.defer_to_thread(_commit, self._connection)
        d.add_callbacks(lambda _: self._committed(batch), lambda failure: self._not_committed(batch, failure))

    def _find_out(self) -> None:
        """Whoever waits for the store to be well again asks nothing of it until then: so it asks itself."""

        def touch(connection: apsw.Connection, _: bool) -> None:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('probe', ?)", (self._reactor.wall_time(),))

        self.submit(touch).add_errback(lambda failure: failure.trap(StoreFailed))  # it is being closed meanwhile

    def _run_batch(self, connection: apsw.Connection, batch: list[tuple[_Operation, Any]]) -> None:
        try:
            self._run(connection, batch, _run_bare)
        except FAULTS:
            raise
        except Exception:  # noqa: BLE001 (one of them has a fault of its own, and is about to be told so)
            self._waiting.extendleft(operation for operation, _ in reversed(batch))
            batch.clear()
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            self._run(connection, batch, _run_apart)

    def _run(
        self,
        connection: apsw.Connection,
        batch: list[tuple[_Operation, Any]],
        run_one: Callable[[apsw.Connection, _Operation], Any],
    ) -> None:
        """Run what waits, as much as fits into one transaction; note in `batch` each operation and what it returned."""
        started = self._reactor.time()
        cost = 0
        while self._waiting and cost < _MOST_OPERATIONS and self._reactor.time() - started < _MOST_SECONDS:
            operation = self._waiting.popleft()
            batch.append((operation, None))
            cost += operation.cost
            batch[-1] = (operation, run_one(connection, operation))

    def _committed(self, batch: list[tuple[_Operation, Any]]) -> None:
        self._committing = False
        if self._failures:
            self._failures = 0
            self._journal.tell("store_recovered")
        if self._waiting or self._closing is not None:
            self._timer = self._reactor.call_soon(self._begin)
        for operation, result in batch:
            if isinstance(result, Failure):
                operation.deferred.errback(result)
            else:
                operation.deferred.callback(result)

    def _not_committed(self, batch: list[tuple[_Operation, Any]], failure: Failure) -> None:
        self._committing = False
        for operation, _ in batch:
            operation.again = True
        self._failed([operation for operation, _ in batch], failure.value)

    def _failed(self, batch: list[_Operation], error: BaseException) -> None:
        """Put the batch back in front, let go of the connection, say so, and try again later."""
        self._why = note_damage(self._path, error, self._connection)
        self._abandon_connection()
        self._failures += 1
        if self._failures == 1 or self._reactor.time() - self._told_at >= _TELL_AGAIN:
            self._told_at = self._reactor.time()
            self._journal.tell("store_failed", why=self._why)
        self._waiting.extendleft(reversed(batch))
        impatient = [operation for operation in self._waiting if not operation.patient or self._closing is not None]
        for operation in impatient:
            self._waiting.remove(operation)
        self._again_after(0 if self._closing is not None else _PAUSES[min(self._failures, len(_PAUSES)) - 1])
        for operation in impatient:
            operation.deferred.errback(StoreFailed(self._why))

    def _abandon_connection(self) -> None:
        # What a failed COMMIT leaves in a connection cannot be trusted: closing it rolls back whatever is open.
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)

    def _wait_for_lock(self, error: apsw.BusyError) -> None:
        now = self._reactor.time()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now - self._busy_since >= _BUSY_LONG:
            self._failed([], error)
        else:
            self._again_after(_BUSY_PAUSE)

    def _again_after(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.call_later(delay, self._begin)

    def _finish_closing(self) -> None:
        if self._closing is None or self._closed:
            return
        self._closed = True
        self._abandon_connection()
        self._closing.callback(None)


def _run_bare(connection: apsw.Connection, operation: _Operation) -> Any:
    return operation.run(connection, operation.again)


def _run_apart(connection: apsw.Connection, operation: _Operation) -> Any:
    """Run it in a savepoint; return the failure if it has one of its own, with nothing of it done."""
    connection.execute("SAVEPOINT operation")
    try:
        result = operation.run(connection, operation.again)
    except FAULTS:
        raise
    except Exception:  # noqa: BLE001 (whatever it is, it is its own: its Deferred carries it to who asked)
        result = Failure()
        connection.execute("ROLLBACK TO operation")
    connection.execute("RELEASE operation")
    return result


def _commit(connection: apsw.Connection) -> None:
    connection.execute("COMMIT")
