"""What a conversation costs in memory, on the real reactor: ten thousand of them shall fit into a small machine."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest

from config.settings import Limits, Relay, Route
from deferred.reactor import Reactor
from service.delivery.attempt import Attempt
from service.delivery.connector import Connector
from service.delivery.content import StoredContent
from service.delivery.pool import Pool
from service.delivery.routes import Router
from service.delivery.tls import Contexts
from service.journal import Journal
from service.message.job import Job
from service.queue.store import Claim, Submission
from tests.delivery.room import CONTENT, SETTINGS
from tests.fakes.store import MemoryStore

NUMBER, BEFORE = 300, 20
MOST = 8 * 1024


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server that accepts and never says anything: the system does that for it."""
    with socket.create_server(("127.0.0.1", 0), backlog=2 * NUMBER) as listening:
        yield listening


def test_a_conversation_in_its_handshake_takes_less_than_8_kib(listening: socket.socket) -> None:
    """With all that is ours: the attempt, the chain of its Deferreds, the protocol's state, stream and timers. Not the
    claim and its content, which the queue has made."""
    relay = Relay("smtp", "127.0.0.1", listening.getsockname()[1])
    settings = msgspec.structs.replace(
        SETTINGS,
        routes=(Route(domains=("*",), relay=(relay,), tls="none"),),
        limits=Limits(connections=2 * NUMBER, connections_per_site=2 * NUMBER),
    )
    site = Router(settings.routes).site_for("bob@b.example")
    journal = Journal()
    with Reactor() as reactor:
        store = MemoryStore(reactor)
        job = Job(sender="ann@a.example", recipients=("bob@b.example",), content=CONTENT)
        store.accept([Submission(job=job, name="hello", sites=(site.name,))] * (BEFORE + NUMBER))
        claims: list[Claim] = []
        store.claim(site.name, BEFORE + NUMBER).add_callback(claims.extend)
        connector = Connector(
            reactor,
            journal,
            Pool(settings.limits, settings.timeouts.idle),
            Contexts(lambda context, file: None),
            settings,
            freed=lambda site: None,
            introduced=lambda site: None,
            more=lambda connection: None,
        )
        connected = iter(range(1, BEFORE + NUMBER + 1))

        def count(event: str, facts: dict[str, object]) -> None:
            if next(connected) in (BEFORE, BEFORE + NUMBER):
                reactor.stop()

        journal.add(count)

        def begin(claims: list[Claim]) -> list[Attempt]:
            attempts = [Attempt(each, site, StoredContent(store, each), connector, journal, 0.0) for each in claims]
            for attempt in attempts:
                attempt.start().add_errback(lambda failure: None)
            reactor.run()
            return attempts

        attempts = begin(claims[:BEFORE])  # what is made once is made
        gc.collect()
        tracemalloc.start()
        try:
            attempts += begin(claims[BEFORE:])
            gc.collect()
            each = tracemalloc.get_traced_memory()[0] / NUMBER
        finally:
            tracemalloc.stop()
        assert connector.connections == len(attempts) == BEFORE + NUMBER
        assert each < MOST, f"{each:.0f} octets for each conversation"
        for attempt in attempts:
            attempt.abort()
