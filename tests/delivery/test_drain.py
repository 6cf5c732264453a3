"""The end: nothing new is begun, what is under way ends well or in time."""

from __future__ import annotations

import pytest

from config.settings import Relay, Route
from service.message.outcome import State
from tests.delivery.room import PORT, Room, many
from tests.fakes.smtp_server import CLOSE, SILENT, STALL, Late, SMTPServer


def drained(room: Room, timeout: float = 25.0) -> list[float]:
    """When the drain was over, in seconds from now; [] if it is not."""
    ends: list[float] = []
    began = room.now
    room.delivery.drain(timeout).add_callback(lambda _: ends.append(room.now - began))
    return ends


def test_a_drain_with_nothing_to_do_is_over_at_once(room: Room) -> None:
    """Kept connections are left with QUIT."""
    room.deliver()
    assert drained(room) == [0.0]
    room.advance(0.1)
    assert (room.server.commands[-1], room.server.open) == ("QUIT", 0)


def test_a_drain_lets_conversations_finish(room: Room) -> None:
    """What is under way ends well; nothing new is begun."""
    room = room.configured(limits={"connections_per_site": 2})
    room.server.on("confirm", Late("250 2.0.0 taken", 5.0), Late("250 2.0.0 taken", 5.0))
    many(room, 5)
    room.advance(1.0)
    ends = drained(room)
    many(room, 1)
    room.advance(3.0)
    assert ends == []
    room.advance(2.0)
    assert ends == [pytest.approx(4.0, abs=0.1)]
    assert len(room.server.messages) == 2
    room.advance(100.0)
    assert (len(room.server.messages), room.server.open) == (2, 0)


def test_a_drain_gives_up_what_has_no_connection_yet(room: Room) -> None:
    """The claim goes back as it was, at once, and no host is blamed."""
    room.reactor.black_holes.add("192.0.2.1")
    room.deliver()
    assert drained(room) == [0.0]
    assert [claim.id for claim in room.store.unclaimed] == ["j1"]
    assert (room.settled, room.told("site_resting")) == ([], [])


@pytest.mark.parametrize("word", ["connect", "ehlo", "mail", "rcpt", "data", "body"])
def test_a_drain_ends_in_time_whatever_the_servers_do(room: Room, word: str) -> None:
    """Before the final dot: cut off, and given back untried, with time left to write that down."""
    room.server.always(word, STALL)
    room.accept(content=b"Subject: x\r\n\r\n" + b"x\r\n" * 500_000)
    room.advance(1.0)
    ends = drained(room)
    room.advance(25.0)
    assert ends == [pytest.approx(23.0, abs=0.1)]
    assert [claim.id for claim in room.store.unclaimed] == ["j1"]
    assert (room.settled, room.told("site_resting")) == ([], [])


def test_a_drain_that_cuts_off_after_the_final_dot_leaves_a_doubt(room: Room) -> None:
    """The server may have the message: that is written down like any lost confirmation, but rests nobody."""
    room.server.always("confirm", SILENT)
    room.deliver()
    ends = drained(room)
    room.advance(25.0)
    assert ends == [pytest.approx(23.0, abs=0.1)]
    assert (len(room.told("in_doubt")), room.store.unclaimed, room.told("site_resting")) == (1, [], [])
    assert (room.settled[0].attempts, room.settled[0].doubt) == (0, True)


def test_a_drain_does_not_wait_for_a_store_that_cannot_commit(room: Room) -> None:
    """The end comes at the timeout, not later."""
    room.server.latency = 1.0
    room.accept()
    room.advance(2.5)
    room.store.healthy = False
    room.advance(10.0)
    ends = drained(room)
    room.advance(24.0)
    assert ends == []
    room.advance(1.5)
    assert ends == [pytest.approx(25.0, abs=0.1)]


def test_a_drain_takes_no_next_relay(room: Room) -> None:
    """No new connection: a host that fails now is the last."""
    room.reactor.names["backup.test"] = ["192.0.2.2"]
    backup = SMTPServer(room.reactor).listen("192.0.2.2", PORT)
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    room.server.always("connect", Late("421 4.3.2 no", 5.0))
    room.deliver()
    ends = drained(room)
    room.advance(10.0)
    assert (len(ends), backup.connections) == (1, 0)


def test_a_drain_gives_up_the_wait_for_the_next_host(room: Room) -> None:
    """A server that listened, and went, is no reason to wait for another; what it answered stands."""
    room.reactor.names["mx.test"] = ["192.0.2.1", "192.0.2.2"]
    room.reactor.black_holes.add("192.0.2.2")
    room.server.on("rcpt", "550 5.1.1 no").on("data", CLOSE)
    room.deliver("bob@b.example", "eve@b.example", seconds=1.0)
    assert room.delivery.in_flight == 1
    assert drained(room) == [0.0]
    assert (room.outcome().state, room.outcome("eve@b.example").state) == (State.FAILED, State.WAITING)


def test_nothing_is_left_behind(room: Room) -> None:
    """After a drain no timer of ours is left."""
    room.server.on("rcpt", "450 4.2.0 later").on("connect", CLOSE)
    many(room, 5)
    room.advance(5.0)
    room.server.on("rcpt", Late("450 4.2.0 later", 3.0))
    room.accept("eve@b.example")
    room.advance(1.0)
    ends = drained(room)
    room.advance(10.0)
    assert (len(ends), room.reactor.pending) == (1, 0)


def test_nothing_waits_for_a_kept_connection_that_a_drain_has_left(room: Room) -> None:
    """The end of its idle time is nobody's business any more."""
    room.deliver()
    assert room.delivery.connections == 1
    drained(room)
    room.advance(6.0)
    assert (room.server.open, room.reactor.pending) == (0, 0)
