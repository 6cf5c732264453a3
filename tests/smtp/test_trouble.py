"""Every kind of trouble in every phase, and whose fault it is."""

from __future__ import annotations

from typing import Final

import pytest

from service.message.outcome import Phase, State
from service.smtp.auth import Credentials
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, BrokenConfirmation, ConfirmationLost, DeliveryError, HostFailure
from service.smtp.events import BodyWanted, Failed, Finished
from service.smtp.options import SessionOptions
from service.smtp.session import Session

ROAD: Final = {
    Phase.GREETING: [],
    Phase.EHLO: ["220 hi"],
    Phase.TLS: ["220 hi", "250-mx\r\n250 STARTTLS"],
    Phase.AUTH: ["220 hi", "250-mx\r\n250 AUTH PLAIN"],
    Phase.MAIL: ["220 hi", "250 mx"],
    Phase.RCPT: ["220 hi", "250 mx", "250 ok"],
    Phase.DATA: ["220 hi", "250 mx", "250 ok", "250 ok"],
    Phase.BODY: ["220 hi", "250 mx", "250 ok", "250 ok", "354 go"],
    Phase.CONFIRM: ["220 hi", "250 mx", "250 ok", "250 ok", "354 go"],
}
"""What the server says until the client waits in a phase."""

HANDSHAKE: Final = [Phase.GREETING, Phase.EHLO, Phase.TLS, Phase.AUTH]
TRANSACTION: Final = [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY, Phase.CONFIRM]


def waiting_in(phase: Phase) -> Session:
    """A session that has come as far as `phase`; one recipient, one command at a time."""
    credentials = Credentials("user", "secret") if phase is Phase.AUTH else None
    tls = "verify" if phase is Phase.TLS else "none"
    session = Session(SessionOptions(hostname="me.example", tls=tls, credentials=credentials, host="mx"))
    for line in ROAD[phase]:
        events = session.receive_data(f"{line}\r\n".encode())
        if session.idle:
            session.send(Envelope("ann@a.example", ("bob@b.example",)))
        if BodyWanted() in events:
            session.send_body(b"hello\r\n", last=phase is Phase.CONFIRM)
        session.data_to_send()
    assert session.phase is phase
    return session


def end_of(session: Session, trouble: str) -> DeliveryError:
    """How the conversation ends: the only event is `Failed`, and the session is dead from then on."""
    if trouble == "EOF":
        (event,) = session.connection_lost("reset by peer")
    elif trouble == "TIMEOUT":
        (event,) = session.timed_out()
    else:
        (event,) = session.receive_data(trouble.encode() + b"\r\n")
    assert isinstance(event, Failed)
    assert session.closed
    assert session.data_to_send() == b""
    assert session.receive_data(b"250 ok\r\n") == []
    assert session.timed_out() == []
    return event.error


@pytest.mark.parametrize("phase", HANDSHAKE)
@pytest.mark.parametrize("reply", ["450 4.0.0 no", "550 5.0.0 no"])
def test_a_refusal_in_the_handshake_is_the_hosts_fault(phase, reply):
    """With the server's code; a 5xx to EHLO is answered by HELO first."""
    session = waiting_in(phase)
    if phase is Phase.EHLO and reply.startswith("5"):
        assert session.receive_data(reply.encode() + b"\r\n") == []
        assert session.data_to_send() == b"HELO me.example\r\n"
    error = end_of(session, reply)
    assert type(error) is HostFailure
    assert (error.phase, error.code, error.enhanced, error.text) == (phase, int(reply[:3]), reply[4:9], "no")


