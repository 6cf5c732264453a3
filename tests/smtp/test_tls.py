"""STARTTLS by the route's policy: what must never leave in the clear does not, whatever the server says."""

from __future__ import annotations

import pytest

from service.message.outcome import Phase
from service.smtp.errors import BrokenAnswer, HostFailure
from service.smtp.extensions import NONE

GREETED = """
    S: 220 hi
    C: EHLO me.example
"""
OFFERED = (
    GREETED
    + """
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250-AUTH PLAIN
    S: 250 STARTTLS
"""
)
POLICIES = ["opportunistic", "encrypt", "verify"]


@pytest.mark.parametrize("tls", POLICIES)
def test_after_starttls_everything_is_asked_anew(meet, tls):
    """A second EHLO is said, and what was offered in the clear is forgotten."""
    talk = meet(
        OFFERED + "C: STARTTLS\nS: 220 go\nTLS\nC: EHLO me.example\nS: 250-mx.example\nS: 250 SIZE 5",
        tls=tls,
    )
    assert talk.wants_tls
    assert talk.ready
    assert talk.session.secure
    assert not talk.session.extensions.pipelining
    assert talk.session.extensions.size_limit == 5


def test_tls_none_does_not_ask_for_it(meet):
    """The policy is in so many words."""
    assert meet(OFFERED, tls="none").ready


def test_what_was_offered_in_the_clear_is_not_believed_until_it_is_said_again(meet):
    """Between the TLS handshake and the answer to the second EHLO nothing is known."""
    talk = meet(OFFERED + "C: STARTTLS\nS: 220 go\nTLS\nC: EHLO me.example", tls="verify")
    assert talk.session.extensions == NONE
    assert not talk.ready


@pytest.mark.parametrize("tls", ["encrypt", "verify"])
@pytest.mark.parametrize(
    "script",
    [
        GREETED + "S: 250 mx.example",
        GREETED + "S: 500 what?\nC: HELO me.example\nS: 250 STARTTLS",
    ],
)
def test_required_tls_that_is_not_offered_is_the_hosts_fault(meet, tls, script):
    """Nothing but EHLO and HELO has left; the text says what the route wants."""
    talk = meet(script, tls=tls, password="secret")
    assert type(talk.error) is HostFailure
    assert talk.error.phase is Phase.TLS
    assert talk.error.text == f"the server does not offer STARTTLS, and the route wants tls: {tls}"


@pytest.mark.parametrize("tls", ["encrypt", "verify"])
@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "502 5.5.1 no", "421 4.3.2 bye"])
def test_required_tls_that_is_refused_is_the_hosts_fault(meet, tls, reply):
    """With the server's own words."""
    talk = meet(OFFERED + f"C: STARTTLS\nS: {reply}", tls=tls)
    assert type(talk.error) is HostFailure
    assert (talk.error.phase, str(talk.error.code)) == (Phase.TLS, reply[:3])


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "502 5.5.1 no"])
def test_opportunistic_tls_that_is_refused_goes_on_in_the_clear(meet, reply):
    """On the same connection: nothing was harmed."""
    talk = meet(OFFERED + f"C: STARTTLS\nS: {reply}", tls="opportunistic")
    assert talk.ready
    assert not talk.session.secure
    assert talk.session.extensions.pipelining
    assert reply[:3] in talk.session.tls_refusal


def test_opportunistic_tls_that_is_not_offered_goes_on_in_the_clear(meet):
    """And says why."""
    talk = meet(GREETED + "S: 250 mx.example", tls="opportunistic")
    assert talk.ready
    assert talk.session.tls_refusal == "STARTTLS is not offered"


def test_opportunistic_tls_that_failed_before_is_not_tried_again(meet):
    """The driver has come back on a new connection."""
    assert meet(OFFERED, tls="opportunistic", skip_starttls=True).ready


@pytest.mark.parametrize("tls", ["encrypt", "verify"])
def test_required_tls_is_never_skipped(meet, tls):
    """Whatever the driver says."""
    assert meet(OFFERED + "C: STARTTLS\nS: 220 go", tls=tls, skip_starttls=True).wants_tls


@pytest.mark.parametrize("tls", POLICIES)
@pytest.mark.parametrize("injected", ["250 ok", "235 welcome", "x"])
def test_octets_behind_the_answer_to_starttls_end_the_attempt(meet, tls, injected):
    """They were put there by someone in the clear, to be believed inside TLS."""
    talk = meet(OFFERED + f"C: STARTTLS\nS: 220 go\nS: {injected}", tls=tls)
    assert type(talk.error) is BrokenAnswer
    assert talk.error.phase is Phase.TLS
    assert not talk.wants_tls


@pytest.mark.parametrize("tls", POLICIES)
def test_octets_before_the_tls_handshake_end_the_attempt(meet, tls):
    """Also if they come in a read of their own."""
    talk = meet(OFFERED + "C: STARTTLS\nS: 220 go", tls=tls)
    talk.feed(b"2")
    assert type(talk.error) is BrokenAnswer
    assert talk.error.phase is Phase.TLS
    talk.session.tls_established()
    assert not talk.session.secure
    assert talk.session.data_to_send() == b""


@pytest.mark.parametrize("tls", POLICIES)
@pytest.mark.parametrize(
    ("script", "text"), [("NO TLS wrong name", "wrong name"), ("TIMEOUT", "timed out"), ("EOF", "lost")]
)
def test_a_tls_handshake_that_fails_is_told_as_such(meet, tls, script, text):
    """In phase tls, so that an opportunistic driver knows when to come back in the clear."""
    talk = meet(OFFERED + f"C: STARTTLS\nS: 220 go\n{script}", tls=tls)
    assert type(talk.error) is HostFailure
    assert talk.error.phase is Phase.TLS
    assert text in talk.error.text


@pytest.mark.parametrize(
    "script", [GREETED + "S: 250-mx.example\nS: 250 AUTH PLAIN", OFFERED + "C: STARTTLS\nS: 454 not now"]
)
def test_opportunistic_never_sends_a_password_in_the_clear(meet, script):
    """Nor mail without it."""
    talk = meet(script, tls="opportunistic", password="secret")
    assert type(talk.error) is HostFailure
    assert talk.error.phase is Phase.AUTH
    assert "in the clear" in talk.error.text
    assert not talk.ready


def test_opportunistic_that_skips_tls_does_not_send_the_password_either(meet):
    """Coming back in the clear is for mail without a password only."""
    talk = meet(OFFERED, tls="opportunistic", skip_starttls=True, password="secret")
    assert talk.error.phase is Phase.AUTH
