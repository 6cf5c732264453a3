"""Texts and files as they travel inside a message (RFC 2045, 6): 7-bit, and no line longer than mail allows.

Encoded by C code in one piece. The email package goes line by line instead, which takes gigabytes for a text of
millions of lines.
"""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp

from service.message.wire import normalise

__all__ = ["in_base64", "text_payload"]

_LONGEST_LINE = 998  # octets: RFC 5322, 2.1.1
_LINE_OF_BASE64 = 57  # octets that make a line of 76 characters


def text_payload(text: str) -> tuple[str, bytes]:
    """The transfer encoding that suits this text best, and its octets so encoded, with CRLF line ends.

    A text stays as it is where it can; else mostly ASCII is quoted-printable, which people can read, and the rest is
    base64. Raises `JobError` for a NUL.
    """
    octets = normalise(text.encode()) if text else b""
    if text.isascii() and not _has_long_line(octets):
        return "7bit", octets
    if sum(octet >= 0x80 for octet in octets[:1000]) < 250:
        return "quoted-printable", b2a_qp(octets, istext=True)
    return "base64", in_base64(octets)


def in_base64(data: bytes) -> bytes:
    """The octets in lines of base64, each ended by CRLF."""
    blocks = range(0, len(data), _LINE_OF_BASE64)
    return b"".join(b2a_base64(data[at : at + _LINE_OF_BASE64], newline=False) + b"\r\n" for at in blocks)


def _has_long_line(octets: bytes) -> bool:
    """Whether a line is too long; looks at as few line ends as it can."""
    position = 0
    while len(octets) - position > _LONGEST_LINE:
        end = octets.rfind(b"\n", position, position + _LONGEST_LINE + 2)
        if end < 0:
            return True
        position = end + 1
    return False
