"""A dropped .eml: its envelope, and its content octet for octet save for what the contract changes."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.message.eml import field_of, header_of
from service.message.job import Job, JobError
from tests.message.conftest import ADDED, DATE, MESSAGE_ID, attempt, reading

TOP = b"X-Sender: <app@shop.example>\r\nX-Receiver: <ann@a.example>\r\n"


def test_the_envelope_at_the_top_is_taken_and_removed(read):
    """X-Sender and X-Receiver say who, whatever From and To say; they do not travel."""
    job = read("a.eml", TOP + b"From: foo\r\nTo: bar\r\n\r\nhello\r\n")
    assert job.sender == "app@shop.example"
    assert job.recipients == ("ann@a.example",)
    assert job.content == ADDED + b"From: foo\r\nTo: bar\r\n\r\nhello\r\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_envelope_is_read_with_either_line_end_any_case_and_folds(read, end):
    """Names ignore case, values may be bare or in brackets, lists and folds are understood."""
    lines = [
        b"x-sender:app@shop.example",
        b"X-RECEIVER: ann@a.example,",
        b"\tBob <bob@b.example>",
        b"x-Receiver : c@c.example",
    ]
    job = read("a.eml", end.join([*lines, b"Subject: x", b"", b"hi", b""]))
    assert job.sender == "app@shop.example"
    assert job.recipients == ("ann@a.example", "bob@b.example", "c@c.example")
    assert job.content == ADDED + b"Subject: x\r\n\r\nhi\r\n"


def test_the_envelope_may_hold_utf_8(read):
    """Addresses by RFC 6531 stand in these lines as they are."""
    job = read("a.eml", "X-Sender: jürg@bücher.example\nX-Receiver: 用户@例子.example\n\nhi\n")
    assert (job.sender, job.recipients) == ("jürg@bücher.example", ("用户@例子.example",))


def test_octets_that_are_no_utf_8_are_tolerated_in_a_display_name(read):
    """They stay as they are; only an address must be readable."""
    text = b"From: J\xfcrg <a@a.example>\r\nTo: =?x?q?a,b?= <b@b.example>\r\n\r\nhi\r\n"
    job = read("a.eml", text)
    assert (job.sender, job.recipients, job.content) == ("a@a.example", ("b@b.example",), ADDED + text)


def test_the_null_sender_can_be_given(read):
    """`X-Sender: <>` is for reports."""
    assert read("a.eml", b"X-Sender: <>\nX-Receiver: a@b.example\n\nhi").sender == ""


def test_envelope_fields_further_down_are_ordinary_and_stay(read):
    """Only the unbroken block at the very top counts."""
    rest = b"Subject: x\r\nX-Sender: eve@e.example\r\nX-Receiver: eve@e.example\r\n\r\nX-Receiver: no\r\n"
    job = read("a.eml", TOP + rest)
    assert job.recipients == ("ann@a.example",)
    assert job.content == ADDED + rest


def test_without_an_envelope_the_message_s_own_fields_say_who(read):
    """Sender from Return-Path, Sender or From; recipients from all of To, Cc and Bcc, none twice."""
    job = read(
        "a.eml",
        b"From: Ann <ann@a.example>, Bob <bob@a.example>\nTo: x@x.example, team: y@y.example;\nTo: z@z.example\n"
        b"CC: X@X.example,\n x@X.EXAMPLE\nBcc: b@b.example\n\nhi\n",
    )
    assert job.sender == "ann@a.example"
    assert job.recipients == ("x@x.example", "y@y.example", "z@z.example", "X@X.example", "b@b.example")


@pytest.mark.parametrize(
    ("fields", "sender"),
    [
        (b"From: a@a.example\n", "a@a.example"),
        (b"From: a@a.example\nSender: s@s.example\n", "s@s.example"),
        (b"Sender: s@s.example\nFrom: a@a.example\nReturn-Path: <r@r.example>\n", "r@r.example"),
        (b"From: a@a.example\nReturn-Path: <>\n", ""),
        (b"X-Sender: x@x.example\nFrom: foo\n", "x@x.example"),
        (b"From: nobody:;\nX-Sender: x@x.example\nSender: s@s.example\n", "s@s.example"),
    ],
)
def test_the_sender_is_the_first_that_is_given(read, fields, sender):
    """X-Sender at the top, then Return-Path, Sender, From, in whatever order they stand."""
    assert read("a.eml", fields + b"To: t@t.example\n\nhi").sender == sender


@pytest.mark.parametrize(
    ("fields", "priority"),
    [
        (b"", "normal"),
        (b"Priority: urgent\r\n", "high"),
        (b"Priority: normal\r\n", "normal"),
        (b"Priority: non-urgent\r\n", "bulk"),
        (b"PRIORITY :\r\n\tUrgent \r\n", "high"),
        (b"Priority: non-urgent\r\nPriority: urgent\r\n", "bulk"),
        (b"Priority: at once\r\n", "normal"),
        (b"Priority: \xff\r\n", "normal"),
        (b"Priority:\r\n", "normal"),
        (b"X-Priority: 1\r\nImportance: high\r\nPrecedence: bulk\r\n", "normal"),
        (b"Subject: x\r\n\r\nPriority: urgent\r\n", "normal"),
    ],
)
def test_the_priority_field_says_what_goes_first_and_stays(read, fields, priority):
    """RFC 2156's, in its words; the first counts, another word means nothing, and no other field is asked."""
    job = read("a.eml", TOP + fields + b"To: x@x.example\r\n\r\nhi\r\n")
    assert job.priority == priority
    assert job.content == ADDED + fields + b"To: x@x.example\r\n\r\nhi\r\n"


