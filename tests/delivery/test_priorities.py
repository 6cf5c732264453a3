"""Urgent mail overtakes what waits, also what was claimed already; and nobody waits for ever."""

from __future__ import annotations

from tests.delivery.room import Room, many


def in_order(room: Room) -> list[str]:
    """The kinds of messages, by their priorities, in the order in which attempts began."""
    return [facts["recipients"][0].partition(".")[0] for facts in room.told("attempt_started")]


def drop(room: Room, number: int, priority: str) -> None:
    for count in range(number):
        room.accept(f"{priority}.{count}@b.example", priority=priority)


def test_urgent_mail_goes_next(room: Room) -> None:
    """On the next connection that is free, before all that waits."""
    room.configured(limits={"connections_per_site": 1})
    room.server.extensions = ()  # no message goes ahead of the answer to the one before
    room.server.latency = 0.5
    drop(room, 50, "bulk")
    drop(room, 50, "normal")
    room.advance(20.0)
    before = len(in_order(room))
    drop(room, 3, "high")
    room.advance(20.0)
    assert in_order(room)[before : before + 3] == ["high"] * 3


def test_bulk_delays_by_one_messages_time_at_most(room: Room) -> None:
    """Every connection is at work on bulk, and with some the next is sent already: nothing else goes before."""
    room.store.commit_time = 0.005
    room.server.latency = 0.1
    drop(room, 2000, "bulk")
    room.advance(10.0)
    connections = room.delivery.sites()[0].in_flight
    for _ in range(20):
        room.advance(0.33)
        before = len(in_order(room))
        drop(room, 1, "high")
        room.advance(1.0)
        assert in_order(room)[before:].index("high") <= connections


def test_urgent_mail_overtakes_what_is_claimed(room: Room) -> None:
    """A quick site has messages in stock; a hundredth of a second later it is as if they were not there."""
    room.store.commit_time = 0.005
    room.server.latency = 0.005
    drop(room, 3000, "bulk")
    room.advance(1.0)
    for number in range(10):
        at = room.now
        room.accept(f"high.{number}@b.example", priority="high")
        room.advance(0.05)
        assert f"high.{number}@b.example" in {message.recipients[0] for message in room.server.messages}, at


def test_bulk_is_not_starved_by_urgent_mail(room: Room) -> None:
    """A stream of it that takes all that the site can: one message in ten is another."""
    room.configured(limits={"connections_per_site": 2})
    room.server.latency = 0.1
    drop(room, 10, "bulk")
    drop(room, 10, "normal")
    for _ in range(60):
        drop(room, 10, "high")
        room.advance(0.5)
    kinds = in_order(room)
    assert 10 < len(kinds) < 600
    assert kinds.count("bulk") + kinds.count("normal") >= min(20, len(kinds) // 10 - 2)
    assert abs(kinds.count("bulk") - kinds.count("normal")) <= 2


def test_urgent_mail_is_not_starved_by_a_mountain(room: Room) -> None:
    """Nine in ten are the most urgent, as long as there are any."""
    room.configured(limits={"connections_per_site": 2})
    room.server.latency = 0.1
    drop(room, 1000, "bulk")
    drop(room, 100, "high")
    room.advance(60.0)
    kinds = in_order(room)
    last = max(number for number, kind in enumerate(kinds) if kind == "high")
    assert kinds.count("high") == 100
    assert last < 100 / 0.9 + 10


def test_equals_go_in_their_order(room: Room) -> None:
    """First accepted, first tried."""
    room.configured(limits={"connections_per_site": 1})
    room.server.latency = 0.02
    many(room, 100)
    room.advance(60.0)
    assert [message.recipients[0] for message in room.server.messages] == [f"user{n}@b.example" for n in range(100)]


def test_a_priority_counts_at_its_own_site(room: Room) -> None:
    """Sites are served in turn, whatever they have to say."""
    room.configured(limits={"connections": 2})
    room.server.latency = 0.1
    drop(room, 100, "high")
    room.accept("bulk.1@b.example", priority="bulk")
    room.advance(60.0)
    assert len(room.server.messages) == 101
