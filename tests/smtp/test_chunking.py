"""The content in chunks (RFC 3030): the whole message is one write, and is heard to its end whatever is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.message.outcome import Phase, State
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, BrokenConfirmation, ChunkingRefused, ConfirmationLost, HostFailure
from service.smtp.events import BodyWanted, Failed, Finished
from service.smtp.options import SessionOptions
from service.smtp.session import OutOfStepError, Session

ANN, BOB, EVE = "ann@a.example", "bob@b.example", "eve@b.example"
PIECES = (b"one\r\n", b"two\r\n", b"three\r\n")


@pytest.fixture
def chunks(talk):
    """`talk` with a server that offers what chunks take, and one recipient unless more are wanted."""

    def chunks(script: str, **options):
        return talk(script, **{"offers": "PIPELINING\nCHUNKING", "recipients": (BOB,), **options})

    return chunks


def ready() -> Session:
    """A session with such a server, idle, for what is not a matter of one line after the other."""
    session = Session(SessionOptions(hostname="me.example", tls="none", host="mx.example:25"))
    session.receive_data(b"220 hi\r\n")
    session.data_to_send()
    session.receive_data(b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    assert session.idle
    return session


# one message, one write


def test_the_whole_message_is_one_write(chunks):
    """Envelope and content leave together, and the answer to the last chunk is the confirmation."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 2.1.0 ok
        S: 250 2.1.5 ok
        S: 250 2.1.5 ok
        S: 250 2.0.0 queued as 17
    """,
        recipients=(BOB, EVE),
    )
    assert receipt.states() == {BOB: "delivered", EVE: "delivered"}
    outcome = receipt.outcomes[0][1]
    assert (outcome.code, outcome.enhanced, outcome.text) == (250, "2.0.0", "queued as 17")
    assert (outcome.phase, outcome.host) == (Phase.CONFIRM, "mx.example:25")
    assert receipt.session.idle


def test_the_content_is_wanted_before_anything_has_been_said():
    """The driver may give it before it fetches what there is to send."""
    session = ready()
    assert session.send(Envelope(ANN, (BOB,))) == [BodyWanted()]
    assert session.wants_body
    session.send_body(b"hello\r\n", last=True)
    assert not session.wants_body
    assert session.data_to_send() == b"MAIL FROM:<ann@a.example>\r\nRCPT TO:<bob@b.example>\r\nBDAT 7 LAST\r\nhello\r\n"


def test_dots_travel_as_they_are(chunks):
    """The length says where the content ends, so nothing in it has to be told from an end."""
    chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 11 LAST
        C: .
        C: ..
        C: a.
        S: 250 ok
        S: 250 ok
        S: 250 ok
    """,
        content=b".\r\n..\r\na.\r\n",
    )


def test_each_piece_is_a_chunk_and_several_are_in_flight(chunks):
    """The driver gives a piece whenever there is room, whatever is answered meanwhile; each chunk is answered."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5
        C: two
        S: 250 ok
        S: 250 ok
        S: 250 5 octets
        MORE
        C: BDAT 7 LAST
        C: three
        S: 250 5 more
        S: 250 ok
    """,
        content=PIECES,
    )
    assert receipt.states() == {BOB: "delivered"}


def test_an_empty_last_piece_is_an_empty_chunk(chunks):
    """`BDAT 0 LAST` (RFC 3030, 2); an empty piece before it is no chunk at all."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 5
        C: one
        MORE
        MORE
        C: BDAT 0 LAST
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 ok
    """,
        content=(b"one\r\n", b"", b""),
    )
    assert receipt.states() == {BOB: "delivered"}


def test_size_and_eight_bit_are_declared_as_with_data(chunks):
    """BINARYMIME is of no use to content that has line ends."""
    chunks(
        """
        C: MAIL FROM:<ann@a.example> SIZE=7 BODY=8BITMIME
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 250 ok
        S: 250 ok
    """,
        offers="PIPELINING\nCHUNKING\n8BITMIME\nBINARYMIME\nSIZE 1000",
        size=7,
        eight_bit=True,
    )


