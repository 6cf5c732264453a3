"""Content by BDAT (RFC 3030): a message is one write, and what that changes in phases, deadlines and doubts.

What is the same as with DATA is specified beside it, for both.
"""

from __future__ import annotations

import pytest

from deferred.defer import Deferred, fail
from service.message.outcome import Phase, State
from tests.delivery.room import CONTENT, SITE, Room
from tests.fakes.smtp_server import CLOSE, RESET, SILENT, STALL, Action, Drip, Late, SMTPServer, Then

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 62 + b"\r\n" * 2000


@pytest.fixture
def room(room: Room, server: SMTPServer) -> Room:
    server.extensions += ("CHUNKING",)
    return room


def message(content: bytes = CONTENT, recipient: str = "bob@b.example") -> bytes:
    envelope = b"MAIL FROM:<ann@a.example> SIZE=%d\r\nRCPT TO:<%b>\r\n" % (len(content), recipient.encode())
    return envelope + b"BDAT %d LAST\r\n%b" % (len(content), content)


def by_data(room: Room) -> int:
    """How many messages were begun with DATA."""
    return room.server.commands.count("DATA")


# one write


def test_a_message_is_one_write(room: Room) -> None:
    """Envelope and content: one round trip, and its only steps are that it goes, and is confirmed."""
    room.deliver()
    assert room.server.reads == [b"EHLO client.test\r\n", message()]
    assert [each.content for each in room.server.messages] == [CONTENT]
    steps = [facts["phase"] for facts in room.told("step")]
    assert steps == ["connect", "greeting", "ehlo", "body", "confirm"]


def test_messages_on_one_connection_wait_for_each_other(room: Room) -> None:
    """Nothing goes ahead of a confirmation: else two messages would be in doubt together."""
    room.reactor.latency = 0.001
    room.configured(limits={"connections_per_site": 1})
    for number in range(5):
        room.accept(f"u{number}@b.example")
    room.advance(0.5)
    assert room.server.reads[1:] == [message(recipient=f"u{number}@b.example") for number in range(5)]
    assert room.server.connections == 1


