"""From MAIL to the answer to the final dot."""

from __future__ import annotations

from service.message.outcome import Outcome, Phase, State
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, BrokenConfirmation, ConfirmationLost, HostFailure
from service.smtp.events import Failed, Finished

ANN, BOB, EVE = "ann@a.example", "bob@b.example", "eve@b.example"


def test_with_pipelining_the_envelope_is_one_write(talk):
    """MAIL, every RCPT and DATA leave together, and the content follows the 354."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 2.1.0 ok
        S: 250 2.1.5 ok
        S: 250 2.1.5 ok
        S: 354 go
        C: hello
        C: .
        S: 250 2.0.0 queued as 17
    """)
    bob = Outcome(BOB, State.DELIVERED, 250, "2.0.0", "queued as 17", "mx.example:25", Phase.CONFIRM)
    eve = Outcome(EVE, State.DELIVERED, 250, "2.0.0", "queued as 17", "mx.example:25", Phase.CONFIRM)
    assert receipt.outcomes == [(bob, eve)]
    assert receipt.session.idle


def test_without_pipelining_each_command_waits_for_its_answer(talk):
    """Nothing is written ahead to a server that does not offer PIPELINING."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 250 ok
        C: RCPT TO:<eve@b.example>
        S: 251 will forward
        C: DATA
        S: 354 go
        C: hello
        C: .
        S: 250 ok
    """,
        offers="",
    )
    assert receipt.states() == {BOB: "delivered", EVE: "delivered"}


def test_each_recipient_has_its_own_fate(talk):
    """A 450 for one recipient does not hold back the other."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 450 4.2.0 greylisted
        S: 354 go
        C: hello
        C: .
        S: 250 ok
    """)
    assert receipt.states() == {BOB: "delivered", EVE: "waiting"}
    eve = receipt.outcomes[0][1]
    assert (eve.code, eve.enhanced, eve.text, eve.phase) == (450, "4.2.0", "greylisted", Phase.RCPT)


def test_the_final_dot_refused_is_an_answer_for_those_who_were_accepted(talk):
    """A 5xx to RCPT stands; a 4xx to the final dot is for the others."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 550 5.1.1 who?
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 451 4.3.0 later
    """)
    assert receipt.states() == {BOB: "failed", EVE: "waiting"}
    assert [outcome.phase for outcome in receipt.outcomes[0]] == [Phase.RCPT, Phase.CONFIRM]
    assert receipt.session.idle


def test_when_all_recipients_are_refused_one_by_one_no_data_is_sent(talk):
    """DATA is taken back, RSET clears the sender, and only then the envelope is finished."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 550 no
        C: RCPT TO:<eve@b.example>
        S: 450 not now
        C: RSET
        S: 250 ok
    """,
        offers="",
    )
    assert receipt.states() == {BOB: "failed", EVE: "waiting"}
    assert receipt.session.idle


def test_when_data_went_ahead_of_the_refusals_its_refusal_is_heard(talk):
    """Pipelined, DATA is answered 554 when nobody was accepted: no outcome changes, RSET follows."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 450 not now
        S: 554 no valid recipients
        C: RSET
        S: 250 ok
    """)
    assert receipt.states() == {BOB: "failed", EVE: "waiting"}
    assert {outcome.phase for outcome in receipt.outcomes[0]} == {Phase.RCPT}


def test_a_354_for_nobody_is_answered_with_a_lone_dot(talk):
    """RFC 2920, 3.1: the content is not sent, and whatever is said about the empty message changes nothing."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 550 no
        S: 354 go
        C: .
        S: 250 thanks for nothing
    """)
    assert receipt.states() == {BOB: "failed", EVE: "failed"}
    assert receipt.session.idle


