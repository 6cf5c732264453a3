"""No site's trouble is another's: turns, shares of the connections, and what healthy mail pays for others' backlogs."""

from __future__ import annotations

import random

import msgspec
import pytest

from config.settings import Relay, Route
from deferred.testing import MemoryReactor
from service.message.outcome import State
from tests.delivery.room import PORT, Room, many, sites
from tests.fakes.smtp_server import SILENT, Action, SMTPServer, Then


def in_flight(room: Room) -> dict[str, int]:
    """Conversations under way, by site."""
    return {view.name.partition(".")[0]: view.in_flight for view in room.delivery.sites()}


# concurrency at one site


def test_a_site_that_copes_gets_more_at_once_up_to_its_ceiling(room: Room) -> None:
    """It begins with five; each round of as many as there may be allows one more. The server never sees more."""
    room = room.configured(limits={"connections_per_site": 12})
    room.server.latency = 0.2
    many(room, 500)
    room.advance(0.5)
    assert (room.server.open, room.delivery.sites()[0].limit) == (5, 5)
    seen = [room.server.open]
    for _ in range(100):
        room.advance(0.2)
        seen.append(room.server.open)
    assert seen == sorted(seen)
    assert (max(seen), room.server.most_open) == (12, 12)


def test_a_routes_own_ceiling_counts(room: Room) -> None:
    """Three at once, whatever is allowed elsewhere; more after a reload that says so."""
    (server,) = sites(room, 1)
    routes = room.settings.routes
    room.configured(routes=tuple(msgspec.structs.replace(route, connections=3) for route in routes))
    server.latency = 0.2
    many(room, 300, "s0.example")
    room.advance(10.0)
    assert server.most_open == 3
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=routes))
    room.advance(20.0)
    assert 3 < server.most_open <= 20


def test_a_lower_ceiling_holds_for_what_begins_after_it(room: Room) -> None:
    """Conversations that are under way at a reload end; then there are no more than are allowed now."""
    room.server.latency = 0.2
    many(room, 1000)
    room.advance(10.0)
    assert room.server.open > 10
    limits = msgspec.structs.replace(room.settings.limits, connections_per_site=2)
    room.delivery.configure(msgspec.structs.replace(room.settings, limits=limits))
    room.advance(2.0)
    room.server.most_open = room.server.open
    room.advance(20.0)
    assert room.server.most_open == 2


@pytest.mark.parametrize(
    ("word", "trouble"),
    [("mail", "450 4.7.0 too many connections"), ("confirm", "421 4.3.2 going down"), ("confirm", "what?")],
)
def test_trouble_halves_what_a_site_gets_at_once(room: Room, word: str, trouble: str) -> None:
    """Whether the host fails or asks for less. What was under way goes on to its end, and gives its slot back then."""
    room.server.latency = 0.2
    many(room, 1500)
    room.advance(12.0)
    before = room.delivery.sites()[0].limit
    assert before > 10
    room.server.on(word, trouble)
    for _ in range(40):
        room.advance(0.05)
        limit = room.delivery.sites()[0].limit
        if limit < before:
            break
    assert limit == before // 2
    room.advance(1.2)
    for _ in range(20):
        assert room.delivery.sites()[0].in_flight <= room.delivery.sites()[0].limit < before
        room.advance(0.05)
    room.advance(100.0)
    assert len(room.server.messages) == 1500


def test_who_asks_for_less_is_rid_of_connections_that_nobody_uses(room: Room) -> None:
    """Those that are kept are left: they may be what the server has too many of."""
    room.server.latency = 0.1
    many(room, 5)
    room.advance(1.0)
    assert (room.server.open, room.delivery.in_flight) == (5, 0)
    room.server.on("mail", "450 4.7.0 too many connections")
    room.accept()
    room.advance(0.8)
    assert room.server.open == 0


def test_a_server_that_allows_so_many_connections_is_met_with_hardly_more(room: Room) -> None:
    """It hangs up on the ninth. That costs no message an attempt; and as the number is found anew from below, again and
    again, few connections are in vain, and the site does not stand still."""
    room.server.latency = 0.05
    allow(room.server, 8)
    many(room, 3000)
    room.advance(0.05 * 3 * 3000 / 4)
    assert len(room.server.messages) == 3000
    assert {settlement.attempts for settlement in room.settled} == {1, 0}
    assert 0 < sum(settlement.due is not None for settlement in room.settled) < 150


