"""What a server offers: the keywords of its reply to EHLO (RFC 5321, 4.1.1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec


class Extensions(msgspec.Struct, frozen=True):
    """The extensions that this client knows how to use.

    `size_limit` is in octets; None: no limit was named (RFC 1870, where 0 means that too). `auth` has the mechanisms in
    upper case. `keywords` has every keyword, in upper case, with its parameters as they came.
    """

    pipelining: bool = False
    starttls: bool = False
    size: bool = False
    size_limit: int | None = None
    eight_bit_mime: bool = False
    smtputf8: bool = False
    chunking: bool = False
    enhanced_status_codes: bool = False
    auth: frozenset[str] = frozenset()
    keywords: dict[str, tuple[str, ...]] = {}


NONE = Extensions()
"""What is known before EHLO, after HELO, and after STARTTLS."""


def parse_extensions(lines: Iterable[bytes]) -> Extensions:
    """Read the lines of a 250 to EHLO (without code); the first is the server's greeting, not an extension."""
    return _read(tuple(lines)[1:])


@lru_cache(maxsize=64)  # thousands of connections to one server share one object; 64 answers have at most 2 MiB
def _read(lines: tuple[bytes, ...]) -> Extensions:
    keywords: dict[str, tuple[str, ...]] = {}
    for line in lines:
        words = line.decode("ascii", "replace").split()
        if not words:
            continue
        name = words[0].upper()
        if name.startswith("AUTH="):
            # how servers older than RFC 2554 said it; some still say both
            name = "AUTH"
            words.insert(1, words[0][5:])
        keywords[name] = keywords.get(name, ()) + tuple(words[1:])
    return Extensions(
        pipelining="PIPELINING" in keywords,
        starttls="STARTTLS" in keywords,
        size="SIZE" in keywords,
        size_limit=_size_limit(keywords.get("SIZE", ())),
        eight_bit_mime="8BITMIME" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        chunking="CHUNKING" in keywords,
        enhanced_status_codes="ENHANCEDSTATUSCODES" in keywords,
        auth=frozenset(word.upper() for word in keywords.get("AUTH", ())),
        keywords=keywords,
    )


def _size_limit(parameters: tuple[str, ...]) -> int | None:
    # RFC 1870 allows 20 digits; more is no limit that any message could meet
    if not parameters or len(parameters[0]) > 20 or not (parameters[0].isascii() and parameters[0].isdigit()):
        return None
    return int(parameters[0]) or None
