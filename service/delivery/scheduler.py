"""Which site's work is next: sites in turn, never more claimed than there is room for, each message when it is due.

The ring holds the sites that may have due work and may be given some; a turn goes round it once, and every site gets a
fair share of what is free. A site leaves the ring when it has no due work (a timer brings it back), is full (the end of
a conversation does) or rests (the end of the rest does).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

from config.settings import Retry
from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.interfaces import Reactor, TimerHandle
from service.delivery.pool import Pool
from service.delivery.sites import SiteState, SiteView
from service.journal import Journal
from service.queue.store import Claim, Store, StoreFailed
from service.smtp.errors import HostFailure

_LOOK_AGAIN: Final = 60.0
"""Seconds after which a site's next due time, and all sites' backlog, are looked up anew at the latest: timers
stop while the machine sleeps, the store's time does not; what nobody told of is found; a clock's jump is noticed."""

_SHORTEST: Final = 0.02
"""Seconds until a site is looked at again whose work is due, yet was not claimed."""

_STORE_PATIENCE: Final = 1.0
"""Seconds between looks at a store that cannot commit, or cannot be looked at."""


class Scheduler:
    """Claims work from the store and has it delivered."""

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        journal: Journal,
        pool: Pool[Any],
        draw: random.Random,
        retry: Retry,
        deliver: Callable[[Claim], object],
        careful: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`careful(site)` tells whether one message is to find out first how a site does that nothing is known of."""
        self.retry = retry
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._pool = pool
        self._draw = draw
        self._deliver = deliver
        self._careful = careful
        self._sites: dict[str, SiteState] = {}
        self._ring: deque[SiteState] = deque()
        self._turn_due = False
        self._store_timer: TimerHandle | None = None
        self._round: TimerHandle | None = None
        self._stopped = False

    # what others tell

    def wake(self, site: str | None = None) -> None:
        """There may be due work for a site, or (None) for any; from then on all are looked at again and again."""
        if site is None:
            self._look_round()
        else:
            self._mark(self._site(site))

    def expect(self, site: str, due: float) -> None:
        """A message of the site is due then, by the store's time."""
        self._set_timer(self._site(site), due)

    def end_rest(self, site: str | None = None) -> None:
        """Let the site, or (None) every site, be tried now."""
        for state in [self._site(site)] if site is not None else list(self._sites.values()):
            self._wake_up(state)

    def leave(self, claim: Claim) -> None:
        """The conversation for this claim has ended: there is room for another."""
        self._pool.leave(claim.site)
        state = self._site(claim.site)
        if state.probe == claim.id:
            state.probe = None
        self.freed(claim.site)

    def freed(self, site: str) -> None:
        """There may be room for another conversation with this site, and with others too."""
        state = self._site(site)
        if state.health == "up" and self._careful(site) and self._pool.unused_at(site):
            state.health = "probing"  # the next login is the first for a while: the password may have changed
        if state.more:
            self._mark(state)
        self._want_turn()

    def start_over(self, changed: Collection[str]) -> None:
        """The settings have changed, passwords perhaps: be careful again. The rest of a site that has `changed` itself
        is over, as what was wrong with it may be mended; nor does it matter any more how the old one does."""
        for state in self._sites.values():
            if state.name in changed:
                self._cancel_rest(state)
                state.renewed(self._reactor.time())
                self._mark(state)
            if state.health == "up" and self._careful(state.name):
                state.health = "probing"

    def introduced(self, site: str) -> None:
        """A host of the site has taken us in."""
        state = self._site(site)
        if state.introduced():
            self._mark(state)

    def served(self, site: str, began: float) -> None:
        """A host of the site served an attempt that began at `began`."""
        state = self._site(site)
        if state.served(began):
            self._cancel_rest(state)
            self._journal.tell("site_back", site=site)
            self._mark(state)

    def rest(self, site: str, error: HostFailure, began: float) -> float:
        """No host of the site served an attempt that began at `began`: let it rest. Returns the seconds that are left
        of its rest."""
        state = self._site(site)
        now = self._reactor.time()
        length = state.rest(error, began, now, self.retry, self.spread())
        if length is not None:
            state.rest_timer = self._reactor.call_later(length, self._wake_up, state)
            self._journal.tell(
                "site_resting",
                site=site,
                host=error.host,
                phase=error.phase.value,
                code=error.code,
                text=error.text,
                delay=length,
            )
        return self.rest_left(site)

    def rest_left(self, site: str) -> float:
        """Seconds until the site's rest is over."""
        return max(0.0, self._site(site).rest_ends - self._reactor.time())

    def is_dead(self, site: str) -> bool:
        """Whether the site has failed, and not served, for as long as the longest rest: this is no passing trouble."""
        since = self._site(site).failing_since
        return since is not None and self._reactor.time() - since >= self.retry.site_rest.longest

    def spread(self) -> float:
        """A number drawn from [-1, 1], for jitter."""
        return self._draw.uniform(-1.0, 1.0)

    def stop(self) -> None:
        """Claim nothing any more."""
        self._stopped = True
        self._ring.clear()
        for state in self._sites.values():
            self._cancel_rest(state)
            if state.timer is not None:
                state.timer.cancel()
                state.timer = None
        for timer in (self._store_timer, self._round):
            if timer is not None:
                timer.cancel()

    def views(self) -> list[SiteView]:
        """The sites that are known of, by name."""
        shift = self._store.now() - self._reactor.time()
        return [
            SiteView(
                name=name,
                health=state.health,
                resting_until=state.rest_ends + shift if state.health == "resting" else None,
                in_flight=self._pool.busy_at(name),
                last_error=state.last_error,
            )
            for name, state in sorted(self._sites.items())
        ]

    # the ring

    def _site(self, name: str) -> SiteState:
        state = self._sites.get(name)
        if state is None:
            state = self._sites[name] = SiteState(name, "probing" if self._careful(name) else "up")
        return state

    def _mark(self, state: SiteState) -> None:
        """The site may have due work."""
        state.more = True
        if not state.claiming and not state.ready and not self._stopped:
            state.ready = True
            self._ring.append(state)
            self._want_turn()

    def _want_turn(self) -> None:
        if self._ring and not self._turn_due and not self._stopped:
            self._turn_due = True
            self._reactor.call_soon(self._turn)

    def _turn(self) -> None:
        """Go round the ring once."""
        self._turn_due = False
        if self._stopped:
            return
        if not self._store.healthy:  # what could not be settled must not be tried
            if self._store_timer is None:
                self._store_timer = self._reactor.call_later(_STORE_PATIENCE, self._look_at_store)
            return
        share = max(1, self._pool.free // max(1, len(self._ring)))
        for _ in range(len(self._ring)):
            if self._pool.free == 0:
                return
            self._serve(self._ring.popleft(), share)

    def _look_at_store(self) -> None:
        self._store_timer = None
        self._want_turn()

    def _serve(self, state: SiteState, share: int) -> None:
        """Claim work for a site, at most its share of the slots that are free."""
        state.ready = False
        if not state.takes_work or self._pool.full_at(state.name):
            return
        number = min(self._pool.room(state.name), share if state.health == "up" else 1)
        if number == 0:  # what is free is kept for others: any conversation's end may change that
            state.ready = True
            self._ring.append(state)
            return
        for _ in range(number):
            self._pool.enter(state.name)
        state.claiming, state.more = True, False
        d: Deferred[Any] = self._store.claim(state.name, number)
        d.add_callbacks(self._claimed, self._not_claimed, state, number)
        d.add_errback(self._report)

    def _claimed(self, claims: list[Claim], state: SiteState, asked: int) -> None:
        state.claiming = False
        for _ in range(asked - len(claims)):
            self._pool.leave(state.name)
        more = state.more or len(claims) == asked
        taken = self._welcome(claims, state)
        self._give_back(claims[len(taken) :], state)
        for claim in taken:
            self._deliver(claim)
        if more:
            self._mark(state)
        else:
            self._look_ahead(state)
        self._want_turn()

    def _welcome(self, claims: list[Claim], state: SiteState) -> list[Claim]:
        """Those of the claims that may still be tried: the end, or a site's rest, may have come before them."""
        if self._stopped or state.health == "resting":
            return []
        if state.health == "probing" and claims:
            state.probe = claims[0].id
            return claims[:1]
        return claims

    def _give_back(self, claims: list[Claim], state: SiteState) -> None:
        """The claims came too late."""
        if claims:
            for _ in claims:
                self._pool.leave(state.name)
            state.more = True
            self._store.unclaim(claims).add_callback(self._given_back).add_errback(self._report)

    def _given_back(self, sites: list[str]) -> None:
        """They wait at these sites now: at others than before where the routes have changed."""
        for site in sites:
            self._mark(self._site(site))

    def _not_claimed(self, failure: Failure, state: SiteState, asked: int) -> None:
        """The store could not say: ask again in a while."""
        state.claiming = False
        for _ in range(asked):
            self._pool.leave(state.name)
        self._look_later(state)
        failure.trap(StoreFailed)

    # time

    def _look_ahead(self, state: SiteState) -> None:
        """All that is due has been claimed: come back for what will be."""
        try:
            due = self._store.next_due(state.name)
        except StoreFailed:
            self._look_later(state)
        else:
            if due is not None:
                self._set_timer(state, due)

    def _look_later(self, state: SiteState) -> None:
        """The store could not say."""
        self._set_timer(state, self._store.now() + _STORE_PATIENCE)

    def _look_round(self) -> None:
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
                self._come_back(self._site(backlog.site), backlog.due)
        except StoreFailed:
            patience = _STORE_PATIENCE
        self._round = self._reactor.call_later(patience, self._look_round)

    def _come_back(self, state: SiteState, due: float) -> None:
        """Its first message is due then: now, perhaps."""
        if due <= self._store.now():
            self._mark(state)
        else:
            self._set_timer(state, due)

    def _set_timer(self, state: SiteState, due: float) -> None:
        if self._stopped:
            return
        if state.timer is not None:
            if state.timer_due <= due:
                return
            state.timer.cancel()
        delay = min(max(due - self._store.now(), _SHORTEST), _LOOK_AGAIN)
        state.timer_due = due
        state.timer = self._reactor.call_later(delay, self._time_has_come, state)

    def _time_has_come(self, state: SiteState) -> None:
        state.timer = None
        try:
            due = self._store.next_due(state.name)
        except StoreFailed:
            self._look_later(state)
        else:
            if due is not None:
                self._come_back(state, due)

    def _wake_up(self, state: SiteState) -> None:
        """The rest is over."""
        self._cancel_rest(state)
        state.end_rest()
        self._mark(state)

    def _cancel_rest(self, state: SiteState) -> None:
        if state.rest_timer is not None:
            state.rest_timer.cancel()
            state.rest_timer = None

    def _report(self, failure: Failure) -> None:
        if failure.check(StoreFailed):  # the store tells of itself; what it did not take back the next start finds
            return
        self._journal.tell("unhandled_error", where="scheduler", error=failure.get_traceback())