def allow(server: SMTPServer, most: int) -> None:
    """Let the server take so many connections and no more."""
    usual = server.action

    def action(*words: str) -> Action:
        return Then("421 4.7.0 too many connections") if words == ("connect",) and server.open > most else usual(*words)

    server.action = action  # type: ignore[method-assign]


# shares of all connections


def crowd(room: Room, slow: int, quick: int, **limits: int) -> list[SMTPServer]:
    """Sites that take ten seconds for each step, with endless work, and others that are quick, with none yet."""
    servers = sites(room, slow + quick)
    room.configured(limits=limits)
    for server in servers[:slow]:
        server.latency = 10.0
    for server in servers[slow:]:
        server.latency = 0.02
    for number in range(slow):
        many(room, 200, f"s{number}.example")
    return servers[slow:]


def test_sites_share_the_connections_evenly(room: Room) -> None:
    """Ten sites with more to do than there are connections get as many each, whoever came first."""
    servers = sites(room, 10)
    room.configured(limits={"connections": 50})
    for number, server in enumerate(servers):
        server.latency = 2.0
        many(room, 600, f"s{number}.example")
        room.advance(5.0)
    before = [len(server.messages) for server in servers]
    room.advance(120.0)
    taken = [len(server.messages) - had for server, had in zip(servers, before, strict=True)]
    assert min(taken) > 0.8 * max(taken)
    assert 40 <= sum(in_flight(room).values()) <= 50


def test_a_site_alone_gets_nearly_all(room: Room) -> None:
    """There is nobody else to leave anything to but one who may come."""
    (server,) = sites(room, 1)
    room.configured(limits={"connections": 20, "connections_per_site": 20})
    server.latency = 0.5
    many(room, 700, "s0.example")
    room.advance(60.0)
    assert server.most_open == 18


def test_who_comes_later_finds_room_at_once(room: Room) -> None:
    """Slow sites have taken all that they can: a quick one has its conversations all the same, not just one."""
    (quick,) = crowd(room, 30, 1, connections=100, connections_per_site=50)
    room.advance(100.0)
    assert sum(in_flight(room).values()) > 80
    many(room, 50, "s30.example")
    room.advance(1.5)
    assert len(quick.messages) == 50
    assert quick.most_open >= 2


def test_a_conversation_that_could_go_on_ends_for_others(room: Room) -> None:
    """A busy site has a next message at hand for each of its connections; those who wait get their turn first."""
    first, second = sites(room, 2)
    room.configured(limits={"connections": 10, "connections_per_site": 10})
    first.latency = second.latency = 0.05
    many(room, 4000, "s0.example")
    room.advance(10.0)
    assert in_flight(room)["s0"] == 9
    many(room, 1000, "s1.example")
    room.advance(2.0)
    assert in_flight(room)["s1"] >= 4


def test_nobody_is_forgotten(room: Room) -> None:
    """A hundred sites, ten connections, a few messages each: all are served, in the time that it takes."""
    servers = sites(room, 100)
    room.configured(limits={"connections": 10, "connections_per_site": 5})
    for number, server in enumerate(servers):
        server.latency = 0.1
        many(room, 5, f"s{number}.example")
    room.advance(60.0)
    assert [len(server.messages) for server in servers] == [5] * 100
    room.advance(20.0)
    assert (room.delivery.in_flight, room.delivery.connections) == (0, 0)


def test_no_more_is_claimed_for_many_sites_than_there_are_connections(room: Room) -> None:
    """What waits for a slot waits in the store, where an order or something more urgent can reach it."""
    servers = sites(room, 100)
    room.configured(limits={"connections": 10})
    room.store.commit_time = 0.05
    for number, server in enumerate(servers):
        server.latency = 10.0
        many(room, 5, f"s{number}.example")
    most = 0
    for _ in range(100):
        room.advance(0.1)
        most = max(most, sum(delivery.claimed for delivery in room.store.deliveries.values()))
    assert most == 10


