"""Names are looked up once for all who wait."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from config.settings import Relay, Route
from deferred.defer import Deferred
from deferred.interfaces import Address
from deferred.testing import MemoryReactor
from service.delivery.pace import START
from service.delivery.resolver import Resolver
from service.message.outcome import State
from tests.delivery.room import PORT, Room, many, sites


class Names:
    """A name server that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[list[Address]]]] = []

    def __call__(self, host: str, port: int) -> Deferred[list[Address]]:
        d: Deferred[list[Address]] = Deferred()
        self.asked.append((host, d))
        return d


@pytest.fixture
def names(reactor: MemoryReactor, monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(reactor, "getaddrinfo", names)
    return names


def ask(resolver: Resolver, host: str = "mx.test", patience: float = 30.0) -> list[Any]:
    """What the look-up brings: addresses, or the failure's value."""
    brought: list[Any] = []
    d: Deferred[Any] = resolver.resolve(host, PORT, patience)
    d.add_callbacks(brought.append, lambda failure: brought.append(failure.value))
    return brought


def test_a_name_is_looked_up_once_for_all_who_wait(reactor: MemoryReactor, names: Names) -> None:
    """And for those who come within the next 30 seconds."""
    resolver = Resolver(reactor)
    first, second = ask(resolver), ask(resolver)
    assert [host for host, _ in names.asked] == ["mx.test"]
    names.asked[0][1].callback([("192.0.2.1", PORT)])
    reactor.advance(29.0)
    third = ask(resolver)
    assert first == second == third == [[("192.0.2.1", PORT)]]
    reactor.advance(2.0)
    ask(resolver)
    assert len(names.asked) == 2


def test_a_failure_is_kept_for_a_moment(reactor: MemoryReactor, names: Names) -> None:
    """Five seconds."""
    resolver = Resolver(reactor)
    first = ask(resolver)
    names.asked[0][1].errback(socket.gaierror(socket.EAI_AGAIN, "try again"))
    reactor.advance(4.0)
    second = ask(resolver)
    assert first == second
    assert isinstance(second[0], socket.gaierror)
    reactor.advance(2.0)
    ask(resolver)
    assert len(names.asked) == 2


def test_who_runs_out_of_patience_leaves_the_look_up_to_the_others(reactor: MemoryReactor, names: Names) -> None:
    """A wait's end is nobody else's."""
    resolver = Resolver(reactor)
    hasty, patient = ask(resolver, patience=1.0), ask(resolver)
    reactor.advance(2.0)
    assert isinstance(hasty[0], TimeoutError)
    assert patient == []
    names.asked[0][1].callback([("192.0.2.1", PORT)])
    assert patient == [[("192.0.2.1", PORT)]]
    assert (len(names.asked), reactor.pending) == (1, 0)


def test_a_bug_in_a_look_up_is_not_kept(reactor: MemoryReactor, names: Names) -> None:
    """It goes to those who waited."""
    resolver = Resolver(reactor)
    first = ask(resolver)
    names.asked[0][1].errback(ZeroDivisionError())
    assert isinstance(first[0], ZeroDivisionError)
    ask(resolver)
    assert len(names.asked) == 2


def test_what_was_known_can_be_forgotten(reactor: MemoryReactor, names: Names) -> None:
    """New settings begin anew."""
    resolver = Resolver(reactor)
    ask(resolver)
    names.asked[0][1].callback([("192.0.2.1", PORT)])
    resolver.forget()
    ask(resolver)
    assert len(names.asked) == 2


def test_many_messages_for_a_slow_name_take_one_look_up(room: Room, names: Names) -> None:
    """So that a few threads do for all."""
    relay = Relay("smtp", "slow.test", PORT)
    room.configured(routes=(Route(domains=("*",), relay=(relay,), tls="none"),))
    many(room, 15)
    room.advance(1.0)
    assert (room.delivery.in_flight, len(names.asked)) == (START, 1)
    names.asked[0][1].callback([("192.0.2.1", PORT)])
    room.advance(1.0)
    assert {room.outcome(f"user{count}@b.example", f"j{count + 1}").state for count in range(15)} == {State.DELIVERED}


@pytest.fixture
def resolver(reactor: MemoryReactor, names: Names) -> Resolver:
    """One that has been told an address, a while ago: it is too old by now."""
    resolver = Resolver(reactor)
    ask(resolver)
    names.asked[0][1].callback([("192.0.2.1", PORT)])
    reactor.advance(40.0)
    return resolver


def test_an_old_answer_serves_while_a_new_one_is_long_in_coming(
    reactor: MemoryReactor, names: Names, resolver: Resolver
) -> None:
    """A second is waited for the new one; the old one is good for an hour more, and at once as long as it fails to
    come."""
    slow = ask(resolver)
    assert slow == []
    reactor.advance(1.1)
    assert slow == ask(resolver) == [[("192.0.2.1", PORT)]]
    names.asked[1][1].callback([("192.0.2.2", PORT)])
    assert ask(resolver) == [[("192.0.2.2", PORT)]]
    reactor.advance(3700.0)
    old = ask(resolver)
    reactor.advance(29.0)
    assert old == []
    reactor.advance(1.1)
    assert isinstance(old[0], TimeoutError)


def test_a_new_answer_in_time_counts(reactor: MemoryReactor, names: Names, resolver: Resolver) -> None:
    """Also where it is that the name is no more."""
    late = ask(resolver)
    names.asked[1][1].errback(socket.gaierror(socket.EAI_NONAME, "no such name"))
    assert isinstance(late[0], socket.gaierror)
    assert late == ask(resolver)
    assert reactor.pending == 0


def test_an_old_answer_serves_while_the_name_server_is_in_trouble(
    reactor: MemoryReactor, names: Names, resolver: Resolver
) -> None:
    """Which says nothing of the name."""
    brought = ask(resolver)
    names.asked[1][1].errback(socket.gaierror(socket.EAI_AGAIN, "try again"))
    assert brought == [[("192.0.2.1", PORT)]]
    reactor.advance(6.0)
    ask(resolver)
    assert len(names.asked) == 3


def test_names_that_are_slow_do_not_cost_other_sites_anything(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few threads look names up (here four): a dozen names whose servers are dead have all of them."""
    servers = sites(room, 13)
    look_up = room.reactor.getaddrinfo
    waiting: list[tuple[str, Deferred[list[Address]]]] = []
    at_work: list[str] = []

    def getaddrinfo(host: str, port: int) -> Deferred[list[Address]]:
        d: Deferred[list[Address]] = Deferred()
        waiting.append((host, d))
        begin()
        return d

    def begin() -> None:
        while waiting and len(at_work) < 4:
            host, d = waiting.pop(0)
            at_work.append(host)
            room.reactor.call_later(0.01 if host == "s0.test" else 20.0, end, host, d)

    def end(host: str, d: Deferred[list[Address]]) -> None:
        at_work.remove(host)
        begin()
        if host == "s0.test":
            look_up(host, PORT).add_callback(d.callback)
        else:
            d.errback(socket.gaierror(socket.EAI_AGAIN, "no answer"))

    monkeypatch.setattr(room.reactor, "getaddrinfo", getaddrinfo)
    room.deliver("bob@s0.example")
    for number in range(1, 13):
        many(room, 100, f"s{number}.example")
    for minute in range(30):
        room.deliver(f"u{minute}@s0.example", seconds=60.0)
    assert len(servers[0].messages) == 31
    assert [facts for facts in room.told("site_resting") if facts["site"] == "s0.test:25"] == []
    arrived = [message.at - room.began for message in servers[0].messages]
    assert max(at % 60.0 for at in arrived) < 3.0
