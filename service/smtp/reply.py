"""Octets to replies (RFC 5321, 4.2): bounded, and nothing of what a server said gets out unescaped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

LINE_LIMIT: Final = 8 * 1024
"""Octets of one reply line, its end included. RFC 5321, 4.5.3.1.5 has 512; servers go beyond it."""

REPLY_LIMIT: Final = 32 * 1024
"""Octets of one reply, all of its lines included."""

TEXT_LIMIT: Final = 1000
"""Characters of a text that is kept."""

_SHOWN_LIMIT: Final = 60
_SINGLE = re.compile(rb"([2-5][0-9][0-9]) ([^\r\n]*)\r?\n")
_WHOLE = re.compile(rb"([2-5][0-9][0-9])((?:-[^\n]*\n\1)*)(?: ([^\n]*))?\n")
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(rb"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)")
_UNSAFE = re.compile(r"[^ -~]")


def clean_text(raw: bytes | str, limit: int = TEXT_LIMIT) -> str:
    """Make what a stranger said safe to print, log and keep: printable ASCII, at most `limit` characters.

    Every other octet (of the UTF-8 form, if it is a str) becomes `\\xNN`. A text that was cut ends in "...".
    """
    octets = raw if isinstance(raw, bytes) else raw.encode("utf-8", "backslashreplace")
    # no more is looked at than can be kept: the peer chooses the length
    text = octets[: limit + 1].decode("latin-1").strip(" ")
    if not (text.isascii() and text.isprintable()):
        text = _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class ReplyError(ValueError):
    """The server sent what is no reply; the message says what, escaped."""


class Reply(msgspec.Struct, frozen=True):
    """One whole reply: its code (200 to 599), and its lines without code and line end, as they came."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def digit(self) -> int:
        """The first digit, by which a reply is judged (RFC 5321, 4.2.1)."""
        return self.code // 100

    @property
    def enhanced(self) -> str:
        """The enhanced status code (RFC 2034) of the first line; "" if there is none or it contradicts the code."""
        found = _ENHANCED.match(self.lines[0])
        if found is None:
            return ""
        status = found[1].decode("ascii")
        return status if int(status[0]) == self.digit else ""

    @property
    def text(self) -> str:
        """What was said, without codes, on one line, escaped and capped."""
        return self.said[1]

    @property
    def said(self) -> tuple[str, str]:
        """`enhanced` and `text`."""
        enhanced = self.enhanced
        if not enhanced:
            return "", clean_text(b" ".join(self.lines))
        status = enhanced.encode("ascii")
        return enhanced, clean_text(b" ".join([line.removeprefix(status).strip(b" ") for line in self.lines]))


class ReplyReader:
    """Cuts what the server sends into replies. Holds no more than one reply and what was fed behind it.

    A bare LF ends a line too: a reply is only ever judged by its code, so there is nothing to smuggle.
    """

    __slots__ = ("_buffer", "_code", "_lines", "_searched", "_size")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[bytes] = []
        self._code = b""
        self._size = 0

    @property
    def pending(self) -> bool:
        """Whether there are octets beyond the last whole reply."""
        return bool(self._buffer or self._lines)

    def clear(self) -> None:
        """Forget everything that was fed: the conversation is over."""
        self._buffer.clear()
        self._lines.clear()

    def replies(self, data: bytes) -> Iterator[Reply]:
        """Take octets, and give each whole reply that they complete; raise `ReplyError` at what is none at all.

        After an error the reader is of no use any more.
        """
        buffer = self._buffer
        buffer += data
        while buffer:
            begun = self._lines or self._searched
            # nearly every reply comes in one piece, and most have one line, without a CR inside
            single = None if begun else _SINGLE.match(buffer, 0, LINE_LIMIT)
            if single is not None:
                code, text = single.groups()
                del buffer[: single.end()]
                yield Reply(int(code), (text,))
                continue
            reply = (None if begun else self._in_one_piece()) or self._line_by_line()
            if reply is None:
                return
            yield reply

    def _in_one_piece(self) -> Reply | None:
        whole = _WHOLE.match(self._buffer, 0, LINE_LIMIT)
        if whole is None:
            return None
        code, before, last = whole.groups(b"")
        del self._buffer[: whole.end()]
        lines = before.replace(b"\r\n", b"\n")[1:-4].split(b"\n%b-" % code) if before else ()
        return Reply(int(code), (*lines, last.removesuffix(b"\r")))

    def _line_by_line(self) -> Reply | None:
        while True:
            end = self._buffer.find(b"\n", self._searched, LINE_LIMIT)
            if end < 0:
                if len(self._buffer) >= LINE_LIMIT:
                    raise ReplyError(f"a reply line is longer than {LINE_LIMIT} octets: {self._shown(self._buffer)}")
                # a server that sends single octets must not make us search the line anew for each
                self._searched = len(self._buffer)
                return None
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self._searched = 0
            self._size += end + 1
            if self._take_line(line):
                return self._complete()

    def _take_line(self, line: bytes) -> bool:
        """Add a line to the reply; return whether it is the last."""
        found = _LINE.fullmatch(line)
        if found is None:
            raise ReplyError(f"not an SMTP reply: {self._shown(line)}")
        code, separator, text = found.groups()
        if self._lines and code != self._code:
            raise ReplyError(f"one reply with two codes, {self._code.decode()} and {code.decode()}")
        if self._size > REPLY_LIMIT:
            raise ReplyError(f"a reply is longer than {REPLY_LIMIT} octets")
        self._code = code
        self._lines.append(text or b"")
        return bool(separator != b"-")

    def _complete(self) -> Reply:
        reply = Reply(int(self._code), tuple(self._lines))
        self._lines.clear()
        self._size = 0
        return reply

    @staticmethod
    def _shown(octets: bytes | bytearray) -> str:
        return f'"{clean_text(bytes(octets[: _SHOWN_LIMIT + 1]), _SHOWN_LIMIT)}"'
