"""Hears what the daemon tells, sees what the servers see, and holds one against the other at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from config.settings import Retry, Settings
from deferred.testing import World
from deferred.testing.network import SimulatedStream
from service.delivery.routes import Router
from tests.simulation.books import Books
from tests.simulation.servers import MailServer
from tests.simulation.settings import Plan, ceiling

_COMMIT = 0.2  # seconds that one takes, at most
_STILL_HELD = 3600.0
"""Seconds for which a slot may be held that was given under an older limit: an attempt goes from host to host."""


class Listener:
    """A listener of the journal, and of each step of each server."""

    def __init__(self, world: World, books: Books, plan: Plan) -> None:
        self.world = world
        self.books = books
        self.plan = plan
        self.deaths = 0.0
        self.crash_soon: Callable[[], object] = lambda: None
        self.stopping: Callable[[], bool] = lambda: False
        """Whether the daemon is stopping while its disk fails."""
        self._random = world.draw("listener")
        self._resting: dict[str, float] = {}
        self._limits: list[tuple[float, Settings]] = []
        self._router = Router(())
        self._given: dict[str, float] = {}
        self._began: dict[tuple[str, str], float] = {}
        self._dues: dict[tuple[str, str], float] = {}
        self._rerouted = 0.0
        self._least_age = float("inf")

    def begin(self) -> None:
        """A new process knows nothing but what its predecessor has noted: rests, and when by its rate a site may have
        its next message; that is noted with the claim, and the message begun when the claim is durable."""
        self._given = {site: at - _COMMIT for site, at in self._given.items() if self._rate(site) is not None}
        self._resting.clear()
        self._limits.clear()

    def resume(self, left: Mapping[str, float], retry: Retry) -> None:
        """It has read how many seconds are left of its predecessor's rests: those that can be so long are kept."""
        longest, now = retry.site_rest.longest * (1 + retry.jitter), self.world.time()
        self._resting = {site: now + seconds for site, seconds in left.items() if seconds <= longest}

    def orders_given(self) -> None:
        """An order may end a site's rest, and make anything due."""
        self._resting.clear()
        self._dues.clear()

    def limits_changed(self, settings: Settings) -> None:
        """These limits hold from now on, beside the former for a while. Routes change, too: what waited for a site
        may be due at another."""
        now = self.world.time()
        self._limits = [one for one in self._limits if one[0] > now] + [(float("inf"), settings)]
        self._router = Router(settings.routes)
        self._dues.clear()
        self._rerouted = now + _STILL_HELD
        self._least_age = min(self._least_age, settings.retry.max_age)
        self._limits = [(min(until, now + _STILL_HELD), old) for until, old in self._limits[:-1]] + self._limits[-1:]

    # the journal

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        books, now = self.books, self.world.time()
        if event == "step":
            return
        books.trace(now, event, facts)
        match event:
            case "job_accepted":
                books.tokens[facts["id"]] = facts["name"]
            case "deferred":
                self._note_delay(facts)
            case "delivered" | "failed":
                if event == "failed":
                    self._check_age(facts)
                books.lives[-1].told[books.tokens.get(facts["id"], "?"), facts["recipient"]] = event
            case "in_doubt":
                token = books.tokens.get(facts["id"], "?")
                books.doubts.append((now, token, facts["recipient"]))
            case "possible_duplicate":
                books.possible.append((now, books.tokens.get(facts["id"], "?"), facts["recipient"]))
            case "unhandled_error":
                if not (self.stopping() and "StoreFailed" in str(facts)):  # nothing can be written, and it is said
                    books.violated(now, f"unhandled error: {facts}")
            case "job_rejected":
                books.violated(now, f"a job was rejected: {facts}")
            case "site_resting":
                self._resting[facts["site"]] = now + facts["delay"]
            case "site_back":
                self._resting.pop(facts["site"], None)
            case "attempt_started":
                self._note_lateness(facts)
                self._check_due(facts)
                self._check_rate(facts["site"])
                self._check_route(facts)
                until = self._resting.get(facts["site"], 0.0)
                if now < until - 0.001:
                    books.violated(now, f"{facts['site']} was tried {until - now:.1f} s before the end of its rest")
            case _:
                pass

    def _note_lateness(self, facts: dict[str, Any]) -> None:
        mail = self.books.mail.get(self.books.tokens.get(facts["id"], "?"))
        if mail is not None and mail.not_before is not None and facts["attempt"] == 1:
            self.books.lateness.append(self.books.lives[-1].machine.wall_time() - mail.not_before)

    def _check_rate(self, site: str) -> None:
        """No message is begun before its time, whatever became of the one before; a rate that is new may be met by one
        that comes early by what is kept for late timers."""
        now, before = self.world.time(), self._given.get(site, float("-inf"))
        self._given[site] = now
        rate = self._rate(site)
        if rate is not None and now - before < 1 / rate - 0.051:
            self.books.violated(now, f"{site} was given a message {now - before:.3f} s after another, at {rate}/s")

    def _rate(self, site: str) -> float | None:
        sites = self._router.sites()
        if site not in sites or not self._limits:
            return None
        return self._limits[-1][1].limits.rate_per_site if sites[site].rate is None else sites[site].rate

    def _check_route(self, facts: dict[str, Any]) -> None:
        """A message begins where it is to go now, wherever it was to go when it was accepted, or claimed."""
        astray = {address for address in facts["recipients"] if self._router.site_of(address) != facts["site"]}
        if astray:
            self.books.violated(self.world.time(), f"{astray} went to {facts['site']}, by routes that are no more")

    # time

    def _note_delay(self, facts: dict[str, Any]) -> None:
        """The message is to be left alone for so long, from some time after the attempt began."""
        attempt = facts["id"], facts["site"]
        if facts["delay"] is not None and attempt in self._began and self.world.time() > self._rerouted:
            self._dues[attempt] = self._began[attempt] + facts["delay"]

    def _check_due(self, facts: dict[str, Any]) -> None:
        """No attempt comes before the end of its delay, whatever became of the wall clock."""
        attempt, now = (facts["id"], facts["site"]), self.world.time()
        early = self._dues.pop(attempt, now) - now
        self._began[attempt] = now
        if early > 0.001:
            self.books.violated(now, f"{facts['id']} was tried {early:.1f} s too early at {facts['site']}")

    def _check_age(self, facts: dict[str, Any]) -> None:
        """Nothing expires before it has been here for long enough, whatever became of the wall clock."""
        mail = self.books.mail.get(self.books.tokens.get(facts["id"], "?"))
        if mail is None or "delivery time expired" not in facts["text"]:
            return
        least = self._least_age if mail.expires is None else mail.expires
        early = mail.dropped + least - self.world.time()
        if early > 0.001:
            self.books.violated(self.world.time(), f"{mail.token} expired {early:.1f} s too early")

    # the servers

    def watch_step(self, server: MailServer, step: str, conversation: Any) -> None:
        """A step at a server: a good moment to count connections, and for the daemon to die."""
        if step == "ehlo":
            self._count(conversation.client)
        elif step == "confirm":
            if self.deaths and self._random.random() < self.deaths:
                self.crash_soon()
            limits = [settings.limits for _, settings in self._limits]
            if limits and conversation.messages > max(each.messages_per_connection for each in limits):
                self.books.violated(self.world.time(), f"{conversation.messages} messages on one connection")

    def _count(self, client: SimulatedStream) -> None:
        now = self.world.time()
        self._limits = [one for one in self._limits if one[0] >= now]
        if not self._limits or not client.machine.alive:
            return
        hosts = [
            stream.get_extra_info("peername")[0]
            for stream in client.machine.streams
            if stream is stream.link.client and stream._protocol is not None
        ]
        most = max(settings.limits.connections for _, settings in self._limits)
        if len(hosts) > most:
            self.books.violated(now, f"{len(hosts)} connections, where {most} are allowed")
        site = self.plan.site_of(client.get_extra_info("peername")[0])
        here = sum(self.plan.site_of(host) == site for host in hosts)
        most = max(ceiling(settings, self.plan.sites[site]) for _, settings in self._limits)
        if here > most:
            self.books.violated(now, f"{here} connections to site {site}, where {most} are allowed")
