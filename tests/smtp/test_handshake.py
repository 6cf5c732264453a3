"""From the greeting to Ready: EHLO and HELO, and what a server says instead."""

from __future__ import annotations

import pytest

from service.message.outcome import Phase
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, HostFailure
from service.smtp.options import SessionOptions
from service.smtp.session import OutOfStepError, Session


def test_a_greeting_of_several_lines_is_answered_with_ehlo(meet):
    """The handshake is done when EHLO is answered, and knows what is offered."""
    talk = meet("""
        S: 220-mx.example
        S: 220 at your service
        C: EHLO me.example
        S: 250-mx.example at your service
        S: 250-pipelining
        S: 250-SIZE 1000
        S: 250-8BITMIME
        S: 250-AUTH=LOGIN
        S: 250-AUTH plain LOGIN
        S: 250 ENHANCEDSTATUSCODES
    """)
    offered = talk.session.extensions
    assert talk.ready
    assert talk.session.idle
    assert (offered.pipelining, offered.size_limit, offered.eight_bit_mime) == (True, 1000, True)
    assert offered.auth == {"LOGIN", "PLAIN"}
    assert not offered.smtputf8
    assert not talk.session.secure


def test_a_server_that_knows_no_ehlo_is_greeted_with_helo(meet):
    """Then nothing is offered, whatever the lines of the answer look like."""
    talk = meet("""
        S: 220 mx.example
        C: EHLO me.example
        S: 502 what?
        C: HELO me.example
        S: 250-mx.example
        S: 250 PIPELINING
    """)
    assert talk.ready
    assert not talk.session.extensions.pipelining


@pytest.mark.parametrize(
    ("script", "phase", "code"),
    [
        ("S: 554 no mail here", Phase.GREETING, 554),
        ("S: 450 too many", Phase.GREETING, 450),
        ("S: 421 closing", Phase.GREETING, 421),
        ("S: 220 hi\nC: EHLO me.example\nS: 521 no mail here", Phase.EHLO, 521),
        ("S: 220 hi\nC: EHLO me.example\nS: 450 later", Phase.EHLO, 450),
        ("S: 220 hi\nC: EHLO me.example\nS: 500 what?\nC: HELO me.example\nS: 550 go away", Phase.EHLO, 550),
    ],
)
def test_a_refused_handshake_is_the_hosts_fault(meet, script, phase, code):
    """Whatever the code, no message is to blame."""
    talk = meet(script)
    assert type(talk.error) is HostFailure
    assert (talk.error.phase, talk.error.code, talk.error.host) == (phase, code, "mx.example:25")
    assert not talk.ready


def test_lmtp_does_not_fall_back(meet):
    """There is no HELO in LMTP."""
    talk = meet("S: 220 hi\nC: LHLO me.example\nS: 500 what?", lmtp=True)
    assert talk.error.code == 500


def test_an_answer_to_a_command_that_was_not_sent_yet_is_broken(meet):
    """A server that answers EHLO together with its greeting is not in step."""
    talk = meet("S: 220 hi\nS: 250 and hi again")
    assert isinstance(talk.error, BrokenAnswer)
    assert talk.error.phase is Phase.EHLO


def test_tls_from_the_start_comes_before_the_greeting(meet):
    """The session waits in phase tls, and is secure from then on."""
    talk = meet("TLS\nS: 220 hi\nC: EHLO me.example\nS: 250 ok", secure=True, tls="verify")
    assert talk.ready
    assert talk.session.secure


def test_a_failed_handshake_of_tls_from_the_start_is_the_hosts_fault(meet):
    """The text is what the driver said, made safe."""
    talk = meet("NO TLS certificate expired\x1b", secure=True, tls="verify")
    assert (talk.error.phase, talk.error.text) == (Phase.TLS, "certificate expired\\x1b")


def test_a_host_name_that_cannot_be_said_is_refused_at_once():
    """It would end the command and begin another."""
    with pytest.raises(ValueError, match="host name"):
        Session(SessionOptions(hostname="me.example\r\nMAIL FROM:<>"))


def test_the_phase_names_what_is_waited_for(meet):
    """The driver's deadline goes by it, and by the number of replies."""
    session = Session(SessionOptions(hostname="me.example", tls="none"))
    assert (session.phase, session.waiting, session.replies) == (Phase.GREETING, True, 0)
    session.receive_data(b"220 h")
    assert (session.phase, session.replies) == (Phase.GREETING, 0)
    session.receive_data(b"i\r\n")
    assert (session.phase, session.waiting, session.replies) == (Phase.EHLO, True, 1)
    assert session.data_to_send() == b"EHLO me.example\r\n"
    session.receive_data(b"250 ok\r\n")
    assert (session.phase, session.waiting, session.replies) == (Phase.MAIL, False, 2)


def test_quit_is_said_where_it_is_understood(meet):
    """Idle, or after a refusal in good order; its answer is not heard."""
    talk = meet("S: 220 hi\nC: EHLO me.example\nS: 250 ok")
    talk.session.quit()
    assert talk.session.data_to_send() == b"QUIT\r\n"
    assert talk.session.receive_data(b"221 bye\r\n") == []
    assert talk.session.connection_lost("EOF") == []
    refused = meet("S: 554 no")
    refused.session.quit()
    assert refused.session.data_to_send() == b"QUIT\r\n"
    refused.session.quit()
    assert refused.session.data_to_send() == b""


IDLE = "S: 220 hi\nC: EHLO me.example\nS: 250 ok\n"


@pytest.mark.parametrize("script", ["S: 421 closing", "S: hello", "EOF", "TIMEOUT", IDLE + "S: 250 ok", IDLE + "EOF"])
def test_quit_is_not_said_to_a_server_that_is_gone_or_out_of_step(meet, script):
    """Nothing is written after anything unexpected."""
    talk = meet(script)
    talk.session.quit()
    assert talk.session.data_to_send() == b""


def test_quit_is_not_said_in_the_middle_of_something(meet):
    """A server that waits for content would take it for content."""
    talk = meet("S: 220 hi\nC: EHLO me.example")
    talk.session.quit()
    assert talk.session.data_to_send() == b""
    talk = meet(IDLE)
    talk.session.send(Envelope("ann@a.example", ("bob@b.example",)))
    for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
        talk.session.data_to_send()
        talk.session.receive_data(reply)
    talk.session.quit()
    assert talk.session.data_to_send() == b""
    assert talk.session.closed


def test_misuse_is_the_drivers_fault_not_the_servers(meet):
    """It raises instead of sending something out of step."""
    session = Session(SessionOptions(hostname="me.example"))
    with pytest.raises(OutOfStepError):
        session.send(None)
    with pytest.raises(OutOfStepError):
        session.send_body(b"", last=True)
    with pytest.raises(OutOfStepError):
        session.tls_established()