def test_resent_fields_are_neither_read_nor_removed(read):
    """They tell of an earlier sending (RFC 5322, 3.6.6)."""
    text = (
        b"Resent-To: eve@e.example\r\nResent-Bcc: eve@e.example\r\nFrom: a@a.example\r\nTo: t@t.example\r\n\r\nhi\r\n"
    )
    job = read("a.eml", text)
    assert job.recipients == ("t@t.example",)
    assert job.content == ADDED + text


def test_each_bcc_is_removed_with_its_folds_and_nothing_else(read):
    """A blind copy stays blind: also folded, spaced, in any case, and more than once."""
    job = read(
        "a.eml",
        TOP + b"BCC: a@a.example,\r\n\tb@b.example\r\n \r\nX-Bcc: stays\r\nbcc : c@c.example\r\nSubject: x\r\n"
        b"Bcc:\r\n\r\nBcc: body\r\n",
    )
    assert job.content == ADDED + b"X-Bcc: stays\r\nSubject: x\r\n\r\nBcc: body\r\n"


@pytest.mark.parametrize(
    ("fields", "added"),
    [
        (b"Subject: x\r\n", ADDED),
        (b"date: now\r\nSubject: x\r\n", MESSAGE_ID),
        (b"Subject: x\r\nMessage-Id:\r\n <x@y>\r\n", DATE),
        (b"Subject: x\r\nDATE: x\r\nMESSAGE-ID: y\r\n", b""),
        (b"Subject: Date: x\r\n Message-ID: y\r\n", ADDED),
    ],
)
def test_date_and_message_id_are_added_at_the_top_where_missing(read, fields, added):
    """What the message has is kept, and in its place."""
    assert read("a.eml", TOP + fields + b"\r\nDate: body\r\n").content == added + fields + b"\r\nDate: body\r\n"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (b"hello\n\nworld\n", b"\r\nhello\r\n\r\nworld\r\n"),
        (b"\nhello\n", b"\r\nhello\r\n"),
        (b"From now on\n hello: x\n", b"\r\nFrom now on\r\n hello: x\r\n"),
        (b"Bcc: x\nhello\n", b"\r\nhello\r\n"),
        (b"Bcc: x\n\nhello\n", b"\r\nhello\r\n"),
        (b"From now on\nhello\n", b"\r\nFrom now on\r\nhello\r\n"),
        (b": x\n", b"\r\n: x\r\n"),
        (b"Sub ject: x\n", b"\r\nSub ject: x\r\n"),
        (b"\xc3\xbc: x\n", b"\r\n\xc3\xbc: x\r\n"),
    ],
)
def test_a_text_without_a_header_does_not_become_one(read, text, content):
    """The fields that are added are followed by a blank line, where the text does not start with one."""
    job = read("a.eml", b"X-Sender: <>\nX-Receiver: ann@a.example\n" + text)
    assert job.content == ADDED + content


@pytest.mark.parametrize("text", [b"Subject: x\r\nno field\r\nBcc: body\r\n", b"Subject: x\r\n", b"Subject:\r\n\r\n"])
def test_a_header_ends_at_the_first_line_that_is_no_field(read, text):
    """As Python's email package sees it; nothing is put in and nothing beyond is touched."""
    assert read("a.eml", TOP + text).content == ADDED + text


