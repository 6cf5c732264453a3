"""Answers that ask for less: between the server and us, and no fault of the message."""

from __future__ import annotations

import pytest

from service.message.outcome import State
from tests.delivery.room import Room, many
from tests.fakes.smtp_server import Late, Then

TOO_MUCH = "450 4.7.0 you send too many messages, slow down"


def tries(room: Room) -> int:
    """How often a message was begun with."""
    return len(room.told("attempt_started"))


@pytest.mark.parametrize("word", ["mail", "rcpt", "data", "confirm"])
def test_no_attempt_is_used_up(room: Room, word: str) -> None:
    """Whatever the server says it to; the message is offered again after the first rest's time, and arrives."""
    room.server.on(word, TOO_MUCH)
    room.accept()
    room.advance(0.9)
    assert (room.outcome().state, room.settled[0].attempts, tries(room)) == (State.WAITING, 0, 1)
    room.advance(0.5)
    assert (room.outcome().state, room.settled[1].attempts) == (State.DELIVERED, 1)


def test_a_message_may_be_put_off_in_this_way_for_long(room: Room) -> None:
    """Its own time goes on all the while: then it fails, having used up no attempt, and its sender is told why."""
    room.server.always("mail", TOO_MUCH)
    room.accept(expires=7200.0)
    room.advance(7199.0)
    assert room.outcome().state is State.WAITING
    room.advance(400.0)
    assert (room.outcome().state, room.outcome().enhanced, room.settled[-1].attempts) == (State.FAILED, "4.4.7", 0)
    assert [kind for kind, *_ in room.composed] == ["bounce"]


def test_others_of_the_message_keep_their_answers(room: Room) -> None:
    """Who is delivered is, who is refused is, and only who was put off is asked for again."""
    room.server.on("rcpt:eve@b.example", TOO_MUCH).on("rcpt:joe@b.example", "550 5.1.1 nobody")
    room.accept("bob@b.example", "eve@b.example", "joe@b.example")
    room.advance(0.9)
    states = {name: room.outcome(f"{name}@b.example").state for name in ("bob", "eve", "joe")}
    assert states == {"bob": State.DELIVERED, "eve": State.WAITING, "joe": State.FAILED}
    room.advance(1.0)
    assert [message.recipients for message in room.server.messages] == [("bob@b.example",), ("eve@b.example",)]


def test_a_message_put_off_for_itself_uses_up_its_attempt(room: Room) -> None:
    """Greylisting, a full mailbox: the schedule's matter, and the site goes on as it was."""
    room.server.on("rcpt", "450 4.7.1 greylisted, try again later", "452 4.2.2 mailbox full: too many messages")
    many(room, 2)
    room.advance(5.0)
    assert [settlement.attempts for settlement in room.settled] == [1, 1]
    assert room.delivery.sites()[0].limit == 5


def test_a_site_that_wants_less_gets_less_until_it_gets_pauses(room: Room) -> None:
    """Five at once, two, one, and from then on one message for each rest, and rests grow as with a failing host."""
    room.server.always("mail", TOO_MUCH)
    room.server.latency = 0.01
    many(room, 1000)
    room.advance(0.5)
    assert room.delivery.sites()[0].limit == 1
    assert room.delivery.sites()[0].health == "resting"
    room.advance(3600.0)
    delays = [facts["delay"] for facts in room.told("site_resting")]
    assert delays[:9] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
    assert set(delays[9:]) == {300.0}


def test_a_site_that_wants_nothing_is_not_hammered(room: Room) -> None:
    """In an hour: a few tries to learn it, then one for each rest, however much waits."""
    room.server.always("mail", TOO_MUCH)
    room.server.latency = 0.05
    many(room, 2000)
    room.advance(60.0)
    first = tries(room)
    assert first <= 30
    room.advance(3600.0)
    assert tries(room) - first <= 20


@pytest.mark.parametrize("every", [2, 5])
def test_a_site_that_takes_one_now_and_then_is_not_hammered(room: Room, every: int) -> None:
    """Each success lets us try two at once: so some tries are in vain for each message that is taken, and not many."""
    count = iter(range(10**6))
    usual = room.server.action
    room.server.action = lambda *words: (  # type: ignore[method-assign]
        TOO_MUCH if words == ("mail",) and next(count) % every else usual(*words)
    )
    room.server.latency = 0.05
    many(room, 300)
    room.advance(1800.0)
    assert len(room.server.messages) > 60
    assert tries(room) < (every + 1) * len(room.server.messages) + 20


def test_a_site_is_back_at_once_when_it_takes_mail(room: Room) -> None:
    """After an hour of this: one message finds out, the backlog follows, more and more at a time."""
    room.server.always("mail", TOO_MUCH)
    room.server.latency = 0.05
    many(room, 500)
    room.advance(3600.0)
    room.server.usually("mail")
    room.server.most_open = 0
    room.advance(400.0)
    assert len(room.server.messages) == 500
    assert len(room.told("site_back")) == 1
    connected = [at for at in room.server.connected_at if at > 3600.0]
    assert sum(at < connected[0] + 0.2 for at in connected) <= 2


def test_what_is_said_together_counts_once(room: Room) -> None:
    """Five conversations get the same answer: half as many from now on, and no rest for it."""
    room.server.on("mail", *[TOO_MUCH] * 5)
    room.server.latency = 0.1
    many(room, 5)
    room.advance(0.9)
    assert (room.delivery.sites()[0].limit, room.told("site_resting")) == (2, [])
    room.server.on("mail", *[TOO_MUCH] * 2)
    room.advance(0.9)
    assert (room.delivery.sites()[0].limit, room.told("site_resting")) == (1, [])


def test_said_at_the_greeting_it_is_the_hosts_word(room: Room) -> None:
    """A host that does not let us in rests; one of the others on their way shows that it is well."""
    room.server.on("connect", Then("421 4.7.0 too many connections"))
    many(room, 5)
    room.advance(3.0)
    assert len(room.server.messages) == 5
    assert {settlement.attempts for settlement in room.settled} == {0, 1}
    assert len(room.told("site_resting")) == 1


def test_at_the_end_nobody_is_given_a_rest(room: Room) -> None:
    """It would be a timer for a daemon that is gone; the message is due soon after the next start."""
    room.configured(limits={"connections_per_site": 1})
    room.server.on("confirm", Late(TOO_MUCH, 2.0))
    room.accept()
    room.advance(0.5)
    ends: list[None] = []
    room.delivery.drain(25.0).add_callback(ends.append)
    room.advance(10.0)
    assert (ends, room.told("site_resting"), room.reactor.pending) == ([None], [], 0)
    assert room.settled[0].due == pytest.approx(room.settled[0].at + 1.0, abs=0.1)
