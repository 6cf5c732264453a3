"""What is declared in MAIL and RCPT, and which envelopes a server cannot serve."""

from __future__ import annotations

import pytest

from service.message.outcome import Phase

BOB = "bob@b.example"


def test_size_and_eight_bit_are_declared_where_offered(talk):
    """And nowhere else."""
    script = "C: MAIL FROM:<ann@a.example> SIZE=999 BODY=8BITMIME\nS: 550 no"
    talk(script, offers="SIZE\n8BITMIME", size=999, eight_bit=True)
    talk("C: MAIL FROM:<ann@a.example>\nS: 550 no", offers="", size=999, eight_bit=True)
    talk("C: MAIL FROM:<ann@a.example>\nS: 550 no", offers="SIZE\n8BITMIME", size=0, eight_bit=False)


@pytest.mark.parametrize("limit", ["SIZE", "SIZE 0", "SIZE 1000", "SIZE many", "SIZE " + "9" * 5000])
def test_a_message_within_the_limit_is_offered(talk, limit):
    """0, nothing and nonsense are no limit (RFC 1870)."""
    talk("C: MAIL FROM:<ann@a.example> SIZE=1000\nS: 550 no", offers=limit, size=1000)


def test_a_message_beyond_the_servers_limit_is_not_sent(talk):
    """Every recipient fails with 5.3.4 without a word to the server, and the session is free."""
    receipt = talk("", offers="SIZE 1000", size=1001)
    assert receipt.states() == {BOB: "failed", "eve@b.example": "failed"}
    outcome = receipt.outcomes[0][0]
    assert (outcome.code, outcome.enhanced, outcome.phase) == (None, "5.3.4", Phase.MAIL)
    assert outcome.text == "the message has 1001 octets, the server takes at most 1000"
    assert receipt.session.idle


def test_an_international_domain_goes_as_its_a_label(talk):
    """Without SMTPUTF8, for the sender as for recipients; the outcome has the address as it was written."""
    receipt = talk(
        """
        C: MAIL FROM:<ann@xn--bcher-kva.example>
        C: RCPT TO:<bob@xn--bcher-kva.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 554 no
        C: RSET
        S: 250 ok
    """,
        sender="ann@bücher.example",
        recipients=("bob@bücher.example",),
    )
    assert receipt.states() == {"bob@bücher.example": "failed"}


def test_a_local_part_beyond_ascii_fails_where_smtputf8_is_not_offered(talk):
    """5.6.7, without asking the server; the other recipient is not affected."""
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
        S: 250 ok
    """,
        recipients=("jürgen@b.example", BOB),
    )
    assert receipt.states() == {"jürgen@b.example": "failed", BOB: "delivered"}
    outcome = receipt.outcomes[0][0]
    assert (outcome.code, outcome.enhanced, outcome.phase) == (None, "5.6.7", Phase.RCPT)


def test_a_sender_beyond_ascii_fails_every_recipient_where_smtputf8_is_not_offered(talk):
    """There is no other sender to use."""
    receipt = talk("", sender="jürgen@a.example")
    assert {(outcome.enhanced, outcome.phase) for outcome in receipt.outcomes[0]} == {("5.6.7", Phase.MAIL)}


def test_smtputf8_is_asked_for_where_it_is_needed(talk):
    """The local part goes as UTF-8, and a domain that has an A-label still goes as that."""
    talk(
        """
        C: MAIL FROM:<ann@a.example> SMTPUTF8
        C: RCPT TO:<jürgen@b.example>
        C: RCPT TO:<bob@xn--bcher-kva.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 550 no
        S: 554 no
        C: RSET
        S: 250 ok
    """,
        recipients=("jürgen@b.example", "bob@bücher.example"),
        offers="PIPELINING\nSMTPUTF8",
    )


def test_smtputf8_is_not_asked_for_where_it_is_not_needed(talk):
    """The hops behind this server may not have it."""
    talk(
        "C: MAIL FROM:<ann@a.example>\nS: 550 no",
        recipients=("bob@bücher.example",),
        offers="SMTPUTF8",
    )


@pytest.mark.parametrize(
    "address",
    [
        "bob@b.example>\r\nRCPT TO:<eve@b.example",
        "bob@b.example\n",
        "bob\0@b.example",
        "bob@b.example> SIZE=1",
        "bob @b.example",
        'bob"@b.example',
        '"bob"> <"eve"@b.example',
        "bob\u2028@b.example",
        "bob\ud800@b.example",
        "",
    ],
)
def test_an_address_that_could_pass_for_something_else_is_never_sent(talk, address):
    """The readers refuse such addresses; should one get here all the same, it fails alone."""
    receipt = talk("", recipients=(address,))
    assert [(outcome.enhanced, outcome.phase) for outcome in receipt.outcomes[0]] == [("5.1.3", Phase.RCPT)]
    if address:
        receipt = talk("", sender=address)
        assert {(outcome.enhanced, outcome.phase) for outcome in receipt.outcomes[0]} == {("5.1.7", Phase.MAIL)}


def test_a_quoted_local_part_may_hold_a_space(talk):
    """It is an address like any other (RFC 5321, 4.1.2)."""
    talk('C: MAIL FROM:<"ann lee"@a.example>\nS: 550 no', sender='"ann lee"@a.example', offers="")
