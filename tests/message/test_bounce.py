"""Reports to senders, read back by Python's own parser of delivery status notifications."""

from __future__ import annotations

import gc
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.message.bounce import Undelivered, bounce, delay_warning
from service.message.job import Job
from service.message.outcome import Outcome, Phase, State

CONTENT = b"Date: x\r\nMessage-ID: <m1@shop.example>\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\nhello\r\n"
UNKNOWN = Outcome("ann@a.example", State.FAILED, 550, "5.1.1", "no such user", "mx.a.example:25", Phase.RCPT)
SILENT = Outcome("bob@b.example", State.FAILED, None, "", "connection refused", "[2001:db8::1]:25", Phase.CONNECT)


def facts(**change: Any) -> Undelivered:
    given: dict[str, Any] = {
        "id": "j1",
        "sender": "shop@example.org",
        "content": CONTENT,
        "size": len(CONTENT),
        "outcomes": (UNKNOWN,),
        "hostname": "mx.example",
        "arrived": 1_000_000_000.0,
        "now": 1_000_000_060.0,
    }
    return Undelivered(**(given | change))


def sent(job: Job | None) -> EmailMessage:
    """The report as a receiver parses it; it must be whole and ready for the wire."""
    assert job is not None
    content = job.content
    assert content.endswith(b"\r\n")
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    message = message_from_bytes(content, policy=default)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def blocks(message: EmailMessage) -> list[dict[str, str]]:
    """The status part's blocks: the message's, then each recipient's."""
    status = list(message.iter_parts())[1]
    if status.get_content_type() == "message/delivery-status":
        return [dict(block.items()) for block in status.get_payload()]
    text = bytes(status).replace(b"\r\n", b"\n").partition(b"\n\n")[2].decode().replace("\n ", " ").rstrip()
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n")]


def test_a_failure_is_reported_to_the_sender_by_rfc_3464():
    """From the null sender, to the sender, with every fact in the place where programs look for it."""
    job = bounce(facts(outcomes=(UNKNOWN, SILENT)))
    assert job is not None
    assert (job.sender, job.recipients) == ("", ("shop@example.org",))
    message = sent(job)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["auto-submitted"] == "auto-replied"
    assert message["to"] == "shop@example.org"
    assert message["from"] == "Mail Delivery System <MAILER-DAEMON@mx.example>"
    assert (message["in-reply-to"], message["references"]) == ("<m1@shop.example>", "<m1@shop.example>")
    assert blocks(message) == [
        {"Reporting-MTA": "dns; mx.example", "Arrival-Date": "Sun, 09 Sep 2001 01:46:40 +0000", "X-Deferd-ID": "j1"},
        {
            "Final-Recipient": "rfc822; ann@a.example",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.a.example",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
            "Last-Attempt-Date": "Sun, 09 Sep 2001 01:47:40 +0000",
        },
        {
            "Final-Recipient": "rfc822; bob@b.example",
            "Action": "failed",
            "Status": "4.4.7",
            "Diagnostic-Code": "x-deferd; connection refused",
            "Last-Attempt-Date": "Sun, 09 Sep 2001 01:47:40 +0000",
        },
    ]


def test_a_person_reads_who_did_not_get_what_and_why():
    """The first part says it in words, with the subject decoded."""
    text = next(sent(bounce(facts())).iter_parts()).get_content()
    for words in ("could not be delivered", "<ann@a.example>", "mx.a.example:25: 550 5.1.1 no such user", "Grüße"):
        assert words in text


