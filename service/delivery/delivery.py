"""The delivery room: claims come in from the queue, go out to their sites, and come back settled.

Each outcome of an attempt has its own road to the store, and what goes wrong on a road never sends anything again.
Nothing is told of an outcome, in the log or elsewhere, before the store has made it durable.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from config.settings import Settings
from deferred.defer import CancelledError, Deferred, succeed
from deferred.failure import Failure
from deferred.interfaces import Reactor
from service.delivery import policy
from service.delivery.attempt import TAKES_LEAVE, Attempt, GivenUp
from service.delivery.books import Books
from service.delivery.connection import Connection
from service.delivery.connector import Connector
from service.delivery.content import ContentGone, ContentUnreadable, StoredContent
from service.delivery.drain import Drain
from service.delivery.policy import Plan
from service.delivery.pool import Pool
from service.delivery.receipt import Receipt
from service.delivery.reports import Compose, Reports
from service.delivery.routes import UNROUTED, Router, Site
from service.delivery.scheduler import Scheduler
from service.delivery.setbacks import Setbacks
from service.delivery.sites import Allowance, SiteView, UnderWay
from service.delivery.tls import Contexts, Trust
from service.journal import Journal
from service.message.outcome import Outcome
from service.queue.store import Claim, Settlement, Store, StoreFailed
from service.smtp.errors import ConfirmationLost, HostFailure

_BATCH: Final = 100
"""Messages given up, or warned of, at once."""


def _identity(site: Site | None) -> Site | None:
    """The site but for what it may be given, which says nothing of how it does."""
    return site and msgspec.structs.replace(site, connections=None, rate=None)


class Delivery:
    """Gets what waits in the store to where it goes."""

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        journal: Journal,
        draw: random.Random,
        settings: Settings,
        *,
        trust: Trust,
        compose: Compose,
    ) -> None:
        """`trust` puts certificates into a TLS context, `compose` makes bounces and warnings. Raises `OSError` where a
        route's `ca_file` cannot be read."""
        self._reactor = reactor
        self._store = store
        self._journal = journal
        self._trust = trust
        self._settings = settings
        self._router, contexts = self._tables(settings)
        self._sites = self._router.sites()
        self._pool: Pool[Connection] = Pool(settings.limits, settings.timeouts.idle)
        self._scheduler = Scheduler(
            reactor,
            store,
            journal,
            self._pool,
            draw,
            settings.retry,
            self._deliver,
            known=lambda site: site in self._sites,
            careful=self._asks_for_a_password,
            allowance=self._allowance,
            belongs=self._belongs,
        )
        self._books = Books(reactor, store, journal, Reports(store, journal, compose), self._scheduler.expect)
        self._connector = Connector(
            reactor,
            journal,
            self._pool,
            contexts,
            settings,
            freed=self._scheduler.freed,
            introduced=self._scheduler.introduced,
            more=self._send_ahead,
        )
        self._at_work: dict[Attempt, None] = {}  # in the order in which they began
        self._heirs: dict[Connection, Attempt] = {}  # of a conversation: whose message is next
        self._setbacks = Setbacks()
        self._rerouting = 0  # passes through the queue that are under way
        self._drain: Drain | None = None

    def _asks_for_a_password(self, site: str) -> bool:
        return site in self._sites and self._sites[site].credentials is not None

    def _allowance(self, name: str) -> Allowance:
        site, limits = self._sites.get(name, UNROUTED), self._settings.limits
        return Allowance(
            limits.connections_per_site if site.connections is None else site.connections,
            limits.rate_per_site if site.rate is None and site.relays else site.rate,
        )

    def _belongs(self, claim: Claim) -> bool:
        """Whether a message is still to go where it waited. While the queue is gone through for new routes, those that
        wait at a site need not be its own any more."""
        return not self._rerouting or all(self._router.site_of(each) == claim.site for each in claim.recipients)

    def _tables(self, settings: Settings) -> tuple[Router, Contexts]:
        """Everything that may be wrong with routes: built before anything old is given up."""
        router, contexts = Router(settings.routes), Contexts(self._trust)
        for site in router.sites().values():
            if site.relays and site.tls != "none":
                contexts.get(site.tls, site.ca_file)
        return router, contexts

    # what the daemon asks for

    def start(self) -> None:
        """Begin: messages that the routes now send elsewhere go there, then everything due is tried. Raises
        `StoreFailed`."""
        self._scheduler.resume()
        self._go_by_the_routes()

    def _go_by_the_routes(self) -> None:
        self._reroute(self._router.fingerprint())

    def _reroute(self, fingerprint: str) -> None:
        self._rerouting += 1
        d: Deferred[Any] = self._store.reroute(self._router.site_of, fingerprint)
        d.add_both(self._rerouted)

    def _rerouted(self, result: int | Failure) -> None:
        self._rerouting -= 1
        if isinstance(result, Failure):
            self._report(result, "reroute")
        self._scheduler.wake()

    def _move_strays(self) -> None:
        """Something waits at a site that is no more: it was accepted, or claimed, while the routes changed. They have
        been gone through, as the store may know, and shall be once more; hence a fingerprint that is nobody's."""
        if not self._rerouting and self._drain is None:
            self._reroute(f"{self._router.fingerprint()} {self._now()}")

    def wake(self, site: str | None = None, *, end_rest: bool = False) -> None:
        """New work was accepted for a site, or (None) the queue was changed; `end_rest` lets resting sites be tried."""
        if end_rest:
            self._scheduler.end_rest(site)
        self._scheduler.wake(site)

    def configure(self, settings: Settings) -> None:
        """Go by these settings in everything begun from now on. Raises `OSError` and changes nothing where a route's
        `ca_file` cannot be read."""
        self._router, contexts = self._tables(settings)
        before, self._sites = self._sites, self._router.sites()
        self._settings = settings
        self._scheduler.retry = settings.retry
        self._scheduler.start_over(
            {name for name, site in self._sites.items() if _identity(before.get(name)) != _identity(site)}
        )
        self._pool.configure(settings.limits, settings.timeouts.idle)
        self._connector.configure(contexts, settings)
        self._go_by_the_routes()

    def site_of(self, address: str) -> str:
        """The name of the site that a checked address is routed to."""
        return self._router.site_of(address)

    def sites(self) -> list[SiteView]:
        """The sites that there has been work for, and how each does."""
        shift, oldest = self._now() - self._reactor.time(), dict[str, UnderWay]()
        for attempt in self._at_work:
            since, site = max(attempt.began, attempt.since) + shift, attempt.claim.site
            if not attempt.ended and (site not in oldest or since < oldest[site].since):
                oldest[site] = UnderWay(id=attempt.claim.id, since=since, step=attempt.step)
        return [msgspec.structs.replace(view, oldest=oldest.get(view.name)) for view in self._scheduler.views()]

    @property
    def in_flight(self) -> int:
        """Messages claimed and not settled yet."""
        return len(self._at_work)

    @property
    def connections(self) -> int:
        """Open connections, at work or kept."""
        return self._connector.connections

    # a claim's way

    def _deliver(self, claim: Claim) -> None:
        site = self._sites.get(claim.site)
        if site is None:
            self._scheduler.leave(claim)
            back: Deferred[Any] = self._give_back(claim)
            back.add_callback(lambda _: self._move_strays())
            back.add_errback(self._report, "unclaim")
            return
        attempt = self._attempt(claim, site)
        self._see_through(attempt, attempt.start)

    def _send_ahead(self, connection: Connection) -> None:
        """A connection has sent a message and waits for the answer: let the next one's envelope go with it. It takes no
        slot of its own: it gets that of the message before."""
        site = self._sites.get(connection.site)
        if site is None:
            return
        claim = self._scheduler.next(site.name)
        if claim is not None:
            attempt = self._heirs[connection] = self._attempt(claim, site)
            self._see_through(attempt, lambda: attempt.send_ahead(connection))

    def _attempt(self, claim: Claim, site: Site) -> Attempt:
        content = StoredContent(self._store, claim)
        return Attempt(claim, site, content, self._connector, self._journal, self._reactor.time())

    def _see_through(self, attempt: Attempt, start: Callable[[], Deferred[Receipt]]) -> None:
        """Make the attempt, and write down what came of it."""
        claim = attempt.claim
        self._at_work[attempt] = None
        self._journal.tell(
            "attempt_started",
            id=claim.id,
            site=claim.site,
            attempt=claim.attempts + 1,
            recipients=list(claim.recipients),
        )
        d: Deferred[Any] = start()
        d.add_callbacks(self._settle, self._postpone, attempt)
        d.add_errback(self._keep_and_report, attempt)
        d.add_both(self._done, attempt)

    def _leave(self, attempt: Attempt) -> None:
        """The conversation is over, and its slot free, also while the outcome is still on its way to the disk; or it
        goes on with the message behind, to which the slot goes."""
        connection = attempt.connection
        heir = self._heirs.pop(connection, None) if connection is not None else None
        if heir is attempt:
            return  # it has died with the one before
        since = max(attempt.began, attempt.since)
        self._scheduler.leave(attempt.claim, heir.claim if heir is not None else None, since=since)
        if heir is not None:
            heir.follow(self._reactor.time())

    def _settle(self, receipt: Receipt, attempt: Attempt) -> Deferred[None]:
        """A host has answered for every recipient."""
        claim, outcomes = attempt.claim, receipt.outcomes
        slower = next(filter(policy.asks_for_less, outcomes), None)
        if slower is None:
            self._scheduler.served(claim.site, attempt.began)
        self._leave(attempt)
        retry, spread, at = self._settings.retry, self._scheduler.spread(), self._now()
        if slower is None:
            self._setbacks.over(claim)
            return self._write(attempt, policy.after_receipt(claim, outcomes, retry, at, spread))
        rest = self._set_back(claim, self._slow_down(claim.site, slower, attempt.began))
        return self._write(attempt, policy.after_slowing_down(claim, outcomes, retry, at, rest))

    def _slow_down(self, site: str, said: Outcome, began: float) -> float:
        """The server has asked for less: that is between it and us, and no fault of the message. Returns the seconds
        for which the message is not offered again."""
        self._connector.close_idle(site)
        if self._scheduler.slow_down(site, began) or self._drain is not None:
            return self._settings.retry.site_rest.first
        error = HostFailure(said.phase, said.text, code=said.code, enhanced=said.enhanced, host=said.host)
        return self._scheduler.rest(site, error, began)

    def _postpone(self, failure: Failure, attempt: Attempt) -> Deferred[None]:
        """No host has answered for all: whose fault it was decides what becomes of the message."""
        self._leave(attempt)
        claim = attempt.claim
        if isinstance(failure.value, GivenUp):
            return self._write(attempt, policy.after_giving_up(claim, failure.value.outcomes, self._now()))
        if failure.check(CancelledError, StoreFailed):
            attempt.decide()
            return self._give_back(claim)
        if failure.check(ContentGone):
            return succeed(None)  # the job was removed: the store has settled the matter
        if failure.check(ContentUnreadable):
            why, now, spread = str(failure.value), self._now(), self._scheduler.spread()
            return self._write(attempt, policy.after_unreadable(claim, why, self._settings.retry, now, spread))
        failure.trap(HostFailure)  # a bug of ours goes on as a bug
        error, at, retry, spread = failure.value, self._now(), self._settings.retry, self._scheduler.spread()
        assert isinstance(error, HostFailure)
        rest = 0.0 if self._drain is not None else self._scheduler.rest(claim.site, error, attempt.began)
        if error.code == TAKES_LEAVE:  # of too many connections, perhaps
            self._connector.close_idle(claim.site)
        if isinstance(error, ConfirmationLost):
            return self._write(attempt, policy.after_lost_confirmation(claim, error, retry, at, rest, spread))
        if self._drain is None and policy.is_overdue(claim, retry, at) and self._scheduler.is_dead(claim.site):
            self._tell_of_others(claim.site, error)
        return self._write(attempt, policy.after_host_failure(claim, error, retry, at, self._set_back(claim, rest)))

    def _set_back(self, claim: Claim, rest: float) -> float:
        """The site's rest is over in so many seconds; when is it the message's time again?"""
        return rest if self._drain is not None else self._setbacks.again(claim, rest, self._settings.retry.site_rest)

    def _tell_of_others(self, site: str, error: HostFailure) -> None:
        """A message has expired, or is late, at a site that is dead: so are others, perhaps thousands, and at one probe
        for each rest their senders would learn of it much too late. What was said to this one is said of them too."""
        said = HostFailure(error.phase, error.text, code=error.code, enhanced=error.enhanced, host=error.host)
        d: Deferred[Any] = self._store.claim(site, _BATCH)
        d.add_callback(self._give_up_or_warn, site, said)
        d.add_errback(self._report, "expiry")

    def _give_up_or_warn(self, claims: list[Claim], site: str, said: HostFailure) -> None:
        at, retry, rest = self._now(), self._settings.retry, self._scheduler.rest_left(site)
        over = [claim for claim in claims if policy.is_overdue(claim, retry, at)]
        if len(over) < len(claims):
            waiting = [claim for claim in claims if not policy.is_overdue(claim, retry, at)]
            self._store.unclaim(waiting).add_callback(self._given_back).add_errback(self._report, "unclaim")
        elif len(claims) == _BATCH:
            self._tell_of_others(site, said)
        for claim in over:
            done: Deferred[Any] = self._books.write(claim, policy.after_host_failure(claim, said, retry, at, rest))
            done.add_errback(self._report, "expiry")

    def _write(self, attempt: Attempt, plan: Plan) -> Deferred[None]:
        return self._books.write(attempt.claim, plan, attempt.decide)

    def _give_back(self, claim: Claim) -> Deferred[None]:
        """Nothing was tried, or nothing that counts: the claim is due as it was."""
        d: Deferred[Any] = self._store.unclaim([claim])
        return d.add_callback(self._given_back)

    def _given_back(self, sites: Iterable[str]) -> None:
        for site in sites:  # not at once: what made us give it back may still be so
            self._scheduler.expect(site, self._now() + 1.0)

    def _keep_and_report(self, failure: Failure, attempt: Attempt) -> Deferred[None] | None:
        """A bug of ours. Where nothing was decided yet, the message is held: to try again might fail in the same way
        for ever, or send twice what has been sent."""
        self._report(failure, "delivery")
        if attempt.decided:
            return None
        claim, at = attempt.claim, self._now()
        held = Settlement(claim=claim, outcomes=(), at=at, attempts=claim.attempts + 1, due=at, hold=True, doubt=True)
        kept: Deferred[Any] = self._books.settle(held)
        return kept.add_callbacks(lambda _: None, self._report, errback_args=("delivery",))

    def _done(self, _: None, attempt: Attempt) -> None:
        del self._at_work[attempt]
        attempt.part()
        if self._drain is not None:
            self._drain.look()

    def _report(self, failure: Failure, where: str) -> None:
        if failure.check(StoreFailed):  # no bug: closed, and it tells of itself; the next start finds what was ours
            return
        self._journal.tell("unhandled_error", where=where, error=failure.get_traceback())

    def _now(self) -> float:
        return self._store.now()

    # the end

    def drain(self, timeout: float) -> Deferred[None]:
        """Fire once nothing is under way, after `timeout` seconds at the latest; see `Drain`.

        Nothing new is begun. Where an attempt is given up no host is blamed, and who has no answer is due as before.
        """
        self._scheduler.stop()
        self._connector.closing = True
        self._connector.close_idle()
        self._drain = Drain(self._reactor, self._at_work)
        return self._drain.begin(timeout)