def test_a_large_message_goes_in_chunks(room: Room) -> None:
    """A piece each, whatever the server has answered; what arrives is the content."""
    room.store.piece = 1000
    room.deliver(content=LARGE)
    sizes = [command for command in room.server.commands if command.startswith("BDAT")]
    assert sizes == ["BDAT 1000"] * (len(LARGE) // 1000) + [f"BDAT {len(LARGE) % 1000} LAST"]
    assert [each.content for each in room.server.messages] == [LARGE]


# a connection that was kept


@pytest.mark.parametrize("how", ["close", "421", "reset"])
@pytest.mark.parametrize("hold", ["retry", "hold"])
def test_one_that_has_been_idle_and_is_dead_leaves_no_doubt(room: Room, how: str, hold: str) -> None:
    """The content waits for an answer that does not come; the message goes out on a fresh connection at once."""
    room.deliver()
    room.advance(1.0)
    if how == "reset":
        room.server.reset_all()
    else:
        room.server.on("mail", CLOSE if how == "close" else Then("421 4.4.2 idle for too long"))
    began = len(room.server.reads)
    room.deliver(seconds=0.1, in_doubt=hold)
    assert room.outcome(id="j2").state is State.DELIVERED
    assert not any(read.endswith(CONTENT) for read in room.server.reads[began:-1])
    assert (room.server.connections, room.told("site_resting"), room.told("in_doubt")) == (2, [], [])
    assert len(room.store.marked) == (hold == "hold")


def test_one_that_has_been_idle_and_lives_gets_the_content_with_its_first_answer(room: Room) -> None:
    """One round trip more, once; then it is taken to be alive again."""
    room.deliver()
    room.advance(1.0)
    room.deliver(seconds=0.1)
    room.deliver(seconds=0.1)
    assert room.server.connections == 1
    cut = message().index(b"BDAT")
    assert room.server.reads[2:] == [message()[:cut], message()[cut:], message()]


@pytest.mark.parametrize("reply", ["450 4.2.0 later", "550 5.1.1 no"])
@pytest.mark.parametrize("word", ["mail", "rcpt"])
def test_a_refusal_by_one_that_has_been_idle_costs_no_content(room: Room, word: str, reply: str) -> None:
    """It is never sent, and the connection is kept."""
    room.deliver()
    room.advance(1.0)
    room.server.on(word, reply)
    room.deliver(seconds=0.1)
    assert (room.outcome(id="j2").code, room.outcome(id="j2").phase) == (int(reply[:3]), Phase(word))
    assert len([command for command in room.server.commands if command.startswith("BDAT")]) == 1
    room.deliver("eve@b.example", seconds=0.1)
    assert (room.server.connections, len(room.server.messages)) == (1, 2)


def test_one_that_has_been_idle_and_is_silent_is_waited_for_as_for_a_command(room: Room) -> None:
    """It owes an answer to the envelope, not to the content: that has not gone. Then a fresh one is tried."""
    room.configured(timeouts={"idle": 1000.0})
    room.deliver()
    room.advance(1.0)
    room.server.on("mail", SILENT)
    room.accept()
    room.advance(299.0)
    assert room.server.connections == 1
    room.advance(2.0)
    assert (room.outcome(id="j2").state, room.server.connections) == (State.DELIVERED, 2)
    assert (room.told("in_doubt"), room.told("site_resting")) == ([], [])


def test_a_large_envelope_that_has_been_taken_is_no_sign_of_life(room: Room) -> None:
    """The system has taken it, or the way has; whether the server has, only an answer tells."""
    room.deliver()
    room.reactor.connections[0]._outbox.window = 1000
    room.advance(1.0)
    room.server.on("mail", SILENT)
    room.deliver(*(f"user{number}@b.example" for number in range(100)), seconds=0.1)
    room.server.reset_all()
    room.advance(0.5)
    assert room.outcome("user7@b.example", "j2").state is State.DELIVERED
    assert (room.told("in_doubt"), room.told("site_resting")) == ([], [])


def test_one_that_has_been_idle_and_is_silent_holds_up_no_drain(room: Room) -> None:
    """It has got nothing of the content: it is left in good order after the grace, and nobody is blamed."""
    room.deliver()
    room.advance(1.0)
    room.server.on("mail", SILENT)
    room.deliver(seconds=0.1)
    ends: list[float] = []
    began = room.now
    room.delivery.drain(25.0).add_callback(lambda _: ends.append(room.now - began))
    room.advance(25.0)
    assert ends == [pytest.approx(1.0)]
    assert ([claim.id for claim in room.store.unclaimed], room.server.ends) == (["j2"], [None])
    assert (room.told("in_doubt"), room.reactor.pending) == ([], 0)


def test_one_that_has_just_been_used_is_taken_to_be_alive(room: Room) -> None:
    """Within half a second the whole message goes at once: if it is dead then, it may have the message all the same.
    That is the price of one round trip, and it is told as a doubt."""
    room.deliver(seconds=0.1)
    room.server.on("mail", CLOSE)
    room.deliver(seconds=0.1)
    assert room.server.reads[2] == message()
    assert [facts["id"] for facts in room.told("in_doubt")] == ["j2"]
    room.advance(5.0)
    assert room.outcome(id="j2").state is State.DELIVERED


def test_one_that_has_just_been_used_leaves_no_doubt_while_the_last_chunk_is_here(room: Room) -> None:
    """Dead, it does not take a large message as a whole: nobody is blamed, and a fresh one gets it at once."""
    room.store.piece = 1000
    room.reactor.window = 1500
    room.deliver(seconds=0.1)
    room.server.on("mail", RESET)
    room.deliver(seconds=0.1, content=LARGE)
    assert (room.outcome(id="j2").state, room.server.connections) == (State.DELIVERED, 2)
    assert (room.told("in_doubt"), room.told("site_resting")) == ([], [])


# doubts and deadlines


@pytest.mark.parametrize("word", ["mail", "rcpt", "confirm"])
@pytest.mark.parametrize("action", [CLOSE, RESET], ids=["close", "reset"])
def test_a_server_that_hangs_up_once_it_has_the_message_leaves_a_doubt(room: Room, word: str, action: Action) -> None:
    """Whatever it has answered before: it may have read on without a word."""
    room.server.on(word, action)
    room.deliver()
    assert (room.outcome().state, room.outcome().phase) == (State.WAITING, Phase.CONFIRM)
    assert [facts["decision"] for facts in room.told("in_doubt")] == ["retry"]
    room.advance(2.0)
    assert room.outcome().state is State.DELIVERED


@pytest.mark.parametrize("action", [SILENT, Drip("250 very slowly", 60.0)], ids=["silent", "drip"])
def test_a_server_that_answers_nothing_is_waited_for_as_for_a_confirmation(room: Room, action: Action) -> None:
    """That is what it owes from the start: `timeouts.confirm`, 600 seconds."""
    room.server.on("mail", action)
    room.accept()
    room.advance(599.0)
    assert room.settled == []
    room.advance(1.5)
    assert (room.outcome().phase, len(room.told("in_doubt"))) == (Phase.CONFIRM, 1)


def test_each_answer_renews_the_wait(room: Room) -> None:
    """A server may take its time for each."""
    room.server.on("mail", Late("250 2.1.0 ok", 500.0)).on("rcpt", Late("250 2.1.5 ok", 500.0))
    room.server.on("confirm", Late("250 2.0.0 taken", 500.0))
    room.accept()
    room.advance(1501.0)
    assert room.outcome().state is State.DELIVERED


@pytest.mark.parametrize("moment", ["mail", "chunk"])
def test_a_server_that_hangs_up_before_the_last_chunk_leaves_no_doubt(room: Room, moment: str) -> None:
    """Nobody delivers what he has not got to its end. What had been answered names the phase."""
    room.store.piece = 1000
    room.reactor.window = 1500
    room.server.on(moment, RESET)
    room.deliver(content=LARGE)
    assert (room.outcome().state, room.told("in_doubt")) == (State.WAITING, [])
    assert room.outcome().phase is (Phase.MAIL if moment == "mail" else Phase.BODY)
    assert len(room.told("site_resting")) == 1


@pytest.mark.parametrize("piece", [LARGE[1000:2000], None], ids=["a piece", "none"])
def test_a_piece_that_comes_too_late_is_no_matter_of_the_next_message(
    room: Room, monkeypatch: pytest.MonkeyPatch, piece: bytes | None
) -> None:
    """The store is slow with the second piece, and the server refuses the first meanwhile. The message behind it has
    its content sent and its deadline all the same, and is not taken for removed if it was the first one that is gone.
    """
    late: Deferred[bytes] = Deferred()
    read = room.store.read
    monkeypatch.setattr(room.store, "read", lambda claim, piece: late if piece == 1 else read(claim, piece))
    room.store.piece = 1000
    room.configured(limits={"connections_per_site": 1})
    room.server.on("chunk", "552 5.3.4 too big").on("mail", "250 2.1.0 ok", SILENT)
    room.accept(content=LARGE)
    room.accept()
    room.advance(0.5)
    assert (room.outcome().state, room.server.connections, room.server.messages) == (State.FAILED, 1, [])
    if piece is None:
        late.errback(LookupError("j1 has been removed"))
    else:
        late.callback(piece)
    room.advance(599.0)
    assert len(room.settled) == 1
    room.advance(1.5)
    assert (room.outcome(id="j2").phase, len(room.told("in_doubt"))) == (Phase.CONFIRM, 1)


def test_a_server_that_stops_reading_is_given_up_after_the_time_to_write(room: Room) -> None:
    """It is our turn, and the content does not go out."""
    room.store.piece = 1000
    room.reactor.window = 1500
    room.server.on("chunk", STALL)
    room.accept(content=LARGE)
    room.advance(179.0)
    assert room.settled == []
    room.advance(1.5)
    assert (room.outcome().phase, room.told("in_doubt")) == (Phase.BODY, [])


def test_a_drain_waits_for_who_has_the_content(room: Room) -> None:
    """It got it unasked: the answer may come, or not; then it is in doubt."""
    room.server.on("mail", Late("250 2.1.0 ok", 10.0), SILENT)
    room.accept("bob@b.example")
    room.accept("eve@b.example")
    room.advance(0.5)
    ends: list[float] = []
    began = room.now
    room.delivery.drain(25.0).add_callback(lambda _: ends.append(room.now - began))
    room.advance(25.0)
    assert ends == [pytest.approx(23.0)]
    assert (room.outcome().state, [facts["id"] for facts in room.told("in_doubt")]) == (State.DELIVERED, ["j2"])


@pytest.mark.parametrize("pieces", [1, 4])
def test_a_job_to_be_held_in_doubt_is_marked_before_its_last_chunk(room: Room, pieces: int) -> None:
    """While the store cannot commit the mark, all but that may go."""
    content = LARGE[:3500] if pieces > 1 else CONTENT
    room.store.piece = 1000
    room.reactor.latency = 0.1
    room.accept(in_doubt="hold", content=content)
    room.advance(0.3)
    room.store.healthy = False
    room.advance(5.0)
    assert [command.endswith("LAST") for command in room.server.commands if "BDAT" in command] == [False] * (pieces - 1)
    assert (room.server.messages, room.store.marked) == ([], [])
    room.store.recover()
    room.advance(1.0)
    assert (room.store.marked, len(room.server.messages)) == ([("j1", SITE)], 1)


def test_a_job_removed_before_its_last_chunk_is_not_sent(room: Room) -> None:
    """The mark finds it gone; the server gets the envelope, and no content."""
    room.store.mark = lambda claim, host: fail(LookupError("gone"))  # type: ignore[method-assign]
    room.deliver(in_doubt="hold")
    assert not any("BDAT" in command for command in room.server.commands)
    assert (room.server.messages, room.settled, room.delivery.connections) == ([], [], 0)


# refusals


@pytest.mark.parametrize(("reply", "state"), [("452 4.3.1 full", State.WAITING), ("552 5.3.4 no", State.FAILED)])
def test_a_chunk_that_is_refused_in_the_middle_is_the_end_of_that_message_only(
    room: Room, reply: str, state: State
) -> None:
    """Its recipients have that answer, what is left is not sent, and the connection goes on after a reset."""
    room.store.piece = 1000
    room.reactor.window = 1500
    room.server.on("chunk", "250 2.0.0 ok", reply)
    room.deliver(content=LARGE)
    assert (room.outcome().state, room.outcome().phase, room.outcome().code) == (state, Phase.BODY, int(reply[:3]))
    assert not any(command.endswith("LAST") for command in room.server.commands)
    room.deliver("eve@b.example", content=LARGE)
    assert room.outcome("eve@b.example", "j2").state is State.DELIVERED
    assert (room.server.connections, room.server.commands.count("RSET"), room.told("site_resting")) == (1, 1, [])


def test_nothing_more_is_sent_of_a_large_message_that_nobody_may_get(room: Room) -> None:
    """The chunks that are under way are heard to their end, with whatever the server says to them."""
    room.store.piece = 1000
    room.reactor.window = 1500
    room.server.on("rcpt", "550 5.1.1 no")
    room.deliver(content=LARGE)
    assert (room.outcome().code, room.outcome().phase) == (550, Phase.RCPT)
    assert len([command for command in room.server.commands if command.startswith("BDAT")]) <= 3
    room.deliver("eve@b.example")
    assert (room.server.connections, len(room.server.messages)) == (1, 1)


# a server that offers CHUNKING, and knows no BDAT


@pytest.mark.parametrize("reply", ["500 5.5.2 what?", "502 5.5.1 not here", "503 5.5.1 bad sequence", "504 5.5.4 no"])
def test_a_server_that_knows_no_bdat_is_met_again_and_sent_data(room: Room, reply: str) -> None:
    """At once, on a new connection: it may have taken content for commands. Nothing bounces, and nobody rests."""
    room.server.on("confirm", reply)
    room.deliver()
    assert (room.outcome().state, room.server.connections, by_data(room)) == (State.DELIVERED, 2, 1)
    assert (room.told("site_resting"), room.told("in_doubt"), room.settled[0].attempts) == ([], [], 1)


def test_that_is_remembered_for_an_hour_and_forgotten_at_a_reload(room: Room) -> None:
    """So that the next messages need not fail first; and whoever mends the server need not wait."""
    room.configured(timeouts={"idle": 0.0})
    room.server.on("confirm", "502 5.5.1 not here")
    room.deliver()
    room.deliver()
    assert (room.server.connections, by_data(room)) == (3, 2)
    room.advance(3590.0)
    room.deliver()
    assert by_data(room) == 3
    room.advance(20.0)
    room.deliver()
    assert (by_data(room), len(room.server.messages)) == (3, 4)
    room.server.on("confirm", "502 5.5.1 not here")
    room.deliver()
    assert by_data(room) == 4
    room.delivery.configure(room.settings)
    room.deliver()
    assert (by_data(room), len(room.server.messages)) == (4, 6)


def test_a_server_that_knows_no_bdat_after_a_first_chunk_has_refused_the_message(room: Room) -> None:
    """It knows what a chunk is: a 503 to a later one is a word about the message."""
    room.store.piece = 1000
    room.server.on("chunk", "250 2.0.0 ok", "503 5.5.1 no more")
    room.deliver(content=LARGE)
    assert (room.outcome().state, room.outcome().phase, by_data(room)) == (State.FAILED, Phase.BODY, 0)


def test_a_kept_connection_whose_server_forgets_bdat_goes_on_with_data(room: Room) -> None:
    """The second message meets a server that has changed its mind: on a new connection, by DATA."""
    room.deliver(seconds=0.1)
    room.server.on("confirm", "500 5.5.2 what?")
    room.deliver(seconds=0.1)
    assert room.outcome(id="j2").state is State.DELIVERED
    assert (room.told("site_resting"), by_data(room)) == ([], 1)


def test_without_pipelining_content_goes_by_data(room: Room) -> None:
    """A chunk that waits for each answer would save nothing."""
    room.server.extensions = ("CHUNKING",)
    room.deliver()
    assert (room.outcome().state, by_data(room)) == (State.DELIVERED, 1)
