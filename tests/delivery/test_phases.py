"""Servers that refuse, hang up or say nothing, in each phase: the right state, errback and time, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from service.message.outcome import Phase, State
from tests.delivery.room import BOTH_DIALECTS, SITE, Room
from tests.fakes.smtp_server import CLOSE, RESET, SILENT, STALL, Action, Drip, Then

PHASES = {  # word of the script: the phase that the outcome names
    "connect": Phase.GREETING,
    "ehlo": Phase.EHLO,
    "mail": Phase.MAIL,
    "rcpt": Phase.RCPT,
    "data": Phase.DATA,
}
REFUSALS = ["mail", "rcpt", "data", "confirm"]


def by_dialect(by_data: Iterable[str], by_bdat: Iterable[str]) -> pytest.MarkDecorator:
    """Script words for each dialect. With BDAT the content goes behind the envelope, before that is answered: there is
    no answer to DATA, and a server that does not answer the envelope leaves a doubt, see `test_chunks`."""
    cases = [*(("DATA", word) for word in by_data), *(("BDAT", word) for word in by_bdat)]
    return pytest.mark.parametrize(("dialect", "word"), cases, indirect=["dialect"])


SECONDS = {  # the default timeouts
    "connect": 300.0,
    "ehlo": 300.0,
    "mail": 300.0,
    "rcpt": 300.0,
    "data": 120.0,
    "confirm": 600.0,
}


def host_was_at_fault(room: Room, phase: Phase, at: float) -> None:
    """At `at`, and not before: the recipient waits, no attempt is used up, the site rests for a second."""
    outcome = room.outcome()
    assert (outcome.state, outcome.phase, outcome.host) == (State.WAITING, phase, SITE)
    (settlement,) = room.settled
    assert settlement.attempts == 0
    assert room.when("site_resting") == [pytest.approx(at, abs=0.1)]
    assert room.told("site_resting")[0]["delay"] == 1.0
    assert settlement.due == pytest.approx(settlement.at + 1.0)
    assert room.told("deferred")[0]["attempt"] == 1


def it_arrives_after_the_rest(room: Room, word: str) -> None:
    """The site is back after its rest, by one probe."""
    room.server.usually(word)
    room.advance(1.5)
    assert room.outcome().state is State.DELIVERED
    assert len(room.told("site_back")) == 1
    assert room.server.messages[-1].recipients == ("bob@b.example",)
    assert room.delivery.in_flight == 0


@pytest.mark.parametrize("action", [CLOSE, RESET], ids=["close", "reset"])
@by_dialect(PHASES, ["connect", "ehlo"])
def test_a_server_that_hangs_up(room: Room, word: str, action: Action) -> None:
    """The host is at fault, at once; no code, since no reply came."""
    if action is RESET:  # which overtakes what was said just before: one command at a time shows the phase
        room.server.extensions = ()
    room.server.always(word, action)
    room.deliver()
    host_was_at_fault(room, PHASES[word], at=0.0)
    assert room.outcome().code is None
    it_arrives_after_the_rest(room, word)


@pytest.mark.parametrize("action", [SILENT, Drip("250 very slowly", 20.0)], ids=["silent", "drip"])
@by_dialect(PHASES, ["connect", "ehlo"])
def test_a_server_that_says_nothing(room: Room, word: str, action: Action) -> None:
    """The host is at fault once the deadline of that very phase has passed; octets that drip do not renew it."""
    room.server.always(word, action)
    room.accept()
    room.advance(SECONDS[word] - 1)
    assert room.settled == []
    room.advance(1.5)
    host_was_at_fault(room, PHASES[word], at=SECONDS[word])
    it_arrives_after_the_rest(room, word)


@by_dialect(PHASES, ["connect", "ehlo", "mail", "rcpt"])
def test_421_anywhere_is_the_hosts_fault(room: Room, word: str) -> None:
    """A server that takes leave has nothing against the message."""
    room.server.always(word, Then("421 4.3.2 shutting down"))
    room.deliver()
    host_was_at_fault(room, PHASES[word], at=0.0)
    assert (room.outcome().code, room.outcome().text) == (421, "shutting down")
    it_arrives_after_the_rest(room, word)


@BOTH_DIALECTS
@pytest.mark.parametrize("reply", ["450 4.3.2 busy", "550 5.7.1 go away"])
@pytest.mark.parametrize("word", ["connect", "ehlo"])
def test_a_refusal_before_the_message_is_the_hosts_fault(room: Room, word: str, reply: str) -> None:
    """4xx and 5xx alike: no message has been offered yet."""
    room.server.always(word, reply).always("helo", reply)
    room.deliver()
    host_was_at_fault(room, PHASES[word], at=0.0)
    assert room.outcome().code == int(reply[:3])
    it_arrives_after_the_rest(room, word)


@by_dialect(REFUSALS, ["mail", "rcpt", "confirm"])
def test_450_makes_the_message_wait_by_the_schedule(room: Room, word: str) -> None:
    """An attempt is used up, the first delay is waited for to the second, and the site does not rest."""
    room.server.on(word, "450 4.2.0 greylisted")
    room.deliver()
    outcome = room.outcome()
    assert (outcome.state, outcome.code, outcome.enhanced, outcome.phase) == (State.WAITING, 450, "4.2.0", Phase(word))
    assert (room.settled[0].attempts, room.told("site_resting")) == (1, [])
    assert room.told("deferred")[0]["delay"] == pytest.approx(60.0, abs=0.1)
    room.advance(59.0)
    assert len(room.told("attempt_started")) == 1
    room.advance(1.5)
    assert room.told("attempt_started")[1]["attempt"] == 2
    assert room.outcome().state is State.DELIVERED


@by_dialect(REFUSALS, ["mail", "rcpt", "confirm"])
def test_550_fails_the_recipient_and_owes_a_bounce(room: Room, word: str) -> None:
    """For good, with the server's words; the sender is told in the same settlement."""
    room.server.on(word, "550 5.1.1 no such user")
    room.deliver()
    outcome = room.outcome()
    assert (outcome.state, outcome.code, outcome.text, outcome.phase) == (
        State.FAILED,
        550,
        "no such user",
        Phase(word),
    )
    assert [(kind, [each.address for each in failed]) for kind, _, failed, _ in room.composed] == [
        ("bounce", ["bob@b.example"])
    ]
    assert room.settled[0].due is None
    room.advance(100_000)
    assert len(room.told("attempt_started")) == 1


