"""How each site does, as conversations with it tell: whether it rests, and how much it may be given.

Who is given what, and when, is the matter of its `Turns`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

from config.settings import Retry
from deferred.failure import Failure
from deferred.interfaces import Reactor
from service.delivery.pool import Pool
from service.delivery.sites import Allowance, Sites, SiteState, SiteView
from service.delivery.turns import Turns
from service.journal import Journal
from service.queue.store import Claim, Store, StoreFailed
from service.smtp.errors import HostFailure


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
        known: Callable[[str], bool],
        careful: Callable[[str], bool],
        allowance: Callable[[str], Allowance],
        belongs: Callable[[Claim], bool],
    ) -> None:
        """`known(site)` tells whether the routes have it; `careful` and `allowance` are those of `Sites`, `deliver` and
        `belongs` those of `Turns`."""
        self.retry = retry
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._pool = pool
        self._draw = draw
        self._known = known
        self._sites = Sites(careful, allowance)
        self._turns = Turns(reactor, store, pool, self._sites, deliver, belongs, self._report)

    def resume(self) -> None:
        """Go on with the rests that a former process noted, at sites that are still known, and at the pace that it kept
        to. Raises `StoreFailed`."""
        now = self._reactor.time()
        shift = self._store.now() - now
        longest = self.retry.site_rest.longest * (1 + self.retry.jitter)
        for rest in self._store.notes.rests():
            if not self._known(rest.site):
                self._store.notes.forget_rest(rest.site).add_errback(self._report)
                continue
            state = self._sites[rest.site]
            state.resume(rest, shift, now, longest)
            state.rest_timer = self._reactor.call_later(self.rest_left(rest.site), self._wake_up, state)
        for pace in self._store.notes.paces():
            if not self._known(pace.site):
                self._store.notes.forget_pace(pace.site).add_errback(self._report)
                continue
            state = self._sites[pace.site]
            state.pace.resume(pace.next - 1 / pace.rate - shift, now)
            state.paced = True
            if pace.rate != state.rate:
                self._turns.note_pace(state)

    # what others ask and tell

    def wake(self, site: str | None = None) -> None:
        """There may be due work for a site, or (None) for any; from then on all are looked at again and again."""
        if site is not None:
            self._turns.mark(self._sites[site])
        else:
            self._turns.distrust()
            self._turns.lookout.look_round()

    def expect(self, site: str, due: float | None) -> None:
        """A message of the site is due then, by the store's time; None: now, perhaps."""
        if due is None:
            self.wake(site)
        else:
            self._turns.lookout.expect(self._sites[site], due)

    def end_rest(self, site: str | None = None) -> None:
        """Let the site, or (None) every site, be tried now."""
        for state in [self._sites[site]] if site is not None else list(self._sites.values()):
            self._wake_up(state)

    def next(self, site: str) -> Claim | None:
        """The site's next message, for a conversation that goes on (`Turns.next`)."""
        return self._turns.next(self._sites[site])

    def leave(self, claim: Claim, heir: Claim | None = None, *, since: float | None = None) -> None:
        """The conversation for this claim, which it has had `since` then, has ended: there is room for another, or its
        slot goes to the heir."""
        self._pool.leave(claim.site)
        if heir is not None:
            self._pool.enter(heir.site)
        state = self._sites[claim.site]
        if since is not None:
            now = self._reactor.time()
            state.ended(now, now - since)
        if state.probe == claim.id:
            state.probe = None
        self.freed(claim.site)

    def freed(self, site: str) -> None:
        """There may be room for another conversation with this site, and with others too."""
        state = self._sites[site]
        if state.health == "up" and self._pool.unused_at(site) and self._sites.careful(site):
            state.health = "probing"  # the next login is the first for a while: the password may have changed
        self._turns.freed(state)

    def start_over(self, changed: Collection[str]) -> None:
        """The settings have changed, passwords perhaps: be careful again. The rest of a site that has `changed` itself
        is over, as what was wrong with it may be mended; nor does it matter any more how the old one does. That of one
        that is not known any more concerns nobody."""
        self._turns.distrust()
        for state in self._sites.values():
            state.allow(self._sites.allowance(state.name))
            if state.paced or state.rate is not None:  # what went before a rate that is new counts for it
                self._turns.note_pace(state)
            if state.noted and not self._known(state.name):
                state.noted = False
                self._store.notes.forget_rest(state.name).add_errback(self._report)
            if state.name in changed:
                self._cut_rest_short(state)
                state.renewed(self._reactor.time())
                self._turns.mark(state)
            if state.health == "up" and self._sites.careful(state.name):
                state.health = "probing"

    def introduced(self, site: str) -> None:
        """A host of the site has taken us in."""
        state = self._sites[site]
        if state.introduced():
            self._turns.mark(state)

    def served(self, site: str, began: float) -> None:
        """A host of the site served an attempt that began at `began`."""
        state = self._sites[site]
        if began >= state.since:
            state.concurrency.succeeded(began, self._pool.busy_at(site))
        back = state.served(began)
        if state.noted and not state.failures:
            state.noted = False
            self._store.notes.forget_rest(site).add_errback(self._report)
        if back:
            self._cancel_rest(state)
            self._journal.tell("site_back", site=site)
            self._turns.mark(state)

    def rest(self, site: str, error: HostFailure, began: float) -> float:
        """No host of the site served an attempt that began at `began`: let it rest. Returns the seconds that are left
        of its rest."""
        state = self._sites[site]
        now = self._reactor.time()
        if began >= state.since:
            state.concurrency.failed(began, now)
        length = state.rest(error, began, now, self.retry, self.spread())
        if length is not None:
            state.rest_timer = self._reactor.call_later(length, self._wake_up, state)
            state.noted = self._known(site)
            if state.noted:
                self._note_rest(state)
            self._turns.empty(state)
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
        concurrency = self._sites[site].concurrency
        least = concurrency.limit == 1
        return not (concurrency.failed(began, self._reactor.time()) and least)

    def rest_left(self, site: str) -> float:
        """Seconds until the site's rest is over."""
        return max(0.0, self._sites[site].rest_ends - self._reactor.time())

    def is_dead(self, site: str) -> bool:
        """Whether the site has failed, and not served, for as long as the longest rest: this is no passing trouble."""
        since = self._sites[site].failing_since
        return since is not None and self._reactor.time() - since >= self.retry.site_rest.longest

    def spread(self) -> float:
        """A number drawn from [-1, 1], for jitter."""
        return self._draw.uniform(-1.0, 1.0)

    def stop(self) -> None:
        """Claim nothing any more."""
        self._turns.stop()

    def views(self) -> list[SiteView]:
        """The sites that are known of, by name."""
        now = self._reactor.time()
        shift = self._store.now() - now
        return [
            SiteView(
                name=name,
                health=state.health,
                resting_until=state.rest_ends + shift if state.health == "resting" else None,
                in_flight=self._pool.busy_at(name),
                limit=state.concurrency.limit,
                rate=state.rate,
                next_at=None if state.rate is None else state.pace.when(now) + shift,
                last_error=state.last_error,
            )
            for name, state in sorted(self._sites.items())
        ]

    # rests

    def _note_rest(self, state: SiteState) -> None:
        self._store.notes.note_rest(state.as_rest(self._store.now() - self._reactor.time())).add_errback(self._report)

    def _wake_up(self, state: SiteState) -> None:
        """The rest is over."""
        self._cut_rest_short(state)
        state.end_rest()
        self._turns.mark(state)

    def _cut_rest_short(self, state: SiteState) -> None:
        """The rest ends here; where it was to be longer, commands, and a daemon that starts now, are to know."""
        self._cancel_rest(state)
        if state.health == "resting" and state.rest_ends > (now := self._reactor.time()):
            state.rest_ends = now
            if state.noted:
                self._note_rest(state)

    def _cancel_rest(self, state: SiteState) -> None:
        if state.rest_timer is not None:
            state.rest_timer.cancel()
            state.rest_timer = None

    def _report(self, failure: Failure) -> None:
        if failure.check(StoreFailed):  # the store tells of itself; what it did not take back the next start finds
            return
        self._journal.tell("unhandled_error", where="scheduler", error=failure.get_traceback())
