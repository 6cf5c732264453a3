"""Header fields written (RFC 5322, 2.2): folded at spaces, and 7-bit wherever mail has a way to say it so (RFC 2047).

Written here and not by the email package, whose folding has changed between Python's releases, and has unquoted names
and broken addresses in several of them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable

from service.message.address import ascii_form
from service.message.mailboxes import Mailbox

__all__ = ["address_field", "field", "text_field"]

_FOLD_AT = 76  # RFC 5322, 2.1.1 would have 78, but RFC 2047, 2 has 76 for lines with encoded words
_OCTETS_IN_WORD = 39  # with base64 and its frame 64 of 75 characters (RFC 2047, 2): fits after `Subject:`
_WORD = re.compile(r" *[^ ]+")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LONG = re.compile(r"[^ ]{500}")
_SPECIAL = re.compile(r'(["\\])')


def field(name: str, value: str) -> bytes:
    """The field, folded where it is longer than a line should be. `value` has no control characters."""
    line = f"{name}:"
    lines = []
    for number, word in enumerate(_WORD.findall(" " + value.strip(" "))):
        if number and len(line) + len(word) > _FOLD_AT:
            lines.append(line)
            line = word
        else:
            line += word
    lines.append(line)
    return "".join(f"{line}\r\n" for line in lines).encode()


def text_field(name: str, text: str) -> bytes:
    """An unstructured field such as Subject: encoded words where the text is not ASCII or has no place to fold it."""
    plain = text.isascii() and "=?" not in text and not _LONG.search(text)
    return field(name, text if plain else _encoded(text))


def address_field(name: str, mailboxes: Iterable[Mailbox]) -> bytes:
    """A field with a list of mailboxes. Domains are written as A-labels; a local part that is not ASCII as UTF-8."""
    return field(name, ", ".join(_written(mailbox) for mailbox in mailboxes))


def _written(mailbox: Mailbox) -> str:
    address = ascii_form(mailbox.address) or mailbox.address
    name = mailbox.name
    if not name:
        return address
    if not name.isascii() or _LONG.search(name):
        name = _encoded(name)
    elif not _PHRASE.fullmatch(name):
        name = '"' + _SPECIAL.sub(r"\\\1", name) + '"'
    return f"{name} <{address}>"


def _encoded(text: str) -> str:
    """The text as encoded words, split between characters (RFC 2047, 5)."""
    words: list[bytes] = []
    part = b""
    for character in text:
        octets = character.encode()
        if len(part) + len(octets) > _OCTETS_IN_WORD:
            words.append(part)
            part = b""
        part += octets
    words.append(part)
    return " ".join(f"=?utf-8?b?{b64encode(word).decode()}?=" for word in words)
