"""Octets to replies: limits, nonsense, and what is kept of what was said."""

from __future__ import annotations

import pytest

from service.smtp.reply import LINE_LIMIT, REPLY_LIMIT, TEXT_LIMIT, Reply, ReplyError, ReplyReader, clean_text


def read(octets: bytes) -> list[Reply]:
    """Every whole reply in the octets."""
    return list(ReplyReader().replies(octets))


def test_a_reply_of_several_lines_is_one_reply():
    """Its text is on one line, without the codes."""
    (reply,) = read(b"550-5.1.1 No such\r\n550-5.1.1 user\r\n550 5.1.1 here\r\n")
    assert (reply.code, reply.digit, reply.enhanced, reply.text) == (550, 5, "5.1.1", "No such user here")


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"250\r\n", 250, ""),
        (b"250 \r\n", 250, ""),
        (b"250 ok\n", 250, "ok"),
        (b"250-\r\n250 ok\r\n", 250, "ok"),
        (b"299 what is this\r\n", 299, "what is this"),
        (b"250 a\rb\r\n", 250, "a\\x0db"),
    ],
)
def test_what_servers_send_in_earnest_is_understood(line, code, text):
    """No text, a bare LF, a code that nobody registered."""
    (reply,) = read(line)
    assert (reply.code, reply.text) == (code, text)


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"2500 ok\r\n",
        b"250\tok\r\n",
        b"250_ok\r\n",
        b" 250 ok\r\n",
        b"199 ok\r\n",
        b"600 ok\r\n",
        b"000 ok\r\n",
        b"+50 ok\r\n",
        b"2\xb20 ok\r\n",
        b"\xff\xfe\x00\r\n",
        b"250-ok\r\n251 ok\r\n",
        b"250-ok\r\nhello\r\n",
    ],
)
def test_what_is_no_reply_is_an_error(octets):
    """And the error's text is safe to print."""
    with pytest.raises(ReplyError) as caught:
        read(octets)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_whole_replies_before_nonsense_are_still_given():
    """The error comes in its turn."""
    replies = ReplyReader().replies(b"250 ok\r\nhello\r\n")
    assert next(replies) == Reply(250, (b"ok",))
    with pytest.raises(ReplyError, match="hello"):
        next(replies)


def test_a_line_may_have_8_kib_and_no_more():
    """Its line end included; a line that never ends is not waited for."""
    line = b"250 " + b"x" * (LINE_LIMIT - 6) + b"\r\n"
    assert len(read(line)) == 1
    for longer in (b"x" + line, b"250 " + b"x" * (LINE_LIMIT - 5) + b"\r\n"):
        with pytest.raises(ReplyError, match="longer than 8192"):
            read(longer)
    with pytest.raises(ReplyError, match="longer than 8192"):
        read(b"2" * LINE_LIMIT)
    assert read(b"2" * (LINE_LIMIT - 1)) == []


def test_a_reply_may_have_32_kib_and_no_more():
    """All its lines together; the next reply counts anew."""
    lines = b"250-" + b"x" * 1018 + b"\r\n"
    last = b"250 " + b"x" * 1018 + b"\r\n"
    whole = lines * (REPLY_LIMIT // 1024 - 1) + last
    assert len(whole) == REPLY_LIMIT
    assert len(read(whole + whole)) == 2
    with pytest.raises(ReplyError, match="longer than 32768"):
        read(lines + whole)


def test_a_reply_without_end_is_not_kept_beyond_its_limit():
    """However it comes."""
    reader = ReplyReader()
    with pytest.raises(ReplyError):
        for _ in range(REPLY_LIMIT // 8 + 2):
            assert list(reader.replies(b"250-xx\r\n")) == []


def test_octets_beyond_the_last_reply_are_seen():
    """STARTTLS must know of them."""
    reader = ReplyReader()
    for _ in reader.replies(b"220 go\r\n"):
        assert not reader.pending
    for _ in reader.replies(b"220 go\r\n2"):
        assert reader.pending
    assert list(reader.replies(b"50-\r\n")) == []
    assert reader.pending


@pytest.mark.parametrize(
    ("line", "enhanced", "text"),
    [
        (b"250 2.1.5 ok", "2.1.5", "ok"),
        (b"250 2.1.5", "2.1.5", ""),
        (b"550 5.7.123   no", "5.7.123", "no"),
        (b"550 4.7.1 no", "", "4.7.1 no"),
        (b"250 2.1.5ok", "", "2.1.5ok"),
        (b"250 2.1 ok", "", "2.1 ok"),
        (b"354 3.0.0 go", "", "3.0.0 go"),
        (b"550 5.1.1234 no", "", "5.1.1234 no"),
    ],
)
def test_an_enhanced_status_code_is_one_that_fits_the_reply(line, enhanced, text):
    """RFC 2034: its class is the reply's first digit; anything else is text."""
    (reply,) = read(line + b"\r\n")
    assert (reply.enhanced, reply.text) == (enhanced, text)


def test_what_is_kept_is_printable_ascii_and_short():
    """A terminal, a log and a database may have it."""
    assert clean_text(b"a\0b\x1b[31m\xc3\xa9\x7f\tz") == "a\\x00b\\x1b[31m\\xc3\\xa9\\x7f\\x09z"
    assert clean_text("é\ud800") == "\\xc3\\xa9\\ud800"
    assert clean_text(b"x" * TEXT_LIMIT) == "x" * TEXT_LIMIT
    long = clean_text(b"\0" * 100_000_000)
    assert len(long) == TEXT_LIMIT
    assert long.endswith("...")
