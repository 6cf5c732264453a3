"""The delivery room without its house: a reactor in memory, a store in dictionaries, servers that follow a script."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from config.settings import Limits, Relay, Retry, Route, Settings, SiteRest, Timeouts
from deferred.testing import MemoryReactor
from service.delivery.delivery import Delivery
from service.delivery.reports import Kind
from service.journal import Journal
from service.message.job import Job
from service.message.outcome import Outcome
from service.queue.store import Claim, Settlement, Submission
from tests.fakes.smtp_server import SMTPServer
from tests.fakes.store import MemoryStore

HOST, PORT = "192.0.2.1", 25
SITE = "mx.test:25"
CONTENT = b"Subject: hello\r\n\r\nHello.\r\n"

BOTH_DIALECTS = pytest.mark.parametrize("dialect", ["DATA", "BDAT"], indirect=True)
"""Content goes by DATA, or in chunks: what is specified holds for both."""

SETTINGS = Settings(
    hostname="client.test",
    routes=(Route(domains=("*",), relay=(Relay("smtp", "mx.test", PORT),), tls="none"),),
    retry=Retry(delays=(60.0, 300.0), jitter=0.0, max_age=86_400.0, site_rest=SiteRest(first=1.0, longest=300.0)),
    limits=Limits(),
    timeouts=Timeouts(),
)


@dataclass
class Room:
    """A delivery and all that it is handed in."""

    reactor: MemoryReactor
    server: SMTPServer
    settings: Settings = SETTINGS
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    composed: list[tuple[Kind, Claim, tuple[Outcome, ...], bytes]] = field(default_factory=list)
    compose: Callable[..., Submission | None] | None = None
    trust: Callable[..., None] = lambda context, file: None

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.reactor)
        self.journal = Journal(self._listen)
        self.began = self.reactor.time()
        self.delivery = self._delivery()

    def _delivery(self) -> Delivery:
        return Delivery(
            self.reactor,
            self.store,
            self.journal,
            random.Random(7),
            self.settings,
            trust=lambda context, file: self.trust(context, file),
            compose=self._compose,
        )

    def _listen(self, event: str, facts: dict[str, Any]) -> None:
        self.events.append((self.now, event, facts))

    def _compose(self, kind: Kind, claim: Claim, outcomes: tuple[Outcome, ...], head: bytes) -> Submission | None:
        self.composed.append((kind, claim, outcomes, head))
        return self.compose(kind, claim, outcomes, head) if self.compose else None

    @property
    def now(self) -> float:
        """Seconds since the room was made."""
        return self.reactor.time() - self.began

    def configured(self, **changes: Any) -> Room:
        """The same room under other settings: `timeouts={"idle": 1.0}`, `routes=(…)`."""
        settings = self.settings
        for name, change in changes.items():
            old = getattr(settings, name)
            new = msgspec.structs.replace(old, **change) if isinstance(change, dict) else change
            settings = msgspec.structs.replace(settings, **{name: new})
        self.settings = settings
        self.delivery = self._delivery()
        return self

    def accept(self, *recipients: str, sender: str = "ann@a.example", content: bytes = CONTENT, **job: Any) -> str:
        """Take a job into the store, and tell the delivery; returns its id."""
        recipients = recipients or ("bob@b.example",)
        made = Job(sender=sender, recipients=recipients, content=content, **job)
        sites = tuple(self.delivery.site_of(address) for address in recipients)
        self.store.accept([Submission(job=made, name="hello", sites=sites)])
        for site in set(sites):
            self.delivery.wake(site)
        return f"j{len(self.store.jobs)}"

    def deliver(self, *recipients: str, seconds: float = 0.5, **job: Any) -> str:
        """Take a job, and give it a moment."""
        id = self.accept(*recipients, **job)
        self.advance(seconds)
        return id

    def advance(self, seconds: float) -> None:
        """Let time pass, and all happen that is to happen in it."""
        self.reactor.advance(seconds)

    def outcome(self, address: str = "bob@b.example", id: str = "j1") -> Outcome:
        """The last outcome of a recipient."""
        return self.store.jobs[id].outcomes[address]

    def told(self, event: str) -> list[dict[str, Any]]:
        """The facts of each such event."""
        return [facts for _, name, facts in self.events if name == event]

    def when(self, event: str) -> list[float]:
        """When each such event was told, in seconds since the room was made."""
        return [at for at, name, _ in self.events if name == event]

    @property
    def settled(self) -> list[Settlement]:
        """All settlements, oldest first."""
        return self.store.settled


def many(room: Room, number: int, domain: str = "b.example") -> None:
    """Take so many jobs, each for a recipient of its own."""
    for count in range(number):
        room.accept(f"user{count}@{domain}")


def sites(room: Room, number: int) -> list[SMTPServer]:
    """So many sites, each with a server and a domain: s0.example, s1.example, …"""
    servers = []
    routes = []
    for count in range(number):
        address = f"198.51.100.{count + 1}"
        room.reactor.names[f"s{count}.test"] = [address]
        servers.append(SMTPServer(room.reactor).listen(address, PORT))
        relay = Relay("smtp", f"s{count}.test", PORT)
        routes.append(Route(domains=(f"s{count}.example",), relay=(relay,), tls="none"))
    room.configured(routes=tuple(routes))
    return servers
