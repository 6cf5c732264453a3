"""Letters made into messages: read back by Python's own email package, or compared octet for octet."""

from __future__ import annotations

import json
import re
import tracemalloc
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.message.job import Job
from tests.message.conftest import ADDED, attempt, reading

LETTER = {"from": "Shop <shop@example.org>", "to": "ann@a.example", "text": "Hello.\n"}


def composed(files: dict[str, bytes] | None = None, **keys: object) -> bytes:
    return reading("a.json", json.dumps(LETTER | keys), files=files).content


def parsed(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=default)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def test_a_plain_letter_is_this_message_octet_for_octet():
    """The whole of it, so that nothing can slip in unseen."""
    assert composed(subject="Your order", headers={"X-Order": "17"}) == (
        ADDED + b"From: Shop <shop@example.org>\r\n"
        b"To: ann@a.example\r\n"
        b"Subject: Your order\r\n"
        b"X-Order: 17\r\n"
        b'Content-Type: text/plain; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"MIME-Version: 1.0\r\n"
        b"\r\n"
        b"Hello.\r\n"
    )


def test_text_html_and_files_stand_in_each_other_as_readers_expect():
    """multipart/mixed around multipart/alternative, plain before HTML, files last, each as it was."""
    files = {"invoice.pdf": b"%PDF\0\xff\r\n.\r\n", "in/photo": b"", "x.csv": b"a,b\n"}
    attachments = [
        {"path": "invoice.pdf"},
        {"path": "in/photo", "type": "image/PNG"},
        {"path": "x.csv", "name": 'Rechnung "ä", 你.csv'},
    ]
    content = composed(files, text="plain ü", html="<p>ü</p>", attachments=attachments)
    assert content.isascii()
    message = parsed(content)
    assert [part.get_content_type() for part in message.walk()] == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "text/html"),
        *("application/pdf", "image/png", "text/csv"),
    ]
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert (plain.get_content(), html.get_content()) == ("plain ü\r\n", "<p>ü</p>\r\n")
    got = [(part.get_filename(), part.get_payload(decode=True)) for part in message.iter_attachments()]
    assert got == [
        ("invoice.pdf", files["invoice.pdf"]),
        ("photo", b""),
        ('Rechnung "ä", 你.csv', b"a,b\n"),
    ]
    assert content.count(b"MIME-Version") == 1


@pytest.mark.parametrize(
    ("keys", "types"),
    [
        ({"text": None, "html": "<p>x</p>"}, ["text/html"]),
        ({"text": None}, ["text/plain"]),
        ({"html": "<p>x</p>"}, ["multipart/alternative", "text/plain", "text/html"]),
        ({"attachments": [{"path": "x"}]}, ["multipart/mixed", "text/plain", "application/octet-stream"]),
        (
            {"text": None, "html": "x", "attachments": [{"path": "x"}]},
            ["multipart/mixed", "text/html", "application/octet-stream"],
        ),
    ],
)
def test_a_message_has_no_more_parts_than_it_needs(keys, types):
    """A text alone is no multipart."""
    assert [part.get_content_type() for part in parsed(composed({"x": b"x"}, **keys)).walk()] == types


@pytest.mark.parametrize(
    "type", ["pdf", "a/b/c", "text/plain; charset=x", "a/b\r\nc", "message/rfc822", "Multipart/mixed", ""]
)
def test_a_type_that_could_break_the_message_is_refused(type):
    """Only a media type that a file can have as it is."""
    keys = LETTER | {"attachments": [{"path": "x", "type": type}]}
    outcome = attempt("a.json", json.dumps(keys), files={"x": b"x"})
    assert isinstance(outcome, Job) == (type == "")
    assert isinstance(outcome, Job) or "attachments: " in str(outcome)


def test_names_and_subjects_that_are_not_ascii_are_encoded_and_come_back():
    """RFC 2047, folded, in ASCII only; domains as A-labels."""
    subject = "Grüße, " * 40 + "你好" * 40
    content = composed(
        **{"from": '"Jürg, Ä" <jurg@bücher.example>'},
        to=['Bob "B" <bob@b.example>', "Ann C. <c@c.example>"],
        subject=subject,
    )
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 76
    message = parsed(content)
    assert message["subject"] == subject
    assert message["from"].addresses[0].display_name == "Jürg, Ä"
    assert message["from"].addresses[0].addr_spec == "jurg@xn--bcher-kva.example"
    assert [(a.display_name, a.addr_spec) for a in message["to"].addresses] == [
        ("Bob B", "bob@b.example"),
        ("Ann C.", "c@c.example"),
    ]


def test_a_local_part_that_is_not_ascii_stays_utf_8():
    """There is no other way to write it (RFC 6532); nothing else in the message is 8-bit."""
    content = composed(to=["用户@例子.example"])
    assert "To: 用户@例子.example\r\n".encode() in content


def test_a_bcc_is_a_recipient_that_the_message_does_not_name():
    """Neither in a field nor anywhere else."""
    job = reading("a.json", json.dumps(LETTER | {"bcc": "blind@b.example"}))
    assert "blind@b.example" in job.recipients
    assert b"blind" not in job.content