def test_after_its_time_the_diagnostic_is_what_the_server_said_and_nothing_of_ours():
    """4.4.7 tells programs that the time is over, a sentence tells people; the server's words stay its own."""
    text = "delivery time expired; the last try said: 4.2.0 greylisted"
    over = Outcome("ann@a.example", State.FAILED, 450, "4.4.7", text, "mx:25", Phase.RCPT, said="4.2.0 greylisted")
    silent = Outcome(
        "bob@b.example", State.FAILED, None, "4.4.7", "x", "mx:25", Phase.CONNECT, said="no answer in time"
    )
    message = sent(bounce(facts(outcomes=(over, silent))))
    first, second = blocks(message)[1:]
    assert (first["Status"], first["Diagnostic-Code"]) == ("4.4.7", "smtp; 450 4.2.0 greylisted")
    assert (second["Status"], second["Diagnostic-Code"]) == ("4.4.7", "x-deferd; no answer in time")
    person = next(message.iter_parts()).get_content()
    assert person.count("The time for its delivery is over.") == 2
    assert "    mx:25: 450 4.2.0 greylisted" in person.splitlines()
    assert "delivery time expired" not in person


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("mx.a.example:25", "mx.a.example"),
        ("192.0.2.1:25", "[192.0.2.1]"),
        ("[2001:db8::1]:25", "[IPv6:2001:db8::1]"),
        ("", None),
    ],
)
def test_a_remote_mta_is_a_name_or_a_domain_literal_and_one_that_spoke(host, name):
    """RFC 3464, 2.1.2 and 2.3.5: none where no server said anything."""
    spoke = msgspec.structs.replace(UNKNOWN, host=host)
    silent = msgspec.structs.replace(SILENT, host=host)
    found = [block.get("Remote-MTA") for block in blocks(sent(bounce(facts(outcomes=(spoke, silent)))))[1:]]
    assert found == [name and f"dns; {name}", None]


@pytest.mark.parametrize(("enhanced", "status"), [("4.2.0", "4.2.0"), ("5.7.1", "4.7.1"), ("", "4.0.0")])
def test_the_status_of_a_delay_is_transient(enhanced, status):
    """A host that refuses everybody with 554 is at fault itself: its mail is tried further."""
    waiting = Outcome("ann@a.example", State.WAITING, 554, enhanced, "not now", "mx:25", Phase.GREETING)
    assert blocks(sent(delay_warning(facts(outcomes=(waiting,)))))[1]["Status"] == status


def test_an_international_domain_is_reported_as_it_went_out():
    """As its A-label, in a report that programs without RFC 6533 read too; the person reads it as it was written."""
    recipient = Outcome("bob@bücher.example", State.FAILED, 550, "5.1.1", "no", "mx:25", Phase.RCPT)
    message = sent(bounce(facts(outcomes=(recipient,))))
    assert [part.get_content_type() for part in message.iter_parts()][1] == "message/delivery-status"
    assert blocks(message)[1]["Final-Recipient"] == "rfc822; bob@xn--bcher-kva.example"
    assert "<bob@bücher.example>" in next(message.iter_parts()).get_content()


def test_a_delay_is_a_warning_that_says_until_when():
    """`delayed`, with Will-Retry-Until; the sender need do nothing."""
    waiting = Outcome("ann@a.example", State.WAITING, 450, "", "greylisted", "mx.a.example:25", Phase.RCPT)
    message = sent(delay_warning(facts(outcomes=(waiting,), retry_until=1_000_400_000.0)))
    block = blocks(message)[1]
    assert (block["Action"], block["Status"]) == ("delayed", "4.0.0")
    assert block["Will-Retry-Until"] == "Thu, 13 Sep 2001 16:53:20 +0000"
    text = next(message.iter_parts()).get_content()
    assert "You need not send it again" in text
    assert "Thu, 13 Sep 2001 16:53:20 +0000" in text


@pytest.mark.parametrize("report", [bounce, delay_warning])
def test_no_report_is_written_about_a_report_or_about_nobody(report):
    """The null sender has nobody to tell."""
    assert report(facts(sender="")) is None
    assert report(facts(outcomes=())) is None


def test_a_small_message_goes_back_whole_and_a_large_one_by_its_header():
    """Also where only the beginning of the message is at hand."""
    assert list(sent(bounce(facts())).iter_parts())[2].get_payload(0).get_payload().rstrip() == "hello"
    for content, size in ((CONTENT + b"x" * 20_000 + b"\r\n", len(CONTENT) + 20_002), (CONTENT, 10**9)):
        part = list(sent(bounce(facts(content=content, size=size))).iter_parts())[2]
        assert part.get_content_type() == "text/rfc822-headers"
        assert part.get_content().splitlines()[-1] == "Subject: =?utf-8?b?R3LDvMOfZQ==?="


def test_a_header_of_a_megabyte_does_not_go_back_whole():
    """64 KiB of it, cut at a line's end."""
    content = b"Subject: x\r\n" + b"X-A: y\r\n" * 100_000 + b"\r\nhi\r\n"
    job = bounce(facts(content=content, size=len(content)))
    sent(job)
    assert job is not None
    assert 60_000 < len(job.content) < 70_000