def test_a_message_that_the_server_cannot_take_wants_no_content(chunks):
    """It is finished at once, as with DATA."""
    receipt = chunks("", offers="PIPELINING\nCHUNKING\nSIZE 1000", size=1001)
    assert receipt.events[1:] == [Finished(receipt.outcomes[0])]
    assert receipt.outcomes[0][0].enhanced == "5.3.4"
    with pytest.raises(OutOfStepError):
        receipt.session.send_body(b"hello\r\n", last=True)


@pytest.mark.parametrize(
    ("offers", "options"), [("CHUNKING", {}), ("PIPELINING", {}), ("PIPELINING\nCHUNKING", {"chunking": False})]
)
def test_without_pipelining_or_where_it_is_switched_off_data_is_used(chunks, offers, options):
    """Chunks would take a round trip each; and a server that refused them once is spoken to as one that has none."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        S: 550 no
    """
        if offers == "CHUNKING"
        else """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 250 ok
    """,
        offers=offers,
        **options,
    )
    assert receipt.session.idle


# refusals


def test_each_recipient_has_its_own_fate(chunks):
    """The chunk's answer is for those who were accepted."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 250 ok
        S: 450 4.2.0 greylisted
        S: 250 ok
    """,
        recipients=(BOB, EVE),
    )
    assert receipt.states() == {BOB: "delivered", EVE: "waiting"}
    assert [outcome.phase for outcome in receipt.outcomes[0]] == [Phase.CONFIRM, Phase.RCPT]


@pytest.mark.parametrize("answer", ["503 5.5.1 RCPT first", "554 nobody", "250 thanks for nothing"])
def test_when_all_recipients_are_refused_the_chunks_that_went_are_heard_and_reset(chunks, answer):
    """What is said to them means nothing any more; no more are sent."""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5
        C: two
        S: 250 ok
        S: 550 no
        S: 450 not now
        MORE
        S: {answer}
        S: {answer}
        C: RSET
        S: 250 ok
    """,
        recipients=(BOB, EVE),
        content=PIECES,
    )
    assert receipt.states() == {BOB: "failed", EVE: "waiting"}
    assert {outcome.phase for outcome in receipt.outcomes[0]} == {Phase.RCPT}
    assert receipt.session.idle


@pytest.mark.parametrize("answer", ["503 5.5.1 RCPT first", "554 nobody", "250 thanks for nothing"])
def test_when_all_recipients_are_refused_the_last_chunk_is_for_nobody(chunks, answer):
    """As the lone dot after DATA is (RFC 2920, 3.1)."""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 550 5.1.1 no
        S: {answer}
        C: RSET
        S: 250 ok
    """,
    )
    assert receipt.states() == {BOB: "failed"}
    assert receipt.outcomes[0][0].phase is Phase.RCPT
    assert receipt.session.idle


def test_mail_refused_is_everybodys_answer(chunks):
    """And the server is reset, since it was sent a chunk out of turn (RFC 3030, 2)."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 451 4.7.1 slow down
        S: 503 5.5.1 MAIL first
        S: 503 5.5.1 MAIL first
        C: RSET
        S: 250 ok
    """,
    )
    assert receipt.states() == {BOB: "waiting"}
    assert receipt.outcomes[0][0].phase is Phase.MAIL
    assert receipt.session.idle


def test_mail_refused_stops_the_chunks(chunks):
    """Those that went are heard, and then there is something to reset."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 5
        C: one
        S: 550 no
        MORE
        S: 503 MAIL first
        MORE
        S: 503 MAIL first
        C: RSET
        S: 250 ok
    """,
        content=PIECES,
    )
    assert receipt.states() == {BOB: "failed"}
    assert receipt.session.idle