def test_mail_refused_is_everybodys_answer(talk):
    """What the server says to the commands behind it does not matter; there is nothing to reset."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 451 4.7.1 slow down
        S: 503 5.5.1 MAIL first
        S: 503 5.5.1 MAIL first
        S: 503 5.5.1 RCPT first
    """)
    assert receipt.states() == {BOB: "waiting", EVE: "waiting"}
    assert {outcome.phase for outcome in receipt.outcomes[0]} == {Phase.MAIL}
    assert receipt.session.idle


def test_mail_refused_without_pipelining_ends_the_envelope(talk):
    """RCPT and DATA are never sent."""
    receipt = talk("C: MAIL FROM:<ann@a.example>\nS: 550 not from you", offers="")
    assert receipt.states() == {BOB: "failed", EVE: "failed"}


def test_a_server_that_refuses_mail_and_takes_the_rest_is_not_given_an_empty_message(talk):
    """A lone dot could deliver nothing to somebody there: the connection ends instead, MAIL's answer stands."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 550 no
        S: 250 ok
        S: 250 ok
        S: 354 go
    """)
    assert isinstance(receipt.error, BrokenAnswer)
    assert [outcome.state for outcome in receipt.error.outcomes] == [State.FAILED, State.FAILED]


def test_recipients_taken_after_mail_was_refused_are_reset(talk):
    """The server is odd, but in step: nothing of this envelope may be left for the next."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 550 no
        S: 250 ok
        S: 250 ok
        S: 503 MAIL first
        C: RSET
        S: 250 ok
    """)
    assert receipt.states() == {BOB: "failed", EVE: "failed"}


def test_data_refused_is_an_answer_for_those_who_were_accepted(talk):
    """A 4xx to DATA makes them wait, and the server is reset."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 no
        S: 451 busy
        C: RSET
        S: 250 ok
    """)
    assert receipt.states() == {BOB: "waiting", EVE: "failed"}
    assert [outcome.phase for outcome in receipt.outcomes[0]] == [Phase.DATA, Phase.RCPT]


def test_a_refused_reset_keeps_the_answers_and_gives_up_the_connection(talk):
    """The outcomes are sound, the session is not."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 550 no
        C: RSET
        S: 500 what?
    """,
        offers="",
        recipients=(BOB,),
    )
    assert receipt.states() == {BOB: "failed"}
    assert receipt.events[-1] == Finished(receipt.outcomes[0], close=True)
    assert receipt.session.closed
    assert not receipt.session.takes_envelope


def test_a_421_seals_nothing_but_what_was_sealed_before(talk):
    """The recipient that was refused has its outcome, the others have the host's failure."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 550 5.1.1 who?
        S: 421 4.3.2 going down
    """)
    error = receipt.error
    assert type(error) is HostFailure
    assert (error.phase, error.code, error.enhanced, error.text) == (Phase.RCPT, 421, "4.3.2", "going down")
    assert error.host == "mx.example:25"
    assert [(outcome.address, outcome.state) for outcome in error.outcomes] == [(BOB, State.FAILED)]


def test_a_connection_lost_after_the_final_dot_is_in_doubt(talk):
    """The server may have the message: the error says so, and keeps the refusal that came before."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 no
        S: 354 go
        C: hello
        C: .
        EOF
    """)
    assert type(receipt.error) is ConfirmationLost
    assert receipt.error.phase is Phase.CONFIRM
    assert receipt.error.text == "connection lost before the answer to the final dot: EOF"
    assert [outcome.address for outcome in receipt.error.outcomes] == [EVE]


def test_a_421_to_the_final_dot_is_an_answer(talk):
    """The server says that it does not take the message: the host is at fault, and nothing is in doubt."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 421 out of here
    """,
        recipients=(BOB,),
    )
    assert type(receipt.error) is HostFailure


def test_nonsense_after_the_final_dot_is_in_doubt(talk):
    """A 354 there is a broken answer, and the message may be delivered all the same."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 354 go on
    """,
        recipients=(BOB,),
    )
    assert type(receipt.error) is BrokenConfirmation
    assert receipt.error.text == "354 is no answer to the final dot: go on"


