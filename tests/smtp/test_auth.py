"""AUTH: PLAIN and LOGIN, what servers ask beyond that, and no mail without it."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest

from service.message.outcome import Phase
from service.smtp.auth import Credentials
from service.smtp.errors import BrokenAnswer, HostFailure


def offering(auth: str) -> str:
    return f"S: 220 hi\nC: EHLO me.example\nS: 250-mx.example\nS: 250 {auth}\n"


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def test_plain_is_said_at_once(meet):
    """The initial response saves a round trip; octets beyond ASCII go as UTF-8."""
    talk = meet(
        offering("AUTH LOGIN PLAIN XOAUTH2")
        + f"C: AUTH PLAIN {encoded(chr(0) + 'user' + chr(0) + 'pässword')}\nS: 235 ok",
        password="pässword",
    )
    assert talk.ready


def test_login_answers_two_questions(meet):
    """Whatever their words are."""
    talk = meet(
        offering("AUTH LOGIN")
        + f"""
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: {encoded("user")}
        S: 334
        C: {encoded("secret")}
        S: 235 ok
    """,
        password="secret",
    )
    assert talk.ready


def test_the_old_way_to_offer_auth_is_understood(meet):
    """Servers older than RFC 2554 put an equals sign."""
    assert meet(offering("AUTH=LOGIN") + "C: AUTH LOGIN", password="secret").session.extensions.auth == {"LOGIN"}


def test_a_plain_message_too_long_for_the_command_waits_for_the_challenge(meet):
    """RFC 4954, 4: it goes on a line of its own."""
    password = "x" * 500
    talk = meet(
        offering("AUTH PLAIN")
        + f"C: AUTH PLAIN\nS: 334 \nC: {encoded(chr(0) + 'user' + chr(0) + password)}\nS: 235 ok",
        password=password,
    )
    assert talk.ready


def test_a_challenge_too_many_is_cancelled(meet):
    """With "*"; the refusal that follows is the host's fault, told as what happened."""
    talk = meet(
        offering("AUTH PLAIN")
        + f"C: AUTH PLAIN {encoded(chr(0) + 'user' + chr(0) + 'secret')}\nS: 334 more\nC: *\nS: 501 5.7.0 cancelled",
        password="secret",
    )
    assert (talk.error.phase, talk.error.code) == (Phase.AUTH, 501)
    assert "asked for more than AUTH PLAIN has to say" in talk.error.text


def test_a_success_after_the_cancelling_is_broken(meet):
    """There is nothing that could have succeeded."""
    talk = meet(
        offering("AUTH LOGIN")
        + f"C: AUTH LOGIN\nS: 334 \nC: {encoded('user')}\nS: 334 \nC: {encoded('s')}\nS: 334 \nC: *\nS: 235 ok",
        password="s",
    )
    assert isinstance(talk.error, BrokenAnswer)


@pytest.mark.parametrize("reply", ["535 5.7.8 bad password", "454 4.7.0 later", "421 4.7.0 bye"])
def test_a_refused_password_is_the_hosts_fault(meet, reply):
    """The message is not to blame and waits."""
    talk = meet(offering("AUTH LOGIN") + f"C: AUTH LOGIN\nS: {reply}", password="secret")
    assert type(talk.error) is HostFailure
    assert (talk.error.phase, str(talk.error.code)) == (Phase.AUTH, reply[:3])
    assert not talk.ready


@pytest.mark.parametrize(
    ("offer", "text"),
    [
        ("SIZE", "the server does not offer AUTH, and the route has a password"),
        ("AUTH", "the server does not offer AUTH, and the route has a password"),
        ("AUTH GSSAPI NTLM", "the server offers AUTH GSSAPI NTLM; known here are PLAIN, LOGIN"),
    ],
)
def test_no_mail_goes_out_unauthenticated(meet, offer, text):
    """A route with a password means it."""
    talk = meet(offering(offer), password="secret")
    assert type(talk.error) is HostFailure
    assert (talk.error.phase, talk.error.text) == (Phase.AUTH, text)


@pytest.mark.parametrize("password", ["nul\0inside", "not text \ud800"])
def test_a_password_that_cannot_be_sent_is_told_without_showing_it(meet, password):
    """The mistake is in the configuration, and the text goes to the log."""
    talk = meet(offering("AUTH PLAIN"), password=password)
    assert talk.error.phase is Phase.AUTH
    assert "inside" not in str(talk.error)


def test_octets_of_the_environment_go_out_as_they_came_in(meet):
    """A password in Latin-1 that came by an environment variable stays what it is."""
    message = b64encode(b"\0user\0p\xe4ss").decode()
    assert meet(offering("AUTH PLAIN") + f"C: AUTH PLAIN {message}\nS: 235 ok", password="p\udce4ss").ready
    assert b64decode(message).endswith(b"p\xe4ss")


def test_under_tls_the_password_is_sent(meet):
    """After the second EHLO, by what that one offers."""
    talk = meet(
        """
        S: 220 hi
        C: EHLO me.example
        S: 250-mx.example
        S: 250-AUTH LOGIN
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go
        TLS
        C: EHLO me.example
        S: 250-mx.example
        S: 250 AUTH PLAIN
        C: AUTH PLAIN AHVzZXIAc2VjcmV0
        S: 235 ok
    """,
        tls="verify",
        password="secret",
    )
    assert talk.ready


def test_the_password_is_not_in_the_repr():
    """It would end up in a log."""
    assert "secret" not in repr(Credentials("user", "secret"))