def test_mail_refused_before_any_chunk_has_gone_leaves_nothing_to_reset():
    """The content was slow to come, and is not sent at all."""
    session = ready()
    session.send(Envelope(ANN, (BOB,)))
    assert session.data_to_send() == b"MAIL FROM:<ann@a.example>\r\nRCPT TO:<bob@b.example>\r\n"
    assert session.receive_data(b"550 not from you\r\n") == []
    assert not session.wants_body
    assert not session.takes_envelope
    session.send_body(b"one\r\n", last=True)
    (event,) = session.receive_data(b"503 MAIL first\r\n")
    assert isinstance(event, Finished)
    assert session.data_to_send() == b""
    assert session.idle


@pytest.mark.parametrize(("reply", "state"), [("452 4.3.1 disk full", "waiting"), ("552 5.3.4 too big", "failed")])
def test_a_chunk_refused_in_the_middle_is_the_answer_for_those_who_were_accepted(chunks, reply, state):
    """The rest is not sent, the chunks that went are heard, and the connection stays usable."""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5
        C: two
        S: 250 ok
        S: 250 ok
        S: 550 5.1.1 no
        S: {reply}
        MORE
        S: 503 5.5.1 out of turn
        C: RSET
        S: 250 ok
    """,
        recipients=(BOB, EVE),
        content=PIECES,
    )
    bob, eve = receipt.outcomes[0]
    assert (bob.state, bob.phase, bob.enhanced) == (state, Phase.BODY, reply[4:9])
    assert (eve.state, eve.phase) == ("failed", Phase.RCPT)
    assert receipt.session.idle


def test_a_chunk_refused_when_the_last_is_out_leaves_nothing_in_doubt(chunks):
    """A server throws away what comes behind a chunk that it refused, the last one too."""
    script = """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5 LAST
        C: two
        S: 250 ok
        S: 250 ok
        S: 452 4.3.1 disk full
    """
    receipt = chunks(script + "S: 503 out of turn\nC: RSET\nS: 250 ok", content=PIECES[:2])
    assert receipt.states() == {BOB: "waiting"}
    lost = chunks(script + "EOF", content=PIECES[:2])
    assert type(lost.error) is HostFailure
    assert [(outcome.state, outcome.phase) for outcome in lost.error.outcomes] == [(State.WAITING, Phase.BODY)]


@pytest.mark.parametrize(("reply", "state"), [("451 4.3.0 later", "waiting"), ("554 5.6.0 spam", "failed")])
def test_the_last_chunk_refused_is_an_answer_like_that_to_the_final_dot(chunks, reply, state):
    """But the server is reset: what a refused chunk leaves behind is not said anywhere."""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 250 ok
        S: {reply}
        C: RSET
        S: 250 ok
    """,
    )
    assert receipt.states() == {BOB: state}
    assert receipt.outcomes[0][0].phase is Phase.CONFIRM
    assert receipt.session.idle


def test_a_refused_reset_keeps_the_answers_and_gives_up_the_connection(chunks):
    """A server that took the content for commands answers each line of it: that is noticed here."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 550 no
        S: 503 RCPT first
        C: RSET
        S: 500 hello what?
    """,
    )
    assert receipt.events[-1] == Finished(receipt.outcomes[0], close=True)
    assert receipt.session.closed


# servers that do not do what they offered


