"""Content ready for the wire: no sequence of CR, LF and dots can end a message early."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.message.job import JobError
from service.message.wire import normalise

STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"", b"\r\n"),
        (b"a", b"a\r\n"),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\rb\n", b"a b\r\n"),
        (b"a\r\r\nb", b"a \r\nb\r\n"),
        (b"a\n\rb\n", b"a\r\n b\r\n"),
        (b"a\r\nb\nc\r", b"a\r\nb\r\nc \r\n"),
        (b"a\r", b"a \r\n"),
        (b"\xff\xfe\x01" + b"x" * 2000, b"\xff\xfe\x01" + b"x" * 2000 + b"\r\n"),
    ],
)
def test_each_line_end_becomes_crlf_and_a_bare_cr_a_space(data, content):
    """The contract's two changes, and no third: long lines and 8-bit octets stay."""
    assert normalise(data) == content


def test_a_nul_is_refused_with_its_line():
    """There is no way to send a NUL (RFC 5321, 4.5.2)."""
    with pytest.raises(JobError, match="line 3 holds a NUL"):
        normalise(b"a\nb\nc\0d\n")


@pytest.mark.parametrize("before", [b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r"])
@pytest.mark.parametrize("after", [b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r"])
def test_a_smuggled_end_of_data_is_either_a_line_with_a_dot_or_no_line(before, after):
    """Only a CRLF before and after makes a lone dot a line, and that line is dot-stuffed when it is sent."""
    content = normalise(b"text" + before + b"." + after + b"MAIL FROM:<eve@a.example>\r\n")
    assert STRAY.search(content) is None
    stuffed = re.sub(rb"(?m)^\.", b"..", content)
    for end in (b"\r\n.\r\n", b"\n.\n", b"\n.\r", b"\r.\r", b"\r.\n"):
        assert end not in stuffed


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\xff", b" "])).map(b"".join))
@example(b"\r\r\r\n\n\n\r")
def test_normalised_content_has_no_stray_line_end_and_is_left_alone_the_second_time(data):
    """Whatever comes in, each CR and each LF that goes out is half of a CRLF; all else is kept."""
    content = normalise(data)
    assert STRAY.search(content) is None
    assert content.endswith(b"\r\n")
    assert normalise(content) == content
    assert re.sub(rb"[\r\n ]", b"", content) == re.sub(rb"[\r\n ]", b"", data)