def test_a_letter_s_own_date_message_id_and_reply_to_are_kept():
    """What the application says in `headers` is not said a second time."""
    headers = {"Date": "Tue, 01 Dec 2026 08:00:00 +0000", "message-id": "<a@b>", "Reply-To": "Ümi <u@bücher.example>"}
    message = parsed(composed(headers=headers))
    assert message.get_all("date") == [headers["Date"]]
    assert message.get_all("message-id") == ["<a@b>"]
    assert message["reply-to"].addresses[0].addr_spec == "u@xn--bcher-kva.example"
    assert message["reply-to"].addresses[0].display_name == "Ümi"


@pytest.mark.parametrize(
    ("text", "encoding", "back"),
    [
        ("a" * 998, "7bit", "a" * 998 + "\n"),
        ("a" * 999, "quoted-printable", None),
        ("ü", "quoted-printable", None),
        ("你好" * 100, "base64", None),
        ("ü" + "a" * 100_000, "quoted-printable", None),
        ("a\n" * 100_000 + "a" * 999, "quoted-printable", None),
        ("a" * 998 + "\n" + "a" * 998 + "\n\n", "7bit", None),
        ("ü.\n.\nFrom x \t\n", "quoted-printable", None),
        ("a\r\nb\rc\n", "7bit", "a\nb c\n"),
        (".\n..\n.", "7bit", ".\n..\n.\n"),
        ("From me\n", "7bit", None),
        ("a\x0bb\x0c\x1c\n\n\n", "7bit", None),
        ("ü\x85\u2028=\t \n", "quoted-printable", None),
        ("", "7bit", None),
    ],
    ids=ascii,
)
def test_a_text_of_any_lines_arrives_as_it_was_and_7_bit(text, encoding, back):
    """No line on the wire is longer than 998, whatever the text."""
    content = composed(text=text)
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    message = parsed(content)
    assert message["content-transfer-encoding"] == encoding
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    expected = (text if back is None else back).replace("\n", "\r\n").encode()
    assert payload.removesuffix(b"\r\n") == expected.removesuffix(b"\r\n")


def test_the_same_letter_in_the_same_circumstances_is_the_same_message():
    """Boundaries are drawn from the content, not from chance; another text gets another."""
    first, second = composed(html="x"), composed(html="x")
    assert first == second
    boundary = re.search(rb'boundary="([^"]+)"', first)
    assert boundary is not None
    assert boundary[1] not in composed(html="y")
    assert first.count(boundary[1]) == 4


def test_a_message_that_grows_too_large_with_its_files_is_refused():
    """The limit is on what would be sent; files beyond it are not even opened."""
    opened = []

    class Files(dict):
        def __getitem__(self, path):
            opened.append(path)
            return super().__getitem__(path)

    files = Files(dict.fromkeys("abc", b"x" * 60000))
    keys = LETTER | {"attachments": [{"path": name} for name in "abc"]}
    outcome = attempt("a.json", json.dumps(keys), files=files, message_size=100_000)
    assert "limits.message_size" in str(outcome)
    assert opened == ["a", "b"]


def test_a_text_of_millions_of_empty_lines_costs_little_memory():
    """A part is encoded in one piece; line by line this took a hundred times its size."""
    data = json.dumps(LETTER | {"text": "\n" * 1_000_000})
    tracemalloc.start()
    try:
        reading("a.json", data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["text", "html"])
def test_a_part_that_names_a_mark_or_a_boundary_is_left_alone(what):
    """What stands in for a content while the parts are laid out is never looked for in a content."""
    keys = {"html": "x"} if what == "text" else {}
    first = composed(**keys, **{what: "y"})
    marks = "\r\n".join(f"{mark.decode()}p{n}" for mark in re.findall(rb"=_[0-9a-f]{40}", first) for n in range(3))
    content = composed(**keys, **{what: marks + "\r\n"})
    part = parsed(content).get_body(("plain" if what == "text" else "html",))
    assert part is not None
    assert part.get_payload(decode=True) == marks.encode() + b"\r\n"


@given(
    st.text(max_size=80),
    st.text(max_size=200),
    st.text(max_size=40),
    st.text(alphabet='ab,."\\()<>@:; ü=?', max_size=40),
)
def test_whatever_is_composed_is_whole_and_comes_back(subject, text, name, display):
    """Subject, text, display name and file name are refused, or come back as they were; no field is added by them."""
    quoted = '"' + display.replace("\\", "\\\\").replace('"', '\\"') + '"'
    keys = LETTER | {"from": f"{quoted} <a@a.example>", "subject": subject, "text": text}
    keys |= {"attachments": [{"path": "x", "name": name}]}
    outcome = attempt("a.json", json.dumps(keys), files={name: b"", "x": b"x"})
    if not isinstance(outcome, Job):
        assert str(outcome).isprintable()
        return
    content = outcome.content
    assert content.isascii()
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
    message = message_from_bytes(content, policy=default)
    assert sorted(message.keys()) == sorted(
        ["Date", "Message-ID", "From", "To", "Subject", "Content-Type", "MIME-Version"]
    )
    assert message["subject"].strip(" ") == subject.strip(" ")
    assert message["from"].addresses[0].addr_spec == "a@a.example"
    body, attached = message.iter_parts()
    expected = text.replace("\r\n", "\n").replace("\r", " ")
    assert body.get_payload(decode=True).decode().replace("\r\n", "\n").removesuffix("\n") == expected.removesuffix(
        "\n"
    )
    assert attached.get_payload(decode=True) == b"x"