def test_the_next_envelope_travels_with_the_end_of_the_last(talk):
    """With PIPELINING it is sent ahead in the write of the final dot, and each is answered in its turn."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 first
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 250 second
    """,
        recipients=(BOB,),
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert [[outcome.text for outcome in outcomes] for outcomes in receipt.outcomes] == [["first"], ["second"]]


def test_an_envelope_sent_ahead_waits_where_pipelining_is_not_offered(talk):
    """It may be given all the same; its MAIL goes when the former is answered."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 250 ok
        C: DATA
        S: 354 go
        C: hello
        C: .
        S: 250 first
        C: MAIL FROM:<>
        S: 550 no bounces
    """,
        recipients=(BOB,),
        more=[Envelope("", (EVE,))],
        ahead=True,
        offers="",
    )
    assert [outcomes[0].state for outcomes in receipt.outcomes] == [State.DELIVERED, State.FAILED]


def test_what_was_sent_ahead_is_not_in_doubt_with_the_message_before_it(talk):
    """The connection dies after the final dot: the first may have arrived, the second has not."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        C: MAIL FROM:<>
        C: RCPT TO:<eve@b.example>
        C: DATA
        EOF
    """,
        recipients=(BOB,),
        more=[Envelope("", (EVE,))],
        ahead=True,
    )
    assert type(receipt.error) is ConfirmationLost
    (second,) = receipt.failed.ahead
    assert type(second) is HostFailure
    assert second.phase is Phase.MAIL


def test_an_envelope_that_cannot_be_sent_is_finished_in_its_turn(talk):
    """Sent ahead and refused by ourselves, it still waits for the answer to the one before."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example> SIZE=7
        C: RCPT TO:<bob@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 250 ok
    """,
        recipients=(BOB,),
        offers="PIPELINING\nSIZE 1000",
        size=7,
        more=[Envelope(ANN, (EVE,), size=1001)],
        ahead=True,
    )
    assert [outcomes[0].address for outcomes in receipt.outcomes] == [BOB, EVE]
    assert receipt.outcomes[1][0].enhanced == "5.3.4"


def test_lmtp_answers_for_each_accepted_recipient(talk):
    """RFC 2033: after the final dot, one reply for each that was accepted, in order."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<who@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 who?
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 250 bob has it
        S: 452 eve is full
    """,
        recipients=(BOB, "who@b.example", EVE),
        lmtp=True,
    )
    assert receipt.states() == {BOB: "delivered", "who@b.example": "failed", EVE: "waiting"}
    assert receipt.session.idle


def test_lmtp_lost_between_the_answers_keeps_those_that_came(talk):
    """Bob's delivery stands, Eve's is in doubt."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 250 bob has it
        EOF
    """,
        lmtp=True,
    )
    assert type(receipt.error) is ConfirmationLost
    assert [(outcome.address, outcome.state) for outcome in receipt.error.outcomes] == [(BOB, State.DELIVERED)]


def test_a_reply_on_an_idle_connection_ends_it(talk):
    """Nobody asked: nothing said from there on can be matched to a question."""
    receipt = talk("""
        C: MAIL FROM:<ann@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<eve@b.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go
        C: hello
        C: .
        S: 250 ok
        S: 250 ok again
    """)
    assert receipt.states() == {BOB: "delivered", EVE: "delivered"}
    assert isinstance(receipt.error, BrokenAnswer)
    assert receipt.error.text == "250 is no answer to anything that was asked: ok again"
    assert isinstance(receipt.events[-1], Failed)


def test_the_taking_leave_of_an_idle_connection_is_a_host_failure(talk):
    """A server that ends an idle connection with 421 is heard between two messages."""
    receipt = talk("C: MAIL FROM:<ann@a.example>\nS: 550 no\nS: 421 idle for too long", recipients=(BOB,), offers="")
    assert type(receipt.error) is HostFailure
    assert receipt.error.code == 421
