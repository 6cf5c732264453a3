"""Several Deferreds as one: all of them, or the first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from deferred.defer import unhandled
from deferred.defer.deferred import Deferred
from deferred.defer.errors import FailureGroup, FirstError
from deferred.failure import Failure

T = TypeVar("T")


class DeferredList(Deferred[Any]):
    """Fires with `[(succeeded, result or failure), ...]`, in the order of `deferreds`, when all of them have fired.

    `fire_on_one_callback`: fire with `(result, index)` of the first that succeeds.
    `fire_on_one_errback`: fail with `FirstError` when the first fails.
    `consume_errors`: leave None in place of an error, for the callbacks that are added to each Deferred later; else it
    goes on there, and is reported as unhandled if nobody takes it.
    """

    __slots__ = ("_consume_errors", "_deferreds", "_on_callback", "_on_errback", "_outstanding", "_results")

    def __init__(
        self,
        deferreds: Iterable[Deferred[Any]],
        fire_on_one_callback: bool = False,
        fire_on_one_errback: bool = False,
        consume_errors: bool = False,
    ) -> None:
        super().__init__()
        self._deferreds = list(deferreds)
        self._on_callback = fire_on_one_callback
        self._on_errback = fire_on_one_errback
        self._consume_errors = consume_errors
        self._outstanding = len(self._deferreds)
        self._results: list[tuple[bool, Any]] = [(False, None)] * self._outstanding
        if not self._deferreds and not fire_on_one_callback:
            self.callback([])
        for index, deferred in enumerate(self._deferreds):
            deferred.add_both(self._collect, index)

    def _collect(self, result: Any, index: int) -> Any:
        failed = isinstance(result, Failure)
        self._results[index] = (not failed, result)
        self._outstanding -= 1
        if not self.called:
            if failed and self._on_errback:
                self.errback(FirstError(result, index))
            elif not failed and self._on_callback:
                self.callback((result, index))
            elif not self._outstanding:
                self.callback(self._results)
        return None if failed and self._consume_errors else result

    def cancel(self) -> None:
        """Cancel every Deferred of the list; nothing if the list has fired."""
        if self.called:
            super().cancel()
        else:
            _cancel_all(self._deferreds)


def gather_results(deferreds: Iterable[Deferred[T]], consume_errors: bool = False) -> Deferred[list[T]]:
    """The results of all `deferreds`, in their order; fails with `FirstError` as soon as one fails.

    The others are not cancelled then. Cancelling it cancels all. `consume_errors`: see `DeferredList`.
    """
    gathered = DeferredList(deferreds, fire_on_one_errback=True, consume_errors=consume_errors)
    return gathered.add_callback(_values)


def _values(results: list[tuple[bool, T]]) -> list[T]:
    return [value for _, value in results]


def race(deferreds: Iterable[Deferred[T]]) -> Deferred[tuple[int, T]]:
    """`(index, result)` of the first that succeeds; the others are cancelled, and their errors taken.

    Fails with `FailureGroup` when all have failed. Cancelling it cancels all, and fails with `CancelledError`.
    """
    racers = list(deferreds)
    failures: dict[int, Failure] = {}
    over = False

    def give_up(_: object) -> None:
        nonlocal over
        over = True
        _cancel_all(racers)

    def won(result: T, index: int) -> None:
        nonlocal over
        if not over:
            over = True
            _cancel_all(racers[:index] + racers[index + 1 :])
            first.callback((index, result))

    def lost(failure: Failure, index: int) -> None:
        nonlocal over
        failures[index] = failure
        if not over and len(failures) == len(racers):
            over = True
            first.errback(FailureGroup([failures[index] for index in range(len(racers))]))

    first: Deferred[tuple[int, T]] = Deferred(give_up)
    for index, deferred in enumerate(racers):
        deferred.add_callbacks(won, lost, index)
    if not racers:
        first.errback(FailureGroup([]))
    return first


def _cancel_all(deferreds: list[Deferred[Any]]) -> None:
    """Cancel each, whatever the canceller of another may raise: that goes to the hook for unhandled errors."""
    for deferred in deferreds:
        try:
            deferred.cancel()
        except Exception:  # noqa: BLE001 - the others must be cancelled too, and the hook is told
            unhandled.report(Failure())
