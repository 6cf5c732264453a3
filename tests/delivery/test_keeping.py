"""Connections between messages: kept, worn, lost, and left in good manners."""

from __future__ import annotations

import pytest

from service.message.outcome import State
from tests.delivery.room import BOTH_DIALECTS, Room
from tests.fakes.smtp_server import CLOSE, Late, Then


@BOTH_DIALECTS
def test_a_connection_is_kept_for_the_next_message(room: Room) -> None:
    """Two messages, one connection, one EHLO; it is left with QUIT after `idle` seconds without work."""
    room.deliver()
    room.deliver()
    assert (room.server.connections, len(room.server.messages)) == (1, 2)
    assert room.server.commands.count("EHLO client.test") == 1
    room.advance(9.0)
    assert room.server.open == 1
    room.advance(1.1)
    assert (room.server.open, room.server.commands[-1], room.delivery.connections) == (0, "QUIT", 0)


@BOTH_DIALECTS
def test_a_connection_wears_out(room: Room) -> None:
    """After `messages_per_connection` it is left, and the next message gets a new one."""
    room = room.configured(limits={"messages_per_connection": 2})
    for _ in range(5):
        room.deliver()
    assert (room.server.connections, len(room.server.messages)) == (3, 5)
    assert room.server.commands.count("QUIT") == 2


@BOTH_DIALECTS
def test_quit_comes_after_the_commit(room: Room) -> None:
    """Nobody sees anything of an outcome, not even the server, before it is durable."""
    room = room.configured(limits={"messages_per_connection": 1})
    room.reactor.latency = 0.5
    room.server.on("confirm", Late("250 2.0.0 taken", 5.0))
    room.accept()
    room.advance(3.2)
    room.store.healthy = False
    room.advance(10.0)
    assert len(room.server.messages) == 1
    assert (room.told("delivered"), "QUIT" in room.server.commands) == ([], False)
    room.store.recover()
    room.advance(2.0)
    assert (len(room.told("delivered")), "QUIT" in room.server.commands) == (1, True)


@BOTH_DIALECTS
@pytest.mark.parametrize("how", ["close", "421", "reset"])
def test_a_kept_connection_that_dies_blames_nobody(room: Room, how: str) -> None:
    """Closed while idle, just when the next message comes, or with a 421 instead of an answer to MAIL: the message
    goes out on a fresh connection at once. It has been idle for more than half a second: one that has just been used is
    taken to be alive, see `test_chunks`."""
    room.deliver(seconds=0.6)
    if how == "reset":
        room.server.reset_all()
    else:
        room.server.on("mail", CLOSE if how == "close" else Then("421 4.4.2 idle for too long"))
    room.deliver()
    assert room.outcome(id="j2").state is State.DELIVERED
    assert (room.server.connections, room.told("site_resting"), room.told("deferred")) == (2, [], [])


@BOTH_DIALECTS
def test_a_fresh_connection_that_dies_too_is_the_hosts_fault(room: Room) -> None:
    """The second chance is one."""
    room.deliver(seconds=0.6)
    room.server.always("mail", CLOSE)
    room.deliver()
    assert (room.server.connections, len(room.told("site_resting"))) == (2, 1)


@BOTH_DIALECTS
def test_a_kept_connection_on_which_the_server_speaks_unasked_is_closed(room: Room) -> None:
    """What was not asked for cannot be believed; the next message gets a new connection."""
    room.deliver()
    room.server.say("250 2.0.0 surprise")
    room.advance(0.1)
    assert room.delivery.connections == 0
    room.deliver()
    assert (room.server.connections, len(room.server.messages)) == (2, 2)


def test_nothing_is_reused_after_a_failure(room: Room) -> None:
    """A connection on which a step failed is gone, whatever the server thinks."""
    room.server.on("data", "999 what")
    room.deliver()
    assert (room.server.open, room.delivery.connections) == (0, 0)
