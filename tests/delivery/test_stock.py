"""Messages claimed ahead: at hand when a conversation ends, and nobody's loss when things change meanwhile."""

from __future__ import annotations

import msgspec
import pytest

from config.settings import Relay, Route
from service.message.outcome import State
from tests.delivery.room import PORT, Room, many
from tests.fakes.smtp_server import PROCEED, SILENT, Late, SMTPServer


def in_stock(room: Room) -> int:
    """Messages that are claimed and not begun."""
    return sum(delivery.claimed for delivery in room.store.deliveries.values()) - room.delivery.in_flight


def busy(room: Room, number: int = 1000) -> Room:
    """A site that is worked on quickly, with a commit's time between a message's end and a claim, and more to do."""
    room.server.latency = 0.02
    room.store.commit_time = 0.005
    many(room, number)
    room.advance(0.5)
    while in_stock(room) < 4:
        room.advance(0.001)
    assert len(room.server.messages) < number - 100
    return room


@pytest.mark.parametrize(("seconds", "commit"), [(0.005, 0.005), (0.005, 0.02), (0.05, 0.05)])
def test_the_next_message_is_at_hand_when_a_conversation_ends(room: Room, seconds: float, commit: float) -> None:
    """Claims cost the disk's time, and conversations do not wait for it."""
    room = room.configured(limits={"connections_per_site": 5})
    room.server.latency = seconds
    many(room, 6000)
    room.advance(1.0)
    before = len(room.server.messages)
    room.advance(1.5)
    at_once = len(room.server.messages) - before
    room.store.commit_time = commit
    room.advance(1.0)
    before = len(room.server.messages)
    room.advance(1.5)
    assert len(room.server.messages) - before > 0.9 * at_once


def test_no_more_is_in_stock_than_is_begun_in_a_moment(room: Room) -> None:
    """Of a slow site hardly one; of a quick one no more than it has conversations, or what 20 ms bring."""
    room = room.configured(limits={"connections_per_site": 5})
    room.store.commit_time = 0.005
    room.server.latency = 2.0
    many(room, 30)
    assert most_in_stock(room, 30.0) <= 1
    room.advance(60.0)
    room.server.latency = 0.005
    many(room, 1000)
    assert 2 <= most_in_stock(room, 1.0) <= 15


def most_in_stock(room: Room, seconds: float) -> int:
    most = 0
    for _ in range(int(seconds / 0.01)):
        room.advance(0.01)
        most = max(most, in_stock(room))
    return most


def test_a_stock_that_is_not_used_up_is_given_back(room: Room) -> None:
    """The server falls silent: seconds later nothing is claimed but what is on its way."""
    busy(room).server.always("mail", SILENT)
    room.advance(5.0)
    assert (in_stock(room), room.delivery.in_flight > 0) == (0, True)


def test_a_rest_gives_the_stock_back(room: Room) -> None:
    """What was not begun is as it was: due, untried, and nothing is told of it."""
    busy(room)
    room.server.close()
    room.advance(0.05)
    assert (in_stock(room), room.delivery.sites()[0].health) == (0, "resting")
    assert room.store.unclaimed
    assert {claim.id for claim in room.store.unclaimed}.isdisjoint(facts["id"] for facts in room.told("deferred"))
    room.server.listen("192.0.2.1", PORT)
    room.advance(60.0)
    assert len({message.recipients for message in room.server.messages}) == 1000


def test_the_end_gives_the_stock_back(room: Room) -> None:
    """Nothing counts as perhaps sent at the next start that was never begun; no timer is left behind."""
    busy(room)
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.advance(10.0)
    assert (ends, in_stock(room), room.reactor.pending) == ([None], 0, 0)


def test_what_comes_from_the_store_after_the_end_goes_back(room: Room) -> None:
    """A claim was on its way when the end came."""
    room.store.commit_time = 1.0
    many(room, 3)
    room.advance(0.5)
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.advance(10.0)
    assert (ends, in_stock(room), len(room.store.unclaimed), room.reactor.pending) == ([None], 0, 3, 0)