def test_a_header_that_is_cut_off_where_the_piece_at_hand_ends_makes_no_broken_report():
    """Only whole lines go back, so that the boundary stands on a line of its own."""
    content = b"Subject: x\r\nX-A: " + b"y" * 100
    part = list(sent(bounce(facts(content=content, size=10**6))).iter_parts())[2]
    assert part.get_content().splitlines() == ["Subject: x"]


def test_old_8_bit_octets_in_a_header_do_not_make_it_utf_8():
    """RFC 6532 is for UTF-8 only."""
    content = b"Subject: Gr\xfc\xdfe\r\n\r\nhi\r\n"
    for size, kind in ((len(content), "message/rfc822"), (10**6, "text/rfc822-headers")):
        part = list(sent(bounce(facts(content=content, size=size))).iter_parts())[2]
        assert (part.get_content_type(), part["content-transfer-encoding"]) == (kind, "8bit")


def test_addresses_that_are_not_ascii_are_reported_by_rfc_6533():
    """message/global-delivery-status with the utf-8 address type; ASCII ones beside them stay rfc822."""
    odd = Outcome("用户@例子.example", State.FAILED, 550, "5.6.7", "no SMTPUTF8", "mx:25", Phase.MAIL)
    content = "Subject: Grüße\r\n\r\nhi\r\n".encode()
    job = bounce(facts(sender="jürg@a.example", outcomes=(UNKNOWN, odd), content=content, size=len(content)))
    message = sent(job)
    kinds = [part.get_content_type() for part in message.iter_parts()]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]
    assert job is not None
    assert "Final-Recipient: utf-8; 用户@例子.example\r\n".encode() in job.content
    assert b"Final-Recipient: rfc822; ann@a.example\r\n" in job.content
    assert message["content-transfer-encoding"] == "8bit"
    large = sent(bounce(facts(content=content, size=10**6)))
    assert list(large.iter_parts())[2].get_content_type() == "message/global-headers"


@pytest.mark.parametrize(
    ("code", "enhanced", "status"),
    [(550, "5.7.1", "5.7.1"), (550, "", "5.0.0"), (450, "4.2.0", "4.2.0"), (450, "", "4.4.7"), (None, "", "4.4.7")],
)
def test_the_status_is_the_server_s_or_what_its_reply_tells(code, enhanced, status):
    """A message that was given up after temporary trouble has expired: 4.4.7 (RFC 3463)."""
    outcome = Outcome("ann@a.example", State.FAILED, code, enhanced, "x", "", Phase.RCPT)
    assert blocks(sent(bounce(facts(outcomes=(outcome,)))))[1]["Status"] == status


def test_the_same_facts_make_the_same_report_and_others_another():
    """Boundaries and Message-IDs come from the facts, not from chance."""
    assert bounce(facts()) == bounce(facts())
    first, other = sent(bounce(facts())), sent(bounce(facts(id="j2")))
    assert first["message-id"] != other["message-id"]
    assert first.get_boundary() != other.get_boundary()


@given(
    st.text(max_size=300),
    st.binary(max_size=100),
    st.text(alphabet="abü", min_size=1, max_size=5),
    st.sampled_from(["", "5.0.0"]),
)
def test_whatever_a_server_or_a_message_said_a_report_is_whole(text, octets, local, enhanced):
    """Controls, 8-bit, encoded words that are none: no field is added by them, and no part."""
    body = octets.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
    content = b"Subject: " + body + b"\r\n\r\n" + body + b"\r\n"
    outcome = Outcome(f"{local}@a.example", State.FAILED, 550, enhanced, text, f"{text[:20]}:25", Phase.RCPT)
    message = sent(bounce(facts(content=content, size=len(content), outcomes=(outcome, SILENT))))
    assert len(list(message.iter_parts())) == 3
    found = blocks(message)
    assert len(found) == 3
    assert set(found[1]) <= {
        *("Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"),
    }
    assert all(value.isprintable() for block in found for value in block.values())


def test_a_report_leaves_nothing_to_the_collector():
    """Thousands may be made in a row, as when a site is given up."""
    sent(bounce(facts()))  # what is made once is made
    gc.collect()
    gc.disable()
    try:
        bounce(facts())
        assert gc.collect() == 0
    finally:
        gc.enable()
