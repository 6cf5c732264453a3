"""Where what became of each claim is written down: durably first, with the reports that it owes; then it is told.

Settlements of one turn are written together: one operation of the store for all, a Deferred for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.interfaces import Reactor
from service.delivery import news
from service.delivery.policy import Plan
from service.delivery.reports import Kind, Reports
from service.journal import Journal
from service.queue.store import Claim, Settled, Settlement, Store, StoreFailed, Submission

_Entry = tuple[Settlement, Deferred[Settled]]


class Books:
    """`due(site, at)` is told when a site's next message is due, by the store's time (None: now, perhaps)."""

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        journal: Journal,
        reports: Reports,
        due: Callable[[str, float | None], object],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._reports = reports
        self._due = due
        self._waiting: list[_Entry] = []

    def write(self, claim: Claim, plan: Plan, decided: Callable[[], object] = lambda: None) -> Deferred[None]:
        """Fire once the plan is durable, and told. `decided` is called when it is on its way into the store."""
        if not self._reports.owes(claim, plan):
            return self._commit({}, claim, plan, decided)
        d: Deferred[Any] = self._reports.compose(claim, plan)
        return d.add_callback(self._commit, claim, plan, decided)

    def _commit(
        self, reports: dict[Kind, Submission], claim: Claim, plan: Plan, decided: Callable[[], object]
    ) -> Deferred[None]:
        decided()
        d: Deferred[Any] = self.settle(plan.settlement(claim, tuple(reports.values())))
        return d.add_callback(self._settled, claim, plan, reports)

    def _settled(self, done: Settled, claim: Claim, plan: Plan, reports: dict[Kind, Submission]) -> None:
        news.tell(self._journal, claim, plan, done, tuple(reports))
        for site in done.sites:
            if site != claim.site:
                self._due(site, None)  # moved there by new routes
            elif plan.due is not None and not plan.hold:
                self._due(site, plan.due)
        for report in reports.values():
            for site in set(report.sites):
                self._due(site, None)

    def settle(self, settlement: Settlement) -> Deferred[Settled]:
        """Fire once the settlement is durable; it fails alone, if at all."""
        if not self._waiting:
            self._reactor.call_soon(self._settle_all)
        d: Deferred[Settled] = Deferred()
        self._waiting.append((settlement, d))
        return d

    def _settle_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._settle(waiting)

    def _settle(self, entries: list[_Entry]) -> None:
        d: Deferred[Any] = self._store.settle([settlement for settlement, _ in entries])
        d.add_callbacks(self._written, self._not_written, entries)

    def _written(self, settled: list[Settled], entries: list[_Entry]) -> None:
        for one, (_, d) in zip(settled, entries, strict=True):
            d.callback(one)

    def _not_written(self, failure: Failure, entries: list[_Entry]) -> None:
        if len(entries) > 1 and not failure.check(StoreFailed):  # one of them is at fault: each for itself
            for entry in entries:
                self._settle([entry])
        else:
            for _, d in entries:
                d.errback(failure)
