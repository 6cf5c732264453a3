"""Reports to senders, read back by somebody else's parser of bounces: `flufl.bounce`, as mailing lists use it.

It knows failures and delays by the machine-readable part alone where that is by RFC 3464, and looks through the text
for anything like a bounce where not. It has no words for RFC 6533: an address that is not ASCII it cannot tell. Nor one
with `=` in its local part, which it takes for a parameter of MIME; nor one at an address literal, from Python 3.13 on.
"""

from __future__ import annotations

from email import message_from_bytes
from typing import Any

import pytest
from flufl.bounce import all_failures, scan_message
from hypothesis import given
from hypothesis import strategies as st

from service.message.bounce import Undelivered, bounce, delay_warning
from service.message.job import Job
from service.message.outcome import Outcome, Phase, State
from service.smtp.reply import Reply

CONTENT = b"From: shop@example.org\r\nTo: ann@a.example\r\nSubject: Your order\r\n\r\nThank you.\r\n"

HOSTILE = {
    "a bounce of its own": b"\r\n\r\nFinal-Recipient: rfc822; eve@e.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
    "words that bounces have": b"The following addresses had permanent fatal errors ----- <eve@e.example>",
    "qmail's words": b"Hi. This is the qmail-send program. <eve@e.example>: Sorry, no mailbox here by that name.",
    "a boundary": b"--=_0000000000000000000000000000000000000000--",
    "markup": b'<html><b>550</b> =?utf-8?q?eve=40e=2Eexample?= "eve@e.example" ; rfc822 ; (comment',
    "controls": b"\x1b[2J\x1b]0;title\x07 \0 \x08\x08 \x7f",
    "8-bit": bytes(range(128, 256)),
    "bidi and zero width": "\u202e\u2066 no such user \u200b\u2069\ufeff".encode(),
    "a line of 8 KiB": b"x" * 8192,
    "many lines": b"no\r\n" * 2000,
}


def failed(address: str, text: str = "no such user", **change: Any) -> Outcome:
    """A recipient that was refused."""
    facts: dict[str, Any] = {"code": 550, "enhanced": "5.1.1", "host": "mx.example:25", "phase": Phase.RCPT}
    return Outcome(address, State.FAILED, text=text, **(facts | change))


def about(*outcomes: Outcome, content: bytes = CONTENT, **change: Any) -> Undelivered:
    """The facts of a message of which these became nothing."""
    given: dict[str, Any] = {
        "id": "j1",
        "sender": "shop@example.org",
        "content": content,
        "size": len(content),
        "outcomes": outcomes,
        "hostname": "mx.example",
        "arrived": 1_000_000_000.0,
        "now": 1_000_000_060.0,
    }
    return Undelivered(**(given | change))


def read_back(report: Job | None) -> tuple[set[str], set[str]]:
    """The addresses that the parser takes for late, and those that it takes for failed."""
    assert report is not None
    late, lost = all_failures(message_from_bytes(report.content))
    return {address.decode() for address in late}, {address.decode() for address in lost}


def test_a_failed_recipient_is_read_back():
    """One refused, one found."""
    report = bounce(about(failed("ann@a.example")))
    assert read_back(report) == (set(), {"ann@a.example"})
    assert report is not None
    assert scan_message(message_from_bytes(report.content)) == {b"ann@a.example"}


@pytest.mark.parametrize("number", [2, 1000])
def test_all_recipients_that_failed_together_are_read_back_from_one_report(number):
    """As many as a job may have."""
    addresses = {f"user-{n}@a{n % 7}.example" for n in range(number)}
    assert read_back(bounce(about(*map(failed, sorted(addresses))))) == (set(), addresses)


def test_a_delay_warning_is_no_failure():
    """A list that unsubscribed somebody for a greylisting would be wrong."""
    waiting = (
        Outcome("ann@a.example", State.WAITING, 450, "4.2.0", "greylisted", "mx.example:25", Phase.RCPT),
        Outcome("bob@b.example", State.WAITING, None, "", "connection refused", "mx.example:25", Phase.CONNECT),
        Outcome("eve@e.example", State.WAITING, 554, "5.7.1", "not you", "mx.example:25", Phase.GREETING),
    )
    warning = delay_warning(about(*waiting, retry_until=1_000_400_000.0))
    assert read_back(warning) == ({"ann@a.example", "bob@b.example", "eve@e.example"}, set())
    assert warning is not None
    assert scan_message(message_from_bytes(warning.content)) == frozenset()


@pytest.mark.parametrize(
    ("code", "said"), [(450, "4.2.0 greylisted"), (None, "connection refused"), (None, ""), (554, "5.7.1 not you")]
)
def test_a_recipient_whose_time_is_over_has_failed(code, said):
    """Whatever the last try said, and also where it said nothing."""
    over = failed("ann@a.example", "delivery time expired", code=code, enhanced="4.4.7", said=said)
    assert read_back(bounce(about(over))) == (set(), {"ann@a.example"})


def test_a_recipient_at_an_international_domain_is_read_back_by_its_a_label():
    """That is what the server was told, and what the sender's programs can compare."""
    assert read_back(bounce(about(failed("bob@bücher.example")))) == (set(), {"bob@xn--bcher-kva.example"})


def test_a_local_part_that_is_not_ascii_is_never_read_back_as_somebody_else():
    """The parser does not know RFC 6533: it finds nothing, or what is ASCII; never a piece of an address."""
    report = bounce(about(failed("jürgen@a.example"), failed("bob@b.example")))
    late, lost = read_back(report)
    assert late == set()
    assert lost <= {"bob@b.example"}


@pytest.mark.parametrize("address", ['"a b"@a.example', "o'hara+x/y@a.example", "ANN@A.Example"])
def test_an_address_of_any_shape_is_read_back_as_it_is(address):
    """Quotes, specials and literals."""
    assert read_back(bounce(about(failed(address)))) == (set(), {address})


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_server_says_makes_anybody_else_fail(said):
    """Neither a bounce inside its reply, nor a boundary, nor what terminals and programs act on."""
    reply = Reply(550, tuple(said.split(b"\r\n")))
    report = bounce(about(failed("ann@a.example", reply.text, enhanced=reply.enhanced)))
    assert read_back(report) == (set(), {"ann@a.example"})


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_nothing_in_the_message_itself_makes_anybody_else_fail(said):
    """It goes back as the last part, in its own frame."""
    content = b"Subject: x\r\nX-Said: " + said.replace(b"\r\n", b"\r\n ").replace(b"\0", b"") + b"\r\n\r\n"
    content += said.replace(b"\0", b"") + b"\r\n"
    for size in (len(content), 10**6):
        report = bounce(about(failed("ann@a.example"), content=content, size=size))
        assert read_back(report) == (set(), {"ann@a.example"})


ATOM = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/?^_`{|}~", min_size=1, max_size=20)


@given(st.lists(ATOM, min_size=1, max_size=5, unique=True), st.text(max_size=200), st.binary(max_size=100))
def test_whatever_was_said_exactly_those_that_failed_are_read_back(locals_, text, octets):
    """Any local part, any words of a server as they come out of a reply."""
    addresses = {f"{local}@a.example" for local in locals_}
    said = Reply(550, (octets, text.encode("utf-8", "replace"))).text
    assert read_back(bounce(about(*(failed(address, said) for address in sorted(addresses))))) == (set(), addresses)