def test_slots_that_resting_sites_leave_go_to_others(room: Room) -> None:
    """Sites that were refused a slot and have gone to rest meanwhile do not stand in the way."""
    servers = sites(room, 20)
    room.configured(limits={"connections": 10, "connections_per_site": 10})
    for server in servers[:10]:
        server.always("mail", SILENT)
    for number in range(20):
        many(room, 20, f"s{number}.example")
    room.advance(30.0)
    for server in servers[:10]:
        server.reset_all()
    room.advance(5.0)
    assert [len(server.messages) for server in servers[10:]] == [20] * 10


# backlogs


def healthy_latencies(troubles: bool) -> list[float]:
    """How long messages for five healthy sites take, 50 a second in all, alone or beside the worst of neighbours: much
    mail for a tarpit, 50 dead sites and 20 slow ones, with more for each than will ever be sent."""
    luck = random.Random(4)
    reactor = MemoryReactor()
    room = Room(reactor, SMTPServer(reactor))
    servers, routes = {}, []
    kinds = {"healthy": 5, "tarpit": 1, "dead": 50, "slow": 20}
    for kind, number in kinds.items():
        for count in range(number):
            address = f"10.{len(routes)}.0.1"
            reactor.names[f"{kind}{count}.test"] = [address]
            servers[f"{kind}{count}"] = SMTPServer(reactor)
            if kind != "dead":
                servers[f"{kind}{count}"].listen(address, PORT)
            elif count % 2:
                reactor.black_holes.add(address)
            relay = Relay("smtp", f"{kind}{count}.test", PORT)
            routes.append(Route(domains=(f"{kind}{count}.example",), relay=(relay,), tls="none"))
    room.configured(routes=tuple(routes))
    room.store.commit_time = 0.004
    for name, server in servers.items():
        server.latency = 5.0 if name.startswith("slow") else 0.02
    servers["tarpit0"].always("confirm", SILENT)
    if troubles:
        many(room, 20_000, "tarpit0.example")
        for kind, number in (("dead", 40), ("slow", 1000)):
            for count in range(kinds[kind]):
                many(room, number, f"{kind}{count}.example")
    room.advance(120.0)
    accepted: dict[str, float] = {}
    for _ in range(1500):
        address = f"user{len(accepted)}@healthy{luck.randrange(5)}.example"
        accepted[address] = reactor.time()
        room.accept(address)
        room.advance(luck.expovariate(50.0))
    room.advance(5.0)
    taken = {message.recipients[0]: message.at for count in range(5) for message in servers[f"healthy{count}"].messages}
    assert room.told("unhandled_error") == []
    return sorted(taken[address] - at for address, at in accepted.items())


def test_healthy_mail_does_not_notice_others_backlogs() -> None:
    """Its 99th percentile is what it is without them, or hardly more."""
    alone, beside = healthy_latencies(False), healthy_latencies(True)
    assert len(alone) == len(beside) == 1500
    assert beside[1485] <= 1.2 * alone[1485] + 0.02
    assert beside[-1] <= 2 * alone[-1] + 0.1


def test_after_an_outage_the_herd_is_spread(room: Room) -> None:
    """An hour without a network, and a hundred thousand messages due at fifty sites: no limit is ever exceeded, and
    the sites are not tried all at one time."""
    servers = sites(room, 50)
    room.configured(limits={"connections": 60, "connections_per_site": 10}, retry={"jitter": 0.2})
    for server in servers:
        server.latency = 0.05
        server.close()
    for number in range(50):
        many(room, 2000, f"s{number}.example")
    room.advance(3600.0)
    for number, server in enumerate(servers):
        server.connections = server.most_open = 0
        server.listen(f"198.51.100.{number + 1}", PORT)
    first: dict[str, float] = {}
    most, began = 0, room.now
    for _ in range(6000):
        room.advance(0.1)
        most = max(most, sum(server.open for server in servers))
        for server in servers:
            if server.connections == 1:
                first.setdefault(str(id(server)), room.now - began)
    assert most <= 60
    assert max(server.most_open for server in servers) <= 10
    assert {len(server.messages) for server in servers} == {2000}
    assert max(first.values()) - min(first.values()) > 60.0
    assert all(
        outcome.state is State.DELIVERED for job in room.store.jobs.values() for outcome in job.outcomes.values()
    )