@pytest.mark.parametrize("phase", TRANSACTION)
@pytest.mark.parametrize(("reply", "state"), [("450 4.0.0 no", State.WAITING), ("552 5.0.0 no", State.FAILED)])
def test_a_refusal_in_the_transaction_is_an_outcome(phase, reply, state):
    """For the recipient, in that phase; before the content's end the connection is of no more use."""
    session = waiting_in(phase)
    events = session.receive_data(reply.encode() + b"\r\n")
    if phase in (Phase.RCPT, Phase.DATA):
        assert session.data_to_send() == b"RSET\r\n"
        assert events == []
        events = session.receive_data(b"250 ok\r\n")
    (event,) = events
    assert isinstance(event, Finished)
    (outcome,) = event.outcomes
    assert (outcome.state, outcome.phase, outcome.code, outcome.host) == (state, phase, int(reply[:3]), "mx")
    assert event.close is session.closed is (phase is Phase.BODY)
    if phase is Phase.BODY:
        session.send_body(b"more", last=True)
        session.quit()
    assert session.data_to_send() == b""


@pytest.mark.parametrize("phase", list(ROAD))
def test_a_421_is_the_hosts_fault_anywhere(phase):
    """Also as the answer to the final dot: it says that the message was not taken."""
    error = end_of(waiting_in(phase), "421 4.3.2 closing")
    assert type(error) is HostFailure
    assert (error.phase, error.code, error.text) == (phase, 421, "closing")


@pytest.mark.parametrize("phase", list(ROAD))
@pytest.mark.parametrize("trouble", ["EOF", "TIMEOUT"])
def test_silence_and_departure_are_the_hosts_fault(phase, trouble):
    """And after the final dot the message is in doubt."""
    error = end_of(waiting_in(phase), trouble)
    assert type(error) is (ConfirmationLost if phase is Phase.CONFIRM else HostFailure)
    assert (error.phase, error.code) == (phase, None)
    assert ("reset by peer" if trouble == "EOF" else "timed out") in error.text


NO_REPLY: Final = ["hello", "199 ok", "600 ok", "250-ok\r\n251 ok", "x" * 9000, "\0\x1b", "250\xa0ok", "999"]
NO_ANSWER: Final = [
    *((phase, "354 go on") for phase in ROAD if phase not in (Phase.DATA, Phase.AUTH)),
    (Phase.DATA, "250 what"),
    (Phase.BODY, "250 what"),
]


@pytest.mark.parametrize(
    ("phase", "octets"), [*((phase, octets) for phase in ROAD for octets in NO_REPLY), *NO_ANSWER], ids=ascii
)
def test_nonsense_is_a_broken_answer(phase, octets):
    """What is no reply anywhere, and replies that are no answer to what was asked."""
    error = end_of(waiting_in(phase), octets)
    assert type(error) is (BrokenConfirmation if phase is Phase.CONFIRM else BrokenAnswer)
    assert error.phase is phase
    assert error.text.isascii()
    assert error.text.isprintable()


def test_a_final_dot_that_was_never_fetched_is_not_in_doubt():
    """The session knows that the server cannot have seen it."""
    session = waiting_in(Phase.BODY)
    session.send_body(b"", last=True)
    (event,) = session.connection_lost("reset")
    assert type(event.error) is HostFailure


def test_an_answer_in_the_middle_of_the_content_counts_for_those_who_were_accepted():
    """The final dot is taken back if it has not gone yet."""
    session = waiting_in(Phase.BODY)
    session.send_body(b"more", last=True)
    (event,) = session.receive_data(b"552 5.3.4 too big\r\n")
    assert event.close
    assert event.outcomes[0].enhanced == "5.3.4"
    assert session.data_to_send() == b""


def test_an_envelope_sent_ahead_of_an_early_answer_fails_with_the_connection():
    """It was never looked at."""
    session = waiting_in(Phase.BODY)
    session.send_body(b"", last=True)
    session.send(Envelope("", ("eve@b.example",)))
    finished, failed = session.receive_data(b"552 5.3.4 too big\r\n")
    assert isinstance(finished, Finished)
    assert isinstance(failed, Failed)
    assert failed.error.outcomes == ()


def test_a_server_that_sends_without_end_is_not_heard_to_the_end():
    """A hundred megabytes cost no more than a reply's limit."""
    session = waiting_in(Phase.MAIL)
    piece = b"250-and another thing\r\n" * 3000
    (event,) = session.receive_data(piece)
    assert type(event.error) is BrokenAnswer
    assert session.receive_data(piece * 1000) == []
