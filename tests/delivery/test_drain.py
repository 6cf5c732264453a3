"""The end: nothing new is begun, what is under way ends well or in time."""

from __future__ import annotations

import ssl

import pytest

from config.settings import Relay, Route
from service.message.outcome import State
from tests.delivery.room import BOTH_DIALECTS, HOST, PORT, Room, many
from tests.fakes.smtp_server import CLOSE, SILENT, STALL, Late, SMTPServer


def drained(room: Room, timeout: float = 25.0) -> list[float]:
    """When the drain was over, in seconds from now; [] if it is not."""
    ends: list[float] = []
    began = room.now
    room.delivery.drain(timeout).add_callback(lambda _: ends.append(room.now - began))
    room.advance(0.0)
    return ends


@BOTH_DIALECTS
def test_a_drain_with_nothing_to_do_is_over_at_once(room: Room) -> None:
    """Kept connections are left with QUIT."""
    room.deliver()
    assert drained(room) == [0.0]
    room.advance(0.1)
    assert (room.server.commands[-1], room.server.open) == ("QUIT", 0)


@BOTH_DIALECTS
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


@BOTH_DIALECTS
def test_a_drain_gives_up_what_has_no_connection_yet(room: Room) -> None:
    """The claim goes back as it was, at once, and no host is blamed."""
    room.reactor.black_holes.add("192.0.2.1")
    room.deliver()
    assert drained(room) == [0.0]
    assert [claim.id for claim in room.store.unclaimed] == ["j1"]
    assert (room.settled, room.told("site_resting")) == ([], [])


@pytest.mark.parametrize(
    ("dialect", "word"),
    [
        *(("DATA", word) for word in ("connect", "ehlo", "mail", "rcpt", "data")),
        *(("BDAT", word) for word in ("connect", "ehlo")),  # then the content has gone with the envelope
    ],
    indirect=["dialect"],
)
@pytest.mark.parametrize(("timeout", "grace"), [(25.0, 1.0), (2.0, 0.2), (0.0, 0.0)])
@pytest.mark.parametrize("pipelining", [True, False])
def test_a_drain_does_not_wait_for_who_has_not_asked_for_the_content(
    room: Room, word: str, timeout: float, grace: float, pipelining: bool
) -> None:
    """A grace, then the conversation is ended in good order, without a word, as a reply is owed; the claim is given
    back untried, and no host is blamed."""
    room.server.always(word, SILENT)
    if not pipelining:
        room.server.extensions = ()
    room.deliver()
    said = list(room.server.commands)
    ends = drained(room, timeout)
    room.advance(25.0)
    assert ends == [pytest.approx(grace, abs=0.001)]
    assert [claim.id for claim in room.store.unclaimed] == ["j1"]
    assert (room.settled, room.told("site_resting"), room.told("attempt_failed")) == ([], [], [])
    assert (room.server.ends, room.server.commands) == ([None], said)
    assert room.reactor.pending == 0


@BOTH_DIALECTS
@pytest.mark.parametrize("word", ["starttls", "tls"])
def test_a_drain_does_not_wait_for_tls(room: Room, word: str) -> None:
    """Neither for the answer to STARTTLS nor for the handshake; and the host is not met in the clear instead."""
    room.server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    room.configured(routes=(Route(domains=("*",), relay=(Relay("smtp", "mx.test", PORT),), tls="opportunistic"),))
    room.server.always(word, SILENT)
    room.deliver()
    ends = drained(room)
    room.advance(25.0)
    assert (ends, room.server.connections, room.server.open) == ([1.0], 1, 0)
    assert [claim.id for claim in room.store.unclaimed] == ["j1"]
    assert (room.settled, room.told("attempt_failed"), room.reactor.pending) == ([], [], 0)


def test_a_connection_on_which_nothing_goes_out_is_cut_soon_after(room: Room) -> None:
    """To end it in good order is tried for a few seconds only; the drain does not wait for that."""
    room.reactor.window = 1000
    room.server.always("mail", STALL)
    room.deliver(*(f"user{number}@b.example" for number in range(100)))
    ends = drained(room)
    room.advance(2.0)
    assert (ends, room.delivery.connections) == ([1.0], 1)
    room.advance(5.0)
    assert (room.delivery.connections, room.reactor.pending) == (0, 0)


@BOTH_DIALECTS
def test_a_conversation_that_has_only_begun_may_finish_with_a_quick_server(room: Room) -> None:
    """The grace is enough for what is left of the handshake, the message and its confirmation; QUIT is said."""
    room.server.on("connect", Late("220 mx.test ESMTP", 0.5))
    room.deliver(seconds=0.1)
    ends = drained(room)
    room.advance(25.0)
    assert ends == [pytest.approx(0.4, abs=0.001)]
    assert (len(room.server.messages), room.server.commands[-1], room.server.ends) == (1, "QUIT", [None])


def test_only_those_past_data_go_on_after_the_grace(room: Room) -> None:
    """One waits for its confirmation, one for the answer to DATA."""
    room.server.on("data", "354 go on", SILENT).on("confirm", Late("250 2.0.0 taken", 10.0))
    room.deliver("bob@b.example")
    room.deliver("eve@b.example")
    ends = drained(room)
    room.advance(2.0)
    assert ([claim.id for claim in room.store.unclaimed], ends) == (["j2"], [])
    room.advance(23.0)
    assert ends == [pytest.approx(9.0, abs=0.001)]
    assert [(each.claim.id, each.outcomes[0].state) for each in room.settled] == [("j1", State.DELIVERED)]


