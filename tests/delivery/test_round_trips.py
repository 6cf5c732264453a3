"""As few round trips as the server allows: how many messages a second go to a server that is 25 ms away."""

from __future__ import annotations

import pytest

from tests.delivery.room import BOTH_DIALECTS, Room, many

ONE_WAY, CONNECTIONS = 0.025, 20
MOST = CONNECTIONS / (2 * ONE_WAY)
"""Messages a second, if each takes one round trip of one connection, and nothing else takes any time."""


def rate(room: Room, messages: int = 900, settled: int = 250, *, worn_after: int = 1000) -> float:
    """Messages a second, once all connections are at work, and until they run out of it."""
    room.reactor.latency = ONE_WAY
    room.configured(limits={"connections_per_site": CONNECTIONS, "messages_per_connection": worn_after})
    many(room, messages)
    room.advance(60.0)
    times = [message.at for message in room.server.messages]
    assert (len(times), room.server.most_open) == (messages, CONNECTIONS)
    first, last = times[settled], times[-settled]
    return (messages - 2 * settled) / (last - first)


@BOTH_DIALECTS
def test_a_message_takes_one_round_trip(room: Room) -> None:
    """With CHUNKING as it is all in one write; with PIPELINING alone as the next envelope goes with the final dot."""
    assert 0.9 * MOST <= rate(room) <= MOST * 1.01


def test_without_pipelining_it_takes_four(room: Room) -> None:
    """MAIL, RCPT, DATA and the dot: what the others are saved."""
    room.server.extensions = ()
    assert rate(room) == pytest.approx(MOST / 4, rel=0.1)


@BOTH_DIALECTS
def test_connections_that_wear_out_cost_their_handshakes_and_no_more(room: Room) -> None:
    """After 50 messages each: connecting, greeting and EHLO take two round trips, and QUIT holds the slot for one."""
    assert rate(room, 1400, worn_after=50) >= 0.9 * MOST
