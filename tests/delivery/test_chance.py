"""Days of bad luck, drawn from a seed: whatever servers do, the accounts balance."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from config.settings import Relay, Route
from deferred.testing import MemoryReactor
from service.message.outcome import State
from tests.delivery.room import PORT, Room
from tests.fakes.smtp_server import CLOSE, RESET, SILENT, STALL, Action, Drip, Late, SMTPServer, Then

WORDS = ["connect", "ehlo", "mail", "rcpt", "data", "body", "chunk", "confirm", "rset", "quit"]
TROUBLES: list[Action] = [
    CLOSE,
    RESET,
    SILENT,
    STALL,
    Then("421 4.3.2 no"),
    "450 4.2.0 later",
    "550 5.1.1 never",
    "what",
    "250 2.0.0 ok\r\n250 2.0.0 ok",
    Drip("250 2.0.0 ok", 1.0),
    Late("250 2.0.0 ok", 30.0),
]
SITES, MESSAGES = 4, 60
SEEDS = int(os.environ.get("SEEDS", "25"))


class Watch:
    """Looks at the connections at every event. Servers cannot tell: they hear of an end of ours only later."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.most = self.most_busy = 0

    def __call__(self, event: str, facts: object) -> None:
        self.most = max(self.most, self.room.delivery.connections)
        self.most_busy = max([self.most_busy, *(view.in_flight for view in self.room.delivery.sites())])


def unlucky(room: Room, luck: random.Random) -> list[SMTPServer]:
    """Sites of two relays each, whose servers have trouble now and then."""
    servers = []
    routes = []
    for site in range(SITES):
        relays = []
        for number in range(2):
            address = f"198.51.100.{10 * site + number + 1}"
            name = f"mx{number}.s{site}.test"
            room.reactor.names[name] = [address]
            room.reactor.latencies[address] = luck.choice([0.0, 0.01, 0.3])
            server = SMTPServer(room.reactor).listen(address, PORT)
            if luck.random() < 0.3:
                server.extensions = ()
            elif luck.random() < 0.5:
                server.extensions += ("CHUNKING",)
            servers.append(server)
            relays.append(Relay("smtp", name, PORT))
        routes.append(Route(domains=(f"s{site}.example",), relay=tuple(relays), tls="none"))
    limits = {"connections": 9, "connections_per_site": 3, "messages_per_connection": luck.choice([1, 3, 100])}
    room.configured(routes=tuple(routes), limits=limits, timeouts={"idle": luck.choice([0.0, 5.0, 400.0])})
    return servers


def jobs(room: Room, luck: random.Random) -> None:
    for number in range(MESSAGES):
        site = luck.randrange(SITES)
        recipients = [f"u{number}.{count}@s{site}.example" for count in range(luck.choice([1, 1, 1, 3]))]
        content = b"Subject: %d\r\n\r\n" % number + b"." * 70 + b"\r\n" * luck.choice([1, 1, 100_000])
        room.accept(*recipients, content=content, expires=luck.choice([None, 600.0]))


def trouble(room: Room, servers: list[SMTPServer], luck: random.Random) -> None:
    """An hour in which anything may happen, and the hours until all is well again."""
    for _ in range(120):
        server = luck.choice(servers)
        server.on(luck.choice(WORDS), luck.choice(TROUBLES))
        if luck.random() < 0.05:
            server.reset_all()
        if luck.random() < 0.1:
            room.store.healthy = False
            room.advance(luck.uniform(0.0, 5.0))
            room.store.recover()
        room.advance(luck.uniform(0.0, 60.0))
    for server in servers:
        for word in WORDS:
            server.usually(word)
    room.advance(86_400.0)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_accounts_balance(seed: int) -> None:
    """Every recipient reaches an end; who was delivered got it once, save where a confirmation was lost or given late;
    no limit is exceeded; nothing is left behind."""
    luck = random.Random(seed)
    room = Room(MemoryReactor(), SMTPServer(MemoryReactor()))
    watch = Watch(room)
    room.journal.add(watch)
    servers = unlucky(room, luck)
    jobs(room, luck)
    trouble(room, servers, luck)
    assert room.told("unhandled_error") == []
    outcomes = [
        (address, entry.outcomes[address].state)
        for entry in room.store.jobs.values()
        for address in entry.submission.job.recipients
    ]
    assert {state for _, state in outcomes} <= {State.DELIVERED, State.FAILED}
    copies = Counter(each for server in servers for message in server.messages for each in message.recipients)
    doubts = Counter(facts["recipient"] for facts in room.told("in_doubt"))
    for address, state in outcomes:
        assert copies[address] >= (state is State.DELIVERED)
        assert copies[address] <= (state is State.DELIVERED) + doubts[address], address
    assert (watch.most <= 9, watch.most_busy <= 3) == (True, True)
    assert (room.delivery.in_flight, room.delivery.connections) == (0, 0)
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.advance(10.0)
    assert (ends, room.reactor.pending) == ([None], 0)
