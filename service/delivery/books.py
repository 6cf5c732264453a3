"""Settlements of one turn, written together: one operation of the store for all, a Deferred for each."""

from __future__ import annotations

from typing import Any

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.interfaces import Reactor
from service.queue.store import Settled, Settlement, Store, StoreFailed

_Entry = tuple[Settlement, Deferred[Settled]]


class Books:
    """Where what became of each claim is written down."""

    def __init__(self, reactor: Reactor, store: Store) -> None:
        self._reactor = reactor
        self._store = store
        self._waiting: list[_Entry] = []

    def settle(self, settlement: Settlement) -> Deferred[Settled]:
        """Fire once the settlement is durable; it fails alone, if at all."""
        if not self._waiting:
            self._reactor.call_soon(self._write_all)
        d: Deferred[Settled] = Deferred()
        self._waiting.append((settlement, d))
        return d

    def _write_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._write(waiting)

    def _write(self, entries: list[_Entry]) -> None:
        d: Deferred[Any] = self._store.settle([settlement for settlement, _ in entries])
        d.add_callbacks(self._written, self._not_written, entries)

    def _written(self, settled: list[Settled], entries: list[_Entry]) -> None:
        for one, (_, d) in zip(settled, entries, strict=True):
            d.callback(one)

    def _not_written(self, failure: Failure, entries: list[_Entry]) -> None:
        if len(entries) > 1 and not failure.check(StoreFailed):  # one of them is at fault: each for itself
            for entry in entries:
                self._write([entry])
        else:
            for _, d in entries:
                d.errback(failure)
