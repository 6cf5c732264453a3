"""Which site's work is next: sites in turn, never more claimed than there is room for, each message when it is due.

The ring holds the sites that may have due work and may be given some; a turn goes round it once, and every site gets a
fair share of what is free. A site leaves the ring when it has no due work (a timer brings it back), is full (the end of
a conversation does), has used up its rate (the time of its next token does) or rests (the end of the rest does).

What is begun comes from the site's stock: messages claimed ahead, as many as it is likely to begin in the next moment,
so that a conversation's end needs no wait for the disk. A site that is slow has none in stock.
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
from service.delivery.lookout import Lookout
from service.delivery.pace import Concurrency, TokenBucket
from service.delivery.pool import Pool
from service.delivery.sites import Allowance, SiteState, SiteView
from service.journal import Journal
from service.queue.store import Claim, Store, StoreFailed
from service.smtp.errors import HostFailure

_STORE_PATIENCE: Final = 1.0
"""Seconds between looks at a store that cannot commit."""

_AHEAD: Final = 0.1
"""Seconds' worth of messages that a site has in stock."""

_MOST_AHEAD: Final = 500
_MOST_OCTETS: Final = 16 * 1024 * 1024
"""Of content in the stocks of all sites: beyond, nothing is claimed ahead."""


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
        careful: Callable[[str], bool],
        allowance: Callable[[str], Allowance],
    ) -> None:
        """`careful(site)` tells whether one message is to find out first how a site does that nothing is known of,
        `allowance(site)` what it may be given."""
        self.retry = retry
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._pool = pool
        self._draw = draw
        self._deliver = deliver
        self._careful = careful
        self._allowance = allowance
        self._sites: dict[str, SiteState] = {}
        self._ring: deque[SiteState] = deque()
        self._turn_due = False
        self._store_timer: TimerHandle | None = None
        self._lookout = Lookout(reactor, store, self._site, self._mark)
        self._stopped = False

    # what others tell

    def resume(self) -> None:
        """Go on with the rests that a former process noted. Raises `StoreFailed`."""
        shift = self._store.now() - self._reactor.time()
        for rest in self._store.rests():
            state = self._site(rest.site)
            left = state.resume(rest, shift) - self._reactor.time()
            if left > self.retry.site_rest.longest * (1 + self.retry.jitter):  # the settings, or a clock, say otherwise
                left = 0.0
            state.rest_timer = self._reactor.call_later(max(0.0, left), self._wake_up, state)

    def wake(self, site: str | None = None) -> None:
        """There may be due work for a site, or (None) for any; from then on all are looked at again and again."""
        if site is None:
            self._lookout.look_round()
        else:
            self._mark(self._site(site))

    def expect(self, site: str, due: float | None) -> None:
        """A message of the site is due then, by the store's time; None: now, perhaps."""
        if due is None:
            self.wake(site)
        else:
            self._lookout.expect(self._site(site), due)

    def end_rest(self, site: str | None = None) -> None:
        """Let the site, or (None) every site, be tried now."""
        for state in [self._site(site)] if site is not None else list(self._sites.values()):
            self._wake_up(state)

    def next(self, site: str) -> Claim | None:
        """The site's next message, for a conversation that goes on; None where there is none, or it is not its time.
        It takes no slot until the message before has left."""
        state = self._site(site)
        if self._stopped or state.health != "up" or not state.stock or self._waits_for_its_pace(state):
            return None
        state.pace.take(self._reactor.time())
        return state.stock.take()

    def leave(self, claim: Claim, heir: Claim | None = None) -> None:
        """The conversation for this claim has ended: there is room for another, or its slot goes to the heir."""
        self._pool.leave(claim.site)
        if heir is not None:
            self._pool.enter(heir.site)
        state = self._site(claim.site)
        state.ended += 1
        if state.probe == claim.id:
            state.probe = None
        self.freed(claim.site)

    def freed(self, site: str) -> None:
        """There may be room for another conversation with this site, and with others too."""
        state = self._site(site)
        if state.health == "up" and self._careful(site) and self._pool.unused_at(site):
            state.health = "probing"  # the next login is the first for a while: the password may have changed
        self._get_ready(state)
        self._want_turn()

    def start_over(self, changed: Collection[str]) -> None:
        """The settings have changed, passwords perhaps: be careful again. The rest of a site that has `changed` itself
        is over, as what was wrong with it may be mended; nor does it matter any more how the old one does."""
        for state in self._sites.values():
            state.allow(self._allowance(state.name))
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
        state.concurrency.succeeded(began, self._pool.busy_at(site))
        if state.noted:
            state.noted = False
            self._store.forget_rest(site).add_errback(self._report)
        if state.served(began):
            self._cancel_rest(state)
            self._journal.tell("site_back", site=site)
            self._mark(state)

    def rest(self, site: str, error: HostFailure, began: float) -> float:
        """No host of the site served an attempt that began at `began`: let it rest. Returns the seconds that are left
        of its rest."""
        state = self._site(site)
        now = self._reactor.time()
        state.concurrency.failed(began, now)
        length = state.rest(error, began, now, self.retry, self.spread())
        if length is not None:
            state.rest_timer = self._reactor.call_later(length, self._wake_up, state)
            state.noted = True
            self._store.note_rest(state.as_rest(self._store.now() - now)).add_errback(self._report)
            self._give_back(state.stock.clear(), state)
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

    def slow_down(self, site: str, began: float) -> bool:
        """The site served an attempt that began at `began`, but asks for less; False where it has the least already,
        and is to be given a rest."""
        state = self._site(site)
        least = state.concurrency.limit == 1
        state.concurrency.failed(began, self._reactor.time())
        return not least

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
            self._give_back(state.stock.clear(), state)
            for timer in (state.rest_timer, state.pace_timer):
                if timer is not None:
                    timer.cancel()
            state.rest_timer = state.pace_timer = None
        self._lookout.stop(self._sites.values())
        if self._store_timer is not None:
            self._store_timer.cancel()

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
            allowance = self._allowance(name)
            pace = TokenBucket(allowance.rate)
            state = SiteState(name, Concurrency(allowance.connections), pace, allowance.rate)
            state.health = "probing" if self._careful(name) else "up"
            self._sites[name] = state
        return state

    def _mark(self, state: SiteState) -> None:
        """The site may have due work."""
        state.more = True
        self._get_ready(state)

    def _get_ready(self, state: SiteState) -> None:
        """Let the next turn serve the site, if there may be anything for it."""
        if (state.stock or (state.more and not state.claiming)) and not state.ready and not self._stopped:
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
        """Begin what a site has in stock, in at most its share of the slots that are free, and claim more."""
        state.ready = False
        if not state.takes_work:
            return
        limit = state.concurrency.limit
        room = min(self._pool.room(state.name, limit), share if state.health == "up" else 1)
        if room == 0 and not self._pool.full_at(state.name, limit):
            state.ready = True  # what is free is kept for others: any conversation's end may change that
            self._ring.append(state)
            return
        room -= self._begin(state, room)
        if state.more and not state.claiming and not self._waits_for_its_pace(state):
            self._claim(state, room)
        if room == 0 and self._pool.room(state.name, limit):  # it has had its share of this turn
            self._get_ready(state)

    def _begin(self, state: SiteState, room: int) -> int:
        """Begin up to so many messages of the stock; return how many."""
        begun = 0
        while begun < room and state.stock and not self._waits_for_its_pace(state):
            state.pace.take(self._reactor.time())
            claim = state.stock.take()
            self._pool.enter(state.name)
            if state.health == "probing":
                state.probe = claim.id
            begun += 1
            self._deliver(claim)
        return begun

    def _waits_for_its_pace(self, state: SiteState) -> bool:
        """Whether the site's next message has to wait for its time; then it comes back by itself."""
        if state.rate is None:
            return False
        now = self._reactor.time()
        when = state.pace.when(now)
        if when > now and state.pace_timer is None:
            state.pace_timer = self._reactor.call_later(when - now, self._has_a_token, state)
        return when > now

    def _has_a_token(self, state: SiteState) -> None:
        state.pace_timer = None
        self._get_ready(state)

    def _claim(self, state: SiteState, room: int) -> None:
        """Ask the store for what there is room for, and for what will soon be wanted."""
        ahead, stock = self._ahead(state), len(state.stock)
        number = room + ahead - stock
        if number <= 0 or (room == 0 and stock > ahead // 2):
            return
        state.claiming, state.more = True, False
        state.ended, state.asked_at = 0, self._reactor.time()
        d: Deferred[Any] = self._store.claim(state.name, number)
        d.add_callbacks(self._claimed, self._not_claimed, state, number)
        d.add_errback(self._report)

    def _ahead(self, state: SiteState) -> int:
        """How many messages the site will probably take in the next moment, as it has in the last."""
        if state.health != "up" or state.rate is not None:
            return 0
        if sum(other.stock.octets for other in self._sites.values() if other.stock) > _MOST_OCTETS:
            return 0
        elapsed = max(self._reactor.time() - state.asked_at, 0.001)
        return min(_MOST_AHEAD, int(state.ended / elapsed * _AHEAD))

    def _claimed(self, claims: list[Claim], state: SiteState, asked: int) -> None:
        state.claiming = False
        if len(claims) == asked:
            state.more = True
        taken = self._welcome(claims, state)
        self._give_back(claims[len(taken) :], state)
        state.stock.add(taken)
        if not state.more:
            self._lookout.look_ahead(state)
        self._get_ready(state)
        self._want_turn()

    def _welcome(self, claims: list[Claim], state: SiteState) -> list[Claim]:
        """Those of the claims that may still be tried: the end, or a site's rest, may have come before them."""
        if self._stopped or state.health == "resting":
            return []
        return claims[:1] if state.health == "probing" else claims

    def _give_back(self, claims: list[Claim], state: SiteState) -> None:
        """The claims came too late."""
        if claims:
            state.more = True
            self._store.unclaim(claims).add_callback(self._given_back).add_errback(self._report)

    def _given_back(self, sites: list[str]) -> None:
        """They wait at these sites now: at others than before where the routes have changed."""
        for site in sites:
            self._mark(self._site(site))

    def _not_claimed(self, failure: Failure, state: SiteState, _: int) -> None:
        """The store could not say: ask again in a while."""
        state.claiming = False
        self._lookout.look_later(state)
        failure.trap(StoreFailed)

    # rests

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