def rerouted(room: Room) -> tuple[SMTPServer, Room]:
    """Two relays: from now on half of the domains goes to the other, which then has another way to go."""
    room.reactor.names["other.test"] = ["192.0.2.7"]
    other = SMTPServer(room.reactor).listen("192.0.2.7", PORT)
    first, second = (Relay("smtp", name, PORT) for name in ("mx.test", "other.test"))
    routes = (
        Route(domains=("b.example",), relay=(second,), tls="none"),
        Route(domains=("*",), relay=(first,), tls="none"),
    )
    room.delivery.configure(msgspec.structs.replace(room.settings, routes=routes))
    return other, room


def test_new_routes_reach_what_is_in_stock(room: Room) -> None:
    """The old relay is still somebody's, yet it gets no message more that is now the other's, but for what it is being
    given."""
    busy(room)
    under_way = room.delivery.in_flight
    before = len(room.server.messages)
    other, _ = rerouted(room)
    room.advance(60.0)
    assert len(room.server.messages) - before <= under_way
    assert len(other.messages) + len(room.server.messages) == 1000


def test_new_routes_reach_what_is_being_claimed(room: Room) -> None:
    """The store gave it out by the old routes, and tells of it when they are gone."""
    room.store.commit_time = 1.0
    many(room, 5)
    room.advance(0.5)
    other, _ = rerouted(room)
    room.advance(60.0)
    assert (len(room.server.messages), len(other.messages)) == (0, 5)


def test_new_routes_reach_what_is_claimed_while_the_queue_is_gone_through(room: Room) -> None:
    """A long queue takes its time; meanwhile not all that waits at the old site is still its own. What is, goes on."""
    room.store.reroute_time = 10.0
    room.server.always("connect", Late("220 mx.test", 1.0))
    many(room, 50)
    many(room, 50, "c.example")
    other, _ = rerouted(room)
    room.advance(9.0)
    assert {message.recipients[0].partition("@")[2] for message in room.server.messages} == {"c.example"}
    room.advance(60.0)
    assert (len(room.server.messages), len(other.messages)) == (50, 50)


@pytest.mark.parametrize("change", ["hold", "remove"])
def test_an_order_reaches_what_is_in_stock(room: Room, change: str) -> None:
    """Held or removed is what is not on its way: no conversation begins with it any more."""
    busy(room)
    before = len(room.told("attempt_started"))
    room.store.change("hold" if change == "hold" else "remove", None, None)
    room.delivery.wake()
    room.advance(60.0)
    assert len(room.told("attempt_started")) == before
    assert in_stock(room) == 0
    if change == "hold":
        room.store.change("release", None, None)
        room.delivery.wake()
        room.advance(60.0)
        assert len(room.server.messages) == 1000


def test_nothing_goes_out_of_the_stock_while_the_store_cannot_commit(room: Room) -> None:
    """What is begun then could not be written down."""
    busy(room)
    room.store.healthy = False
    begun = len(room.told("attempt_started"))
    room.advance(60.0)
    assert len(room.told("attempt_started")) == begun
    room.store.recover()
    room.advance(60.0)
    assert len(room.server.messages) == 1000
    assert room.outcome("user999@b.example", "j1000").state is State.DELIVERED


@pytest.mark.parametrize("worn", [2, 100])
def test_a_message_and_the_one_behind_it_may_end_with_one_read(room: Room, worn: int) -> None:
    """The second is refused in the same breath as the first is taken: the connection is given back once, and its slot,
    the only one, is there for the next."""
    room.configured(limits={"connections": 1, "messages_per_connection": worn})
    room.server.latency = 0.02
    room.server.on("mail", *[PROCEED, PROCEED, "450 4.2.0 not this one"] * 20)
    many(room, 60)
    room.advance(200.0)
    assert len(room.server.messages) == 60
    assert room.server.most_open == 1
    room.advance(20.0)
    assert (room.delivery.connections, room.delivery.sites()[0].in_flight) == (0, 0)
