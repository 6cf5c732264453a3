"""What is said to the server about a message before its content: RFC 5321, 2.3.1."""

from __future__ import annotations

import msgspec


class Envelope(msgspec.Struct, frozen=True):
    """One message's way: from whom, to whom, and what the server is told of its content beforehand.

    `sender` is "" for the null sender. Addresses are as they were written: the session sends a domain as its A-label.
    `size` is the content's length in octets before dot-stuffing; 0: not known, then SIZE is neither declared nor
    checked. `eight_bit`: the content has an octet above 127.
    """

    sender: str
    recipients: tuple[str, ...]
    size: int = 0
    eight_bit: bool = False