@pytest.mark.parametrize("code", [500, 502, 503, 504])
@pytest.mark.parametrize("last", [True, False])
def test_a_server_that_knows_no_bdat_after_all_is_at_fault_itself(chunks, code, last):
    """The message is not to blame: no bounce, no doubt; the driver may come again without chunks."""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 5{" LAST" if last else ""}
        C: one
        S: 250 ok
        S: 250 ok
        S: 550 5.1.1 who?
        S: {code} 5.5.1 what?
    """,
        recipients=(BOB, EVE),
        content=PIECES[:1] if last else PIECES,
    )
    error = receipt.error
    assert type(error) is ChunkingRefused
    assert (error.phase, error.code, error.enhanced) == (Phase.BODY, code, "5.5.1")
    assert error.text == "CHUNKING is offered, and yet BDAT was refused: what?"
    assert [outcome.address for outcome in error.outcomes] == [EVE]
    receipt.session.quit()
    assert receipt.session.data_to_send() == b""


def test_what_was_sent_ahead_to_a_server_without_bdat_has_not_arrived_either(chunks):
    """Its last chunk is out, and yet it is not in doubt."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        C: RSET
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 250 ok
        S: 502 what?
    """,
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert [type(error) for error in (receipt.error, *receipt.failed.ahead)] == [ChunkingRefused] * 2


def test_a_server_that_took_a_chunk_before_may_say_503_of_a_message(chunks):
    """It knows BDAT, so it means what it says."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5 LAST
        C: two
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 503 not this one
        C: RSET
        S: 250 ok
    """,
        content=PIECES[:2],
    )
    assert receipt.states() == {BOB: "failed"}


def test_a_server_that_refuses_mail_and_takes_the_message_is_not_believed(chunks):
    """MAIL's answer stands; what else it says is of no use."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 550 no
        S: 250 ok
        S: 250 ok
    """,
    )
    assert type(receipt.error) is BrokenAnswer
    assert [outcome.phase for outcome in receipt.error.outcomes] == [Phase.MAIL]


def test_a_server_that_takes_a_message_of_which_it_refused_a_chunk_is_not_believed(chunks):
    """It says that it has a message with a hole in it."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5 LAST
        C: two
        S: 250 ok
        S: 250 ok
        S: 452 disk full
        S: 250 taken
    """,
        content=PIECES[:2],
    )
    assert type(receipt.error) is BrokenAnswer
    assert [outcome.phase for outcome in receipt.error.outcomes] == [Phase.BODY]


# the end of the connection


def lost_when(chunks: Callable, replies: str, content: tuple[bytes, ...], end: str = "EOF"):
    """How it ends when that much was answered of what was sent."""
    last = " LAST" if len(content) == 1 else ""
    script = f"C: MAIL FROM:<ann@a.example>\nC: RCPT TO:<bob@b.example>\nC: BDAT 5{last}\nC: one\n"
    return chunks(script + replies + end, content=content).error


@pytest.mark.parametrize("replies", ["", "S: 250 ok\n", "S: 250 ok\nS: 250 ok\n"])
@pytest.mark.parametrize("end", ["EOF", "TIMEOUT"])
def test_a_connection_lost_when_the_last_chunk_is_out_is_in_doubt(chunks, replies, end):
    """However little was answered: the server may have read it all, and have the message."""
    error = lost_when(chunks, replies, PIECES[:1], end)
    assert type(error) is ConfirmationLost
    assert (error.phase, error.outcomes) == (Phase.CONFIRM, ())
    waited_for = ["MAIL", "RCPT", "the last BDAT"][replies.count("S:")]
    assert f" before the answer to {waited_for}" in error.text


@pytest.mark.parametrize("replies", ["", "S: 250 ok\n", "S: 250 ok\nS: 250 ok\n", "S: 250 ok\nS: 250 ok\nS: 250 ok\n"])
@pytest.mark.parametrize("end", ["EOF", "TIMEOUT"])
def test_a_connection_lost_in_the_middle_of_the_chunks_is_not_in_doubt(chunks, replies, end):
    """A message without its last chunk is none."""
    error = lost_when(chunks, replies, PIECES, end)
    assert type(error) is HostFailure
    assert error.phase is Phase.BODY
    assert " while the message was sent" in error.text


def test_a_last_chunk_that_was_never_fetched_is_not_in_doubt():
    """The session knows that the server cannot have seen it."""
    session = ready()
    session.send(Envelope(ANN, (BOB,)))
    assert session.data_to_send()
    session.send_body(b"hello\r\n", last=True)
    (event,) = session.connection_lost("reset")
    assert type(event.error) is HostFailure


def test_nothing_is_in_doubt_where_nobody_hopes_any_more(chunks):
    """The last chunk is out, but everybody has an answer."""
    error = lost_when(chunks, "S: 250 ok\nS: 550 5.1.1 no\n", PIECES[:1])
    assert type(error) is HostFailure
    assert [outcome.state for outcome in error.outcomes] == [State.FAILED]


@pytest.mark.parametrize(
    ("replies", "phase"),
    [
        ("", Phase.MAIL),
        ("S: 250 ok\n", Phase.RCPT),
        ("S: 250 ok\nS: 250 ok\n", Phase.CONFIRM),
    ],
)
def test_a_421_says_that_the_message_was_not_taken(chunks, replies, phase):
    """Replies come in order: a server that takes leave at RCPT has not come to the chunk behind it."""
    error = lost_when(chunks, replies, PIECES[:1], "S: 421 4.3.2 closing")
    assert type(error) is HostFailure
    assert (error.phase, error.code, error.text) == (phase, 421, "closing")


def test_a_421_to_a_chunk_is_of_phase_body(chunks):
    """And it is no outcome: the message waits as with any failure of the host."""
    error = lost_when(chunks, "S: 250 ok\nS: 250 ok\n", PIECES, "S: 421 4.3.2 closing")
    assert (type(error), error.phase, error.outcomes) == (HostFailure, Phase.BODY, ())


@pytest.mark.parametrize(
    ("replies", "nonsense", "phase", "command"),
    [
        ("", "354 go", Phase.MAIL, "MAIL"),
        ("S: 250 ok\nS: 250 ok\n", "354 go", Phase.BODY, "BDAT"),
        ("S: 250 ok\nS: 250 ok\nS: 250 ok\n", "250 go", Phase.BODY, "anything that was asked"),
    ],
)
def test_nonsense_in_the_middle_of_the_chunks_is_a_broken_answer(chunks, replies, nonsense, phase, command):
    """Nothing is in doubt, and nothing more is said."""
    error = lost_when(chunks, replies, PIECES, f"S: {nonsense}")
    assert type(error) is BrokenAnswer
    assert (error.phase, error.text) == (phase, f"{nonsense[:3]} is no answer to {command}: go")


@pytest.mark.parametrize("replies", ["", "S: 250 ok\nS: 250 ok\n"])
def test_nonsense_when_the_last_chunk_is_out_is_in_doubt(chunks, replies):
    """Who answers nonsense to MAIL may still have taken the message."""
    error = lost_when(chunks, replies, PIECES[:1], "S: 354 go on")
    assert type(error) is BrokenConfirmation
    assert error.phase is Phase.CONFIRM


# sent ahead


def test_the_next_message_travels_in_the_same_write(chunks):
    """With a RSET between them, which means nothing where the first was taken; each is answered in its turn."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        C: RSET
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 250 ok
        S: 250 first
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 second
    """,
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert [[outcome.text for outcome in outcomes] for outcomes in receipt.outcomes] == [["first"], ["second"]]
    assert receipt.session.idle


@pytest.mark.parametrize(
    ("replies", "phase"),
    [
        ("S: 550 no\nS: 503 MAIL first\nS: 503 MAIL first", Phase.MAIL),
        ("S: 250 ok\nS: 550 no\nS: 503 RCPT first", Phase.RCPT),
        ("S: 250 ok\nS: 250 ok\nS: 554 no", Phase.CONFIRM),
    ],
)
def test_the_next_message_resets_what_a_refused_one_left_behind(chunks, replies, phase):
    """So the refused one is finished as soon as it is answered, and the next one is not refused as nested."""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        C: RSET
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        {replies}
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 second
    """,
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    (first,), (second,) = receipt.outcomes
    assert (first.state, first.phase) == (State.FAILED, phase)
    assert second.state is State.DELIVERED
    assert receipt.session.idle


