"""What became of a recipient: the words that the protocol, the queue and the result files share."""

from __future__ import annotations

from enum import StrEnum
from operator import attrgetter
from typing import Final

import msgspec


class Phase(StrEnum):
    """The step of the chain an answer belongs to: connect, handshake (greeting to auth), send, confirm."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    CONFIRM = "confirm"


class State(StrEnum):
    """Where a recipient stands. Only `WAITING` is ever tried again."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True):
    """What the last try brought for one recipient.

    `code` is the reply's three digits, None where no reply came. `enhanced` is its status code (RFC 3463) as text
    ("4.2.0"), or "". `text` is what the server said, escaped and capped: it is safe to print anywhere. `host` names
    the server as the operator knows it ("mx.example.net:25"), or "" where none was reached.

    `said` is set where the recipient was given up because its time is over: what the last try said, its status code
    in front ("" for nothing), without the words of ours that are in `text` then.
    """

    address: str
    state: State
    code: int | None
    enhanced: str
    text: str
    host: str
    phase: Phase
    said: str | None = None

    @property
    def answer(self) -> str:
        """What the last try said, on one line with its codes: the server's own words where it spoke."""
        words = (self.enhanced, self.text) if self.said is None else (self.said,)
        return " ".join(part for part in (str(self.code or ""), *words) if part)


address_of: Final = attrgetter("address")
state_of: Final = attrgetter("state")
"""Of an outcome; what has to be known of all outcomes is known soonest by `map`."""
