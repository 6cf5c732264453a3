"""A message that makes its server hang up, or ask for less, again and again holds up nobody else."""

from __future__ import annotations

import msgspec
import pytest

from config.settings import SiteRest
from service.delivery.setbacks import MOST, Setbacks
from service.message.job import Priority
from tests.delivery.room import Room
from tests.fakes.smtp_server import CLOSE, Do

FULL = "450 4.2.1 the user is receiving mail at a rate that prevents additional messages from being delivered"


def tries(room: Room, address: str) -> list[float]:
    return [at for at, event, facts in room.events if event == "attempt_started" and facts["recipients"] == [address]]


def flow(room: Room, seconds: int, each: int = 2) -> int:
    """So many messages a second; the most that were not delivered a second after they came."""
    waiting = 0
    for second in range(seconds):
        for number in range(each):
            room.accept(f"u{second}.{number}@b.example")
        room.advance(1.0)
        waiting = max(waiting, (second + 1) * each - len(room.server.messages))
    return waiting


@pytest.mark.parametrize("priority", ["high", "normal", "bulk"])
@pytest.mark.parametrize("word", [CLOSE, "421 4.7.0 try again later"])
def test_one_message_does_not_keep_all_others_from_their_site(room: Room, priority: Priority, word: str | Do) -> None:
    """Nor does it if it goes before them, and would be each probe after each rest."""
    room.store.commit_time = 0.005
    room.server.latency = 0.05
    room.server.always("rcpt:odd@b.example", word)
    room.accept("odd@b.example", priority=priority)
    assert flow(room, 900) <= 8
    assert len(tries(room, "odd@b.example")) < 20


def test_one_full_mailbox_does_not_slow_its_site_for_long(room: Room) -> None:
    """Where a server says of it what it would say of us it is asked about ever less often."""
    room.server.latency = 0.1
    room.server.always("rcpt:full@b.example", FULL)
    room.accept("full@b.example")
    flow(room, 900, 10)
    assert len(tries(room, "full@b.example")) < 20
    assert room.delivery.sites()[0].limit == room.settings.limits.connections_per_site


def test_it_is_delivered_soon_when_its_server_takes_it(room: Room) -> None:
    """No more than the longest rest later, and the attempts that failed are not counted."""
    room.server.always("rcpt:odd@b.example", CLOSE)
    room.accept("odd@b.example")
    flow(room, 900)
    room.server.usually("rcpt:odd@b.example")
    assert flow(room, 300) <= 2
    assert room.store.jobs["j1"].deliveries[0].attempts == 1
    assert "odd@b.example" in {message.recipients[0] for message in room.server.messages}


def test_what_is_remembered_has_a_bound(room: Room) -> None:
    """Who failed longest ago is as if it never had."""
    setbacks, rest = Setbacks(), SiteRest(first=1.0, longest=300.0)
    room.deliver()
    one = room.settled[0].claim
    first, second, *others = (msgspec.structs.replace(one, id=f"m{number}") for number in range(MOST + 1))
    for claim in (first, second, *others):
        assert setbacks.again(claim, 1.0, rest) == 1.0
    assert (setbacks.again(second, 1.0, rest), setbacks.again(first, 1.0, rest)) == (1.1, 1.0)