def test_who_is_asked_for_the_content_within_the_grace_goes_on(room: Room) -> None:
    """What counts is how far the conversation is at its end."""
    room.server.on("data", Late("354 go on", 0.9)).on("confirm", Late("250 2.0.0 taken", 10.0))
    room.deliver(seconds=0.0)
    ends = drained(room)
    room.advance(25.0)
    assert (ends, room.outcome().state) == ([pytest.approx(10.9, abs=0.001)], State.DELIVERED)


def test_an_answer_that_some_have_is_kept_when_the_others_are_not_waited_for(room: Room) -> None:
    """The 550 stands, with its bounce. The others are as before, though their time is over, and due at once."""
    room.server.on("rcpt", "550 5.1.1 no", SILENT)
    room.deliver("bob@b.example", "eve@b.example", expires=1.0, seconds=0.5)
    ends = drained(room)
    room.advance(25.0)
    assert ends == [1.0]
    (settled,) = room.settled
    assert [(outcome.address, outcome.code) for outcome in settled.outcomes] == [("bob@b.example", 550)]
    assert (settled.attempts, settled.due, settled.rested) == (0, settled.at, False)
    assert [outcomes for _, _, outcomes, _ in room.composed] == [settled.outcomes]
    told = [room.told(event) for event in ("attempt_failed", "site_resting", "deferred", "warned")]
    assert (told, room.store.unclaimed) == ([[]] * 4, [])


@BOTH_DIALECTS
def test_the_next_start_asks_only_for_those_without_an_answer(room: Room) -> None:
    """Nobody is asked for twice, and nobody is forgotten."""
    room.server.on("rcpt", "550 5.1.1 no", SILENT)
    room.deliver("bob@b.example", "eve@b.example")
    drained(room)
    room.advance(25.0)
    room.configured().delivery.start()
    room.advance(1.0)
    assert [message.recipients for message in room.server.messages] == [("eve@b.example",)]


def test_a_message_whose_recipients_all_have_their_answer_has_been_tried(room: Room) -> None:
    """Only the end of its conversation is missing: it waits by the schedule, as after any such answer."""
    room.server.on("rcpt", "450 4.2.0 greylisted").on("rset", SILENT).on("data", "554 5.5.1 no valid recipients")
    room.deliver()
    assert room.delivery.in_flight == 1
    ends = drained(room)
    room.advance(25.0)
    (settled,) = room.settled
    assert (ends, room.outcome().code, settled.attempts, settled.due) == ([1.0], 450, 1, settled.at + 60.0)


@BOTH_DIALECTS
def test_a_drain_ends_in_time_when_the_content_does_not_go_out(room: Room) -> None:
    """Cut off, so that nobody takes a part for the whole, and given back untried, with time left to write that down."""
    room.server.always("body", STALL)
    room.accept(content=b"Subject: x\r\n\r\n" + b"x\r\n" * 500_000)
    room.advance(1.0)
    ends = drained(room)
    room.advance(25.0)
    assert ends == [pytest.approx(23.0, abs=0.1)]
    assert [claim.id for claim in room.store.unclaimed] == ["j1"]
    assert (room.settled, room.told("site_resting"), room.told("attempt_failed")) == ([], [], [])
    assert room.delivery.connections == 0


@BOTH_DIALECTS
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


@BOTH_DIALECTS
def test_a_drain_takes_no_next_relay(room: Room) -> None:
    """No new connection: a host that fails within the grace is the last."""
    room.reactor.names["backup.test"] = ["192.0.2.2"]
    backup = SMTPServer(room.reactor).listen("192.0.2.2", PORT)
    relays = (Relay("smtp", "mx.test", PORT), Relay("smtp", "backup.test", PORT))
    room.configured(routes=(Route(domains=("*",), relay=relays, tls="none"),))
    room.server.always("connect", Late("421 4.3.2 no", 1.0))
    room.deliver()
    ends = drained(room)
    room.advance(10.0)
    assert (ends, backup.connections, room.outcome().code) == ([pytest.approx(0.5, abs=0.001)], 0, 421)


def test_a_drain_gives_up_the_wait_for_the_next_host(room: Room) -> None:
    """A server that listened, and went, is no reason to wait for another; what it answered stands."""
    room.reactor.names["mx.test"] = ["192.0.2.1", "192.0.2.2"]
    room.reactor.black_holes.add("192.0.2.2")
    room.server.on("rcpt", "550 5.1.1 no").on("data", CLOSE)
    room.deliver("bob@b.example", "eve@b.example", seconds=1.0)
    assert room.delivery.in_flight == 1
    assert drained(room) == [0.0]
    assert (room.outcome().state, room.outcome("eve@b.example").state) == (State.FAILED, State.WAITING)


@BOTH_DIALECTS
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


@BOTH_DIALECTS
def test_nothing_waits_for_a_kept_connection_that_a_drain_has_left(room: Room) -> None:
    """The end of its idle time is nobody's business any more."""
    room.deliver()
    assert room.delivery.connections == 1
    drained(room)
    room.advance(6.0)
    assert (room.server.open, room.reactor.pending) == (0, 0)


def test_nothing_is_claimed_for_a_dead_site_while_the_daemon_ends(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a probe finds out then is for the next start to tell of the others: nobody would be left to settle them."""
    room.configured(retry={"max_age": 4000.0})
    room.server.close()
    many(room, 5)
    room.advance(3600.0)
    room.server.listen(HOST, PORT)
    room.server.always("connect", SILENT)
    for _ in range(401):
        room.advance(1.0)
        if room.delivery.in_flight:
            break
    room.advance(4001.0 - room.now)
    assert room.delivery.in_flight == 1
    asked: list[str] = []
    claim = room.store.claim
    monkeypatch.setattr(room.store, "claim", lambda site, limit, pace: asked.append(site) or claim(site, limit))
    drained(room)
    room.server.reset_all()
    room.advance(30.0)
    assert asked == []
    assert not any(delivery.claimed for delivery in room.store.deliveries.values())