def test_an_mbox_line_stays_and_the_header_goes_on_after_it(read):
    """Content travels unchanged, so it is not removed; a Bcc below it is."""
    job = read("a.eml", TOP + b"From ann Fri Apr 06 16:46:09 2001\nBcc: x\nDate: then\n\nhi\n")
    assert job.content == MESSAGE_ID + b"From ann Fri Apr 06 16:46:09 2001\r\nDate: then\r\n\r\nhi\r\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "there is no sender"),
        (b"\n" + TOP + b"\nhi", "there is no sender"),
        (b"\xef\xbb\xbf" + TOP + b"\nhi", "byte order mark"),
        (b"To: t@t.example\n\nhi", "there is no sender"),
        (b"X-Receiver: t@t.example\n\nhi", "there is no sender"),
        (b"From: foo\nTo: t@t.example\n\nhi", "From: the address 'foo'"),
        (b"From: a@a.example\n\nhi", "no recipient"),
        (b"From: a@a.example\nTo: team:;\n\nhi", "no recipient"),
        (b"From: a@a.example\nTo: t@t.example, bar\n\nhi", "To: the address 'bar'"),
        (b"X-Sender: a@a.example\nX-Receiver: bar\n\nhi", "X-Receiver: the address 'bar'"),
        (b"X-Sender: a@a.example\nX-Sender: b@a.example\nX-Receiver: b@b.example\n\nhi", "two X-Sender"),
        (b"X-Sender: a@a.example, b@a.example\nX-Receiver: b@b.example\n\nhi", "is not one address"),
        (b"X-Sender: \nX-Receiver: b@b.example\n\nhi", "is not one address"),
        (b"X-Sender: <>\nX-Receiver: <>\n\nhi", "has no domain"),
        (b"X-Sender: a@a.example\nX-Receiver: b\xff@b.example\n\nhi", "U+FFFD"),
        (b"X-Sender: a@a.example\nX-Receiver: b\x1b@b.example\n\nhi", "U+001B"),
        (TOP + b"Subject: a\x07b\n\nhi", "line 3, in the header, holds the control character U+0007"),
        (TOP + b"\nhi\0", "NUL"),
    ],
)
def test_a_message_that_is_no_job_is_refused_with_the_offender(refusal, data, why):
    """The whole job is refused, and the text says what to mend."""
    assert why in refusal("a.eml", data)


def test_a_bare_cr_in_the_header_becomes_a_space_and_starts_no_field(read):
    """`\\rBcc:` is text of the field it stands in, to us and to every server."""
    job = read("a.eml", TOP + b"Subject: a\rX-Receiver: eve@e.example\n\nhi\r.\r\n")
    assert job.content == ADDED + b"Subject: a X-Receiver: eve@e.example\r\n\r\nhi .\r\n"
    assert job.recipients == ("ann@a.example",)


def test_more_recipients_than_allowed_are_refused_and_doubles_do_not_count(read, refusal):
    """The limit is on mailboxes; the first that is too many is named."""
    lines = b"".join(b"X-Receiver: r%d@a.example\n" % i for i in range(3))
    assert (
        len(
            read(
                "a.eml", b"X-Sender: <>\n" + lines + b"X-Receiver: r0@A.example, r1@a.example\n\n", recipients=3
            ).recipients
        )
        == 3
    )
    assert "r2@a.example" in refusal("a.eml", b"X-Sender: <>\n" + lines + b"\n", recipients=2)
    assert "limits.message_size" in refusal("a.eml", lines, message_size=10)


@pytest.mark.parametrize(
    "piece",
    [
        b"a:\n",
        b"Date:\n",
        b"Bcc:\n",
        b"To: a@b\n",
        b"X-Receiver: a@b\n",
        b" x\n",
        b"a",
        b"a ",
        b"\r",
        b"To:\n \n",
        b"From ",
    ],
)
def test_a_hostile_header_of_two_megabytes_is_read_in_little_time(piece):
    """No repetition makes the reader slow: each of these took seconds or gigabytes in a reader that matches naively."""
    start = process_time()
    for top in (TOP, TOP + b"Subject: x\n", TOP + b"To: a@b.example\n", b"From: a@b.example\nTo:"):
        outcome = attempt("a.eml", top + piece * (2_000_000 // len(piece)))
        assert isinstance(outcome, Job) or len(str(outcome)) < 400
    assert process_time() - start < 10


FRAGMENTS = [
    b"X-Sender:",
    b"X-Receiver:",
    b" <a@b.example>",
    b"Bcc:",
    b"To:",
    b"From: ",
    b"From ",
    b"Date:",
    b"\r",
    b"\n",
    b"\r\n",
]


@given(
    st.lists(st.sampled_from([*FRAGMENTS, b" ", b"x", b",", b"\xff", b".", b"\n\n", b"(", b'"', b":", b";"])).map(
        b"".join
    )
)
def test_whatever_the_octets_a_message_is_a_job_or_a_job_error(data):
    """The reader raises nothing else, and what it returns keeps the promises of `Job`."""
    for top in (b"", TOP):
        job = attempt("a.eml", top + data)
        if isinstance(job, JobError):
            assert str(job).isprintable()
            continue
        assert job.recipients
        content = job.content
        assert content.endswith(b"\r\n")
        assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
        assert b"\nbcc:" not in (b"\n" + header_of(content)).lower()
        assert field_of(content, "Date") is not None
        assert field_of(content, "message-id") is not None


@given(st.binary(max_size=200))
def test_the_text_of_any_message_arrives_as_it_was(data):
    """Below the header nothing changes but line ends."""
    if b"\0" in data:
        return
    job = reading("a.eml", TOP + b"Subject: x\n\n" + data)
    body = data.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    if not data.endswith(b"\n"):
        body += b"\r\n" if data else b""
    assert job.content == ADDED + b"Subject: x\r\n\r\n" + body