@by_dialect(REFUSALS, ["mail", "rcpt", "confirm"])
def test_the_connection_survives_a_refusal(room: Room, word: str) -> None:
    """A refused message says nothing against the next one on the same connection."""
    room.server.on(word, "550 5.1.1 no")
    room.deliver()
    room.deliver("eve@b.example")
    assert room.outcome("eve@b.example", "j2").state is State.DELIVERED
    assert room.server.connections == 1


@BOTH_DIALECTS
@pytest.mark.parametrize("action", [CLOSE, RESET], ids=["close", "reset"])
def test_a_server_that_hangs_up_in_the_content(room: Room, action: Action) -> None:
    """The final dot has not been answered, and cannot have been taken: nothing is in doubt when it was not out."""
    room.server.always("body", action)
    room.deliver(content=b"Subject: long\r\n\r\n" + b"x" * 70 + b"\r\n" * 500_000)
    host_was_at_fault(room, Phase.BODY, at=0.0)
    assert room.told("in_doubt") == []
    it_arrives_after_the_rest(room, "body")


@BOTH_DIALECTS
def test_a_server_that_stops_reading_in_the_content(room: Room) -> None:
    """Content that does not go out for `write` seconds is the host's fault, and not in doubt."""
    room.server.always("body", STALL)
    room.accept(content=b"Subject: long\r\n\r\n" + b"x" * 70 + b"\r\n" * 500_000)
    room.advance(179.0)
    assert room.settled == []
    room.advance(2.0)
    host_was_at_fault(room, Phase.BODY, at=180.0)
    assert room.told("in_doubt") == []