def test_what_is_queued_for_the_next_message_is_not_taken_back_with_a_refused_one():
    """It has not gone yet, but is none of the first one's business."""
    session = ready()
    for recipient in (BOB, EVE):
        session.send(Envelope(ANN, (recipient,)))
        session.send_body(b"hello\r\n", last=True)
        if recipient == BOB:
            session.data_to_send()
    (first,) = session.receive_data(b"250 ok\r\n550 no\r\n503 nobody\r\n")
    assert isinstance(first, Finished)
    assert session.data_to_send().startswith(
        b"RSET\r\nMAIL FROM:<ann@a.example>\r\nRCPT TO:<eve@b.example>\r\nBDAT 7 LAST"
    )
    (second,) = session.receive_data(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n")
    assert isinstance(second, Finished)
    assert session.idle


def test_a_server_that_takes_refused_content_for_commands_does_not_fail_the_next_message(chunks):
    """Its answers to the content's lines come where that to RSET should: nobody bounces for it."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        C: RSET
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 550 no
        S: 503 RCPT first
        S: 500 hello what?
    """,
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert receipt.states() == {BOB: "failed"}
    error = receipt.error
    assert type(error) is BrokenConfirmation
    assert (error.code, error.text, error.outcomes) == (500, "RSET was refused: hello what?", ())


def test_an_envelope_is_not_sent_behind_one_that_is_being_reset(chunks):
    """It would be reset twice; it goes when the first is finished."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 5
        C: one
        S: 250 ok
        S: 550 no
        MORE
        S: 503 RCPT first
        C: RSET
        S: 250 ok
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5 LAST
        C: two
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 ok
    """,
        content=PIECES[:2],
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert [outcomes[0].state for outcomes in receipt.outcomes] == [State.FAILED, State.DELIVERED]


def test_each_message_whose_last_chunk_is_out_is_in_doubt():
    """The first is answered; the second and the third may have arrived, the fourth has not."""
    session = ready()
    for number in range(4):
        session.send(Envelope(ANN, (f"r{number}@b.example",)))
        session.send_body(b"hello\r\n", last=number < 3)
    session.data_to_send()
    (first,) = session.receive_data(b"250 ok\r\n250 ok\r\n250 ok\r\n")
    assert isinstance(first, Finished)
    (failed,) = session.connection_lost("EOF")
    assert isinstance(failed, Failed)
    assert [type(each) for each in (failed.error, *failed.ahead)] == [ConfirmationLost, ConfirmationLost, HostFailure]


def test_after_a_421_nothing_that_was_sent_ahead_is_in_doubt(chunks):
    """The server takes leave in answer to the first, and has not come to the second."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: BDAT 7 LAST
        C: hello
        C: RSET
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 250 ok
        S: 421 closing
    """,
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert [(type(each), each.phase) for each in (receipt.error, *receipt.failed.ahead)] == [
        (HostFailure, Phase.CONFIRM),
        (HostFailure, Phase.MAIL),
    ]


# LMTP


def test_lmtp_answers_the_last_chunk_for_each_accepted_recipient(chunks):
    """RFC 2033, 4.2; a chunk before it is answered once."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<who@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5 LAST
        C: two
        S: 250 ok
        S: 250 ok
        S: 550 who?
        S: 250 ok
        S: 250 5 octets
        S: 250 bob has it
        S: 452 eve is full
    """,
        recipients=(BOB, "who@b.example", EVE),
        content=PIECES[:2],
        lmtp=True,
    )
    assert receipt.states() == {BOB: "delivered", "who@b.example": "failed", EVE: "waiting"}
    assert receipt.session.idle


