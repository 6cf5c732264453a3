"""CPython's own test messages come through octet for octet save for what the contract changes."""

from __future__ import annotations

import email
import re
import sysconfig
from pathlib import Path

import pytest

from tests.message.conftest import ADDED, reading

DATA = Path(sysconfig.get_path("stdlib")) / "test" / "test_email" / "data"
MESSAGES = sorted(DATA.glob("*.txt"))
TOP = b"X-Sender: <app@shop.example>\nX-Receiver: <ann@a.example>\n"

pytestmark = pytest.mark.skipif(not MESSAGES, reason=f"this Python comes without {DATA}")


def as_sent(octets: bytes) -> bytes:
    """The message with its line ends as CRLF and without Bcc, by the slow and obvious way."""
    lines = octets.replace(b"\r\n", b"\n").replace(b"\r", b" ").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    kept, dropping, in_header = [], False, True
    for line in lines:
        in_header = in_header and line != b""
        if in_header and not line.startswith((b" ", b"\t")):
            dropping = line.lower().startswith(b"bcc:")
        if not (in_header and dropping):
            kept.append(line)
    return b"".join(line + b"\r\n" for line in kept)


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.name)
def test_a_message_of_cpython_s_tests_arrives_octet_for_octet(path):
    """Some are without From, some without any header, some malformed: all arrive."""
    original = path.read_bytes()
    content = reading(path.stem + ".eml", TOP + original).content
    sent = as_sent(original)
    assert content.endswith(sent)
    added = content[: -len(sent)]
    assert re.fullmatch(rb"(Date: [^\r]+\r\n)?(Message-ID: [^\r]+\r\n)?(\r\n)?", added)
    message, before = email.message_from_bytes(content), email.message_from_bytes(original)
    for name, line in (("Date", b"Date: "), ("Message-ID", b"Message-ID: ")):
        assert (line in added) == (before[name] is None)
        assert len(message.get_all(name, [])) == 1
    assert added.endswith(b"\r\n\r\n") == (not before.keys() and not sent.startswith(b"\r\n"))


def test_a_message_with_nothing_missing_is_not_touched():
    """Where all is there, the content is the file without the envelope's lines."""
    text = b"Date: x\r\nMessage-ID: y\r\n\r\nhi\r\n"
    assert reading("a.eml", TOP + text).content == text
    assert not text.startswith(ADDED)
