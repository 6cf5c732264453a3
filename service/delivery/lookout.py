"""When a site's next message is due: found in the store, kept by a timer, looked up anew now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from deferred.interfaces import Reactor, TimerHandle
from service.delivery.sites import Sites, SiteState
from service.queue.store import Store, StoreFailed

_LOOK_AGAIN: Final = 60.0
"""Seconds after which a site's next due time, and all sites' backlog, are looked up anew at the latest: timers
stop while the machine sleeps, the store's time does not; what nobody told of is found; a clock's jump is noticed."""

_SHORTEST: Final = 0.02
"""Seconds until a site is looked at again whose work is due, yet was not claimed."""

_STORE_PATIENCE: Final = 1.0
"""Seconds between looks at a store that cannot be looked at."""


class Lookout:
    """Tells `due(state)` when a site may have due work."""

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        sites: Sites,
        due: Callable[[SiteState], object],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._sites = sites
        self._due = due
        self._round: TimerHandle | None = None
        self._stopped = False

    def look_ahead(self, state: SiteState) -> None:
        """All that is due has been claimed: come back for what will be."""
        self._look(state, self.expect)

    def _look(self, state: SiteState, found: Callable[[SiteState, float], object]) -> None:
        """Tell `found` when the site's first message is due, if there is one."""
        try:
            due = self._store.next_due(state.name)
        except StoreFailed:
            self.look_later(state)
        else:
            if due is not None:
                found(state, due)

    def look_later(self, state: SiteState) -> None:
        """The store could not say."""
        self.expect(state, self._store.now() + _STORE_PATIENCE)

    def look_round(self) -> None:
        """Find the sites that have work due now, and those that will; come back for more."""
        if self._round is not None:
            self._round.cancel()
            self._round = None
        if self._stopped:
            return
        patience = _LOOK_AGAIN
        self._store.now()  # which notices, even where nothing waits, what has become of the wall clock
        try:
            for backlog in self._store.backlog():
                self._come_back(self._sites[backlog.site], backlog.due)
        except StoreFailed:
            patience = _STORE_PATIENCE
        self._round = self._reactor.call_later(patience, self.look_round)

    def expect(self, state: SiteState, due: float) -> None:
        """A message of the site is due then, by the store's time."""
        if self._stopped:
            return
        if state.timer is not None:
            if state.timer_due <= due:
                return
            state.timer.cancel()
        delay = min(max(due - self._store.now(), _SHORTEST), _LOOK_AGAIN)
        state.timer_due = due
        state.timer = self._reactor.call_later(delay, self._time_has_come, state)

    def stop(self) -> None:
        """Look for nothing any more; the sites' timers are their own."""
        self._stopped = True
        if self._round is not None:
            self._round.cancel()

    def _come_back(self, state: SiteState, due: float) -> None:
        """Its first message is due then: now, perhaps."""
        if due <= self._store.now():
            self._due(state)
        else:
            self.expect(state, due)

    def _time_has_come(self, state: SiteState) -> None:
        state.timer = None
        self._look(state, self._come_back)