def test_lmtp_answers_the_last_chunk_once_where_nobody_was_accepted(chunks):
    """503, as to DATA (RFC 2033, 4.2)."""
    receipt = chunks(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 550 no
        S: 550 no
        S: 503 RCPT first
        C: RSET
        S: 250 ok
    """,
        recipients=(BOB, EVE),
        lmtp=True,
    )
    assert receipt.states() == {BOB: "failed", EVE: "failed"}
    assert receipt.session.idle


@pytest.mark.parametrize("end", ["EOF", "S: 421 bye"])
def test_lmtp_lost_between_the_answers_keeps_those_that_came(chunks, end):
    """Bob's delivery stands, that to the others is in doubt; but not what was sent ahead, after a 421."""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: RCPT TO:<joe@b.example>
        C: BDAT 7 LAST
        C: hello
        C: RSET
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: BDAT 7 LAST
        C: hello
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 250 bob has it
        {end}
    """,
        recipients=(BOB, EVE, "joe@b.example"),
        lmtp=True,
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert type(receipt.error) is ConfirmationLost
    assert [(outcome.address, outcome.state) for outcome in receipt.error.outcomes] == [(BOB, State.DELIVERED)]
    assert type(receipt.failed.ahead[0]) is (ConfirmationLost if end == "EOF" else HostFailure)


@pytest.mark.parametrize("offers", ["PIPELINING", "PIPELINING\nCHUNKING"])
def test_lmtp_that_takes_leave_instead_of_the_last_answer_leaves_nobody_in_doubt(chunks, offers):
    """Bob's delivery stands, that to Eve has not taken place; in chunks as after DATA."""
    envelope = "C: MAIL FROM:<ann@a.example>\nC: RCPT TO:<bob@b.example>\nC: RCPT TO:<eve@b.example>\n"
    replies = "S: 250 ok\nS: 250 ok\nS: 250 ok\n"
    if "CHUNKING" in offers:
        script = f"{envelope}C: BDAT 7 LAST\nC: hello\n{replies}"
    else:
        script = f"{envelope}C: DATA\n{replies}S: 354 go\nC: hello\nC: .\n"
    receipt = chunks(f"{script}S: 250 bob has it\nS: 421 bye", recipients=(BOB, EVE), lmtp=True, offers=offers)
    assert type(receipt.error) is HostFailure
    assert [(outcome.address, outcome.state) for outcome in receipt.error.outcomes] == [(BOB, State.DELIVERED)]


@pytest.mark.parametrize("accepted", [1, 2])
def test_lmtp_is_not_gone_on_with_where_nobody_knows_how_often_it_answers(chunks, accepted):
    """A chunk was refused when the last was out: is that answered once, or for each of several recipients?"""
    receipt = chunks(
        f"""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: BDAT 5
        C: one
        MORE
        C: BDAT 5 LAST
        C: two
        S: 250 ok
        S: 250 ok
        S: {"250 ok" if accepted == 2 else "550 no"}
        S: 452 disk full
        {"" if accepted == 2 else "S: 503 out of turn"}
        {"" if accepted == 2 else "C: RSET"}
        {"" if accepted == 2 else "S: 250 ok"}
    """,
        recipients=(BOB, EVE),
        content=PIECES[:2],
        lmtp=True,
    )
    assert receipt.outcomes[0][0].phase is Phase.BODY
    assert receipt.events[-1].close is receipt.session.closed is (accepted == 2)


# phases


def test_the_phase_is_body_until_the_last_chunk_and_confirm_from_then_on():
    """Whatever is answered meanwhile: it names the deadline for what the driver is about."""
    session = ready()
    assert session.phase is Phase.MAIL
    session.send(Envelope(ANN, (BOB,)))
    assert session.phase is Phase.BODY
    session.send_body(b"one\r\n", last=False)
    session.data_to_send()
    assert session.phase is Phase.BODY
    session.receive_data(b"250 ok\r\n250 ok\r\n250 ok\r\n")
    assert session.phase is Phase.BODY
    assert not session.waiting
    session.send_body(b"two\r\n", last=True)
    assert session.phase is Phase.CONFIRM
    session.data_to_send()
    assert session.phase is Phase.CONFIRM
    assert session.waiting
    session.receive_data(b"452 no\r\n")
    assert session.phase is Phase.MAIL
    session.data_to_send()
    session.receive_data(b"250 ok\r\n")
    assert session.idle
