"""Commands as octets. No argument can end its command early or pass for another: it is refused instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

COMMAND_LIMIT: Final = 512
"""Octets of a command line, its end included, that any server takes (RFC 5321, 4.5.3.1.4)."""

_PLAIN = re.compile(r"[!#-;=?-~]+")  # printable ASCII without space, quote and angle brackets
_WORD = re.compile(r"[!-~]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class CommandError(ValueError):
    """An argument that cannot be sent; the message says which and why."""


def hello(verb: str, hostname: str) -> bytes:
    """Build EHLO, HELO or LHLO."""
    return f"{verb} {_word('host name', hostname)}\r\n".encode("ascii")


def mail(sender: str, parameters: Iterable[str] = ()) -> bytes:
    """Build MAIL; `sender` "" is the null sender."""
    words = "".join([f" {_word('parameter', parameter)}" for parameter in parameters])
    return f"MAIL FROM:<{checked_path(sender)}>{words}\r\n".encode()


def rcpt(recipient: str) -> bytes:
    """Build RCPT."""
    if not recipient:
        raise CommandError("the recipient's address is empty")
    return f"RCPT TO:<{checked_path(recipient)}>\r\n".encode()


def auth(mechanism: str, initial: str | None = None) -> bytes:
    """Build AUTH; `initial` is the initial response in base64 ("=" if it is empty)."""
    words = ["AUTH", _word("mechanism", mechanism)]
    if initial is not None:
        words.append(_word("initial response", initial))
    return (" ".join(words) + "\r\n").encode("ascii")


def checked_path(address: str) -> str:
    """Return `address` if it can stand between angle brackets; spaces and brackets may only be in a quoted part."""
    if _PLAIN.fullmatch(address):
        return address
    if _CONTROL.search(address):
        raise CommandError(f"a control character in the address {address!a}")
    bare = _QUOTED.sub("", address, count=1) if address.startswith('"') else address
    if any(character in bare for character in ' <>"'):
        raise CommandError(f"a space, quote or angle bracket out of place in the address {address!a}")
    try:
        address.encode("utf-8")
    except UnicodeEncodeError:
        raise CommandError(f"the address {address!a} is not text") from None
    return address


def _word(what: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        raise CommandError(f"the {what} {value!a} is empty or has a space, a control or a non-ASCII character")
    return value