@BOTH_DIALECTS
@pytest.mark.parametrize(
    ("action", "at"), [(CLOSE, 0.0), (RESET, 0.0), (SILENT, 600.0), (Drip("250 ok then", 60.0), 600.0)]
)
def test_a_server_that_vanishes_after_the_final_dot(room: Room, action: Action, at: float) -> None:
    """It may have the message: in doubt. It is sent again after the site's rest; then, lest copies pile up, by the
    schedule."""
    room.server.on("confirm", action, CLOSE)
    room.accept()
    room.advance(at + 0.5)
    outcome = room.outcome()
    assert (outcome.state, outcome.code, outcome.phase) == (State.WAITING, None, Phase.CONFIRM)
    [told] = room.told("in_doubt")
    assert (told["recipient"], told["host"], told["phase"]) == ("bob@b.example", SITE, "confirm")
    assert (told["attempt"], told["decision"]) == (1, "retry")
    assert room.when("in_doubt") == [pytest.approx(at, abs=0.1)]
    assert room.settled[0].attempts == 0
    room.advance(59.0)
    assert len(room.told("attempt_started")) == 2
    room.advance(3.0)
    assert room.outcome().state is State.DELIVERED
    assert [settlement.attempts for settlement in room.settled] == [0, 0, 1]


@BOTH_DIALECTS
def test_a_job_in_doubt_is_held_if_it_says_so(room: Room) -> None:
    """With `in_doubt: hold` nothing is sent again until somebody decides."""
    room.server.on("confirm", CLOSE)
    room.deliver(in_doubt="hold")
    assert room.settled[0].hold
    assert room.told("in_doubt")[0]["decision"] == "hold"
    room.advance(10_000)
    assert len(room.told("attempt_started")) == 1


@BOTH_DIALECTS
def test_421_to_the_final_dot_is_an_answer(room: Room) -> None:
    """The server says that it did not take the message: the host's fault, and no doubt."""
    room.server.on("confirm", Then("421 4.3.0 disk full"))
    room.deliver()
    host_was_at_fault(room, Phase.CONFIRM, at=0.0)
    assert room.told("in_doubt") == []


@BOTH_DIALECTS
@pytest.mark.parametrize("words", ["220 hello\r\n250 hello again", "not smtp", "999 what", "220" + "x" * 9000])
def test_a_server_that_does_not_speak_smtp(room: Room, words: str) -> None:
    """A broken answer is the host's fault, and the connection is closed at once."""
    room.server.always("connect", words)
    room.deliver(seconds=0.3)
    assert room.outcome().state is State.WAITING
    assert len(room.told("site_resting")) == 1
    assert (room.server.open, room.delivery.connections) == (0, 0)


@BOTH_DIALECTS
def test_rests_double_while_the_host_stays_away(room: Room) -> None:
    """1, 2, 4, … seconds, with one probe after each."""
    room.server.always("connect", CLOSE)
    for number in range(5):
        room.accept(f"user{number}@b.example")
    room.advance(16.0)
    assert [facts["delay"] for facts in room.told("site_resting")] == [1.0, 2.0, 4.0, 8.0, 16.0]
    probes = room.server.connected_at[5:]
    assert len(probes) == 4  # the first five went together; then one after each rest


@BOTH_DIALECTS
def test_a_word_too_many_after_the_handshake(room: Room) -> None:
    """It comes in one read with the answer to EHLO: the host is at fault before any message is offered."""
    room.server.always("ehlo", "250 mx.test\r\n250 and more")
    room.deliver(seconds=0.3)
    assert room.outcome().state is State.WAITING
    assert not any(command.startswith("MAIL") for command in room.server.commands)


@BOTH_DIALECTS
def test_an_answer_stands_whatever_is_said_after_it(room: Room) -> None:
    """The message is delivered; the connection is out of step, and closed."""
    room.server.always("confirm", "250 2.0.0 taken\r\n250 2.0.0 and more")
    room.deliver(seconds=0.3)
    assert room.outcome().state is State.DELIVERED
    assert room.server.open == 0
    assert room.told("site_resting") == []
