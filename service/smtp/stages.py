"""The conversation's states, as data: everything that decides what a reply means is in this file.

A reply answers the oldest unanswered command (an `Expectation`); the stage of that and the reply's first digit
(RFC 5321, 4.2.1) name the step to take. A pair that is not in `NEXT` is illegal. Two codes are judged before: 421,
with which a server takes leave anywhere, and 521, with which it says in answer to EHLO that it takes no mail at all.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import TYPE_CHECKING, Final

import msgspec

from service.message.outcome import Phase

if TYPE_CHECKING:
    from service.smtp.transaction import Transaction


class Stage(StrEnum):
    """What a reply answers, as texts name it."""

    GREETING = "the connection"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    CANCEL = "the cancelled AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "unfinished content"
    CHUNK = "BDAT"
    CONFIRM = "the final dot"
    LAST = "the last BDAT"
    EMPTY = "the empty message"
    RSET = "RSET"
    AHEAD = "the RSET ahead of MAIL"
    IDLE = "anything that was asked"


class Step(StrEnum):  # not a plain Enum: as keys those are several times slower
    """What to do about a reply."""

    GREETED = auto()
    LEARN = auto()
    FALL_BACK = auto()
    BEGIN_TLS = auto()
    NO_TLS = auto()
    AUTHENTICATED = auto()
    CHALLENGED = auto()
    CANCELLED = auto()
    HOST_REFUSED = auto()
    MAIL_TAKEN = auto()
    MAIL_REFUSED = auto()
    RCPT_TAKEN = auto()
    RCPT_REFUSED = auto()
    BODY_WANTED = auto()
    DATA_REFUSED = auto()
    BODY_REFUSED = auto()
    CHUNK_TAKEN = auto()
    CHUNK_REFUSED = auto()
    ANSWERED = auto()
    LAST_ANSWERED = auto()
    NOTHING_SENT = auto()
    RESET = auto()
    RESET_REFUSED = auto()
    CLEARED = auto()
    NOT_CLEARED = auto()


NEXT: Final[dict[tuple[Stage, int], Step]] = {
    (Stage.GREETING, 2): Step.GREETED,
    (Stage.GREETING, 4): Step.HOST_REFUSED,
    (Stage.GREETING, 5): Step.HOST_REFUSED,
    (Stage.EHLO, 2): Step.LEARN,
    (Stage.EHLO, 4): Step.HOST_REFUSED,
    (Stage.EHLO, 5): Step.FALL_BACK,
    (Stage.HELO, 2): Step.LEARN,
    (Stage.HELO, 4): Step.HOST_REFUSED,
    (Stage.HELO, 5): Step.HOST_REFUSED,
    (Stage.STARTTLS, 2): Step.BEGIN_TLS,
    (Stage.STARTTLS, 4): Step.NO_TLS,
    (Stage.STARTTLS, 5): Step.NO_TLS,
    (Stage.AUTH, 2): Step.AUTHENTICATED,
    (Stage.AUTH, 3): Step.CHALLENGED,
    (Stage.AUTH, 4): Step.HOST_REFUSED,
    (Stage.AUTH, 5): Step.HOST_REFUSED,
    (Stage.CANCEL, 4): Step.CANCELLED,
    (Stage.CANCEL, 5): Step.CANCELLED,
    (Stage.MAIL, 2): Step.MAIL_TAKEN,
    (Stage.MAIL, 4): Step.MAIL_REFUSED,
    (Stage.MAIL, 5): Step.MAIL_REFUSED,
    (Stage.RCPT, 2): Step.RCPT_TAKEN,
    (Stage.RCPT, 4): Step.RCPT_REFUSED,
    (Stage.RCPT, 5): Step.RCPT_REFUSED,
    (Stage.DATA, 3): Step.BODY_WANTED,
    (Stage.DATA, 4): Step.DATA_REFUSED,
    (Stage.DATA, 5): Step.DATA_REFUSED,
    (Stage.BODY, 4): Step.BODY_REFUSED,
    (Stage.BODY, 5): Step.BODY_REFUSED,
    (Stage.CHUNK, 2): Step.CHUNK_TAKEN,
    (Stage.CHUNK, 4): Step.CHUNK_REFUSED,
    (Stage.CHUNK, 5): Step.CHUNK_REFUSED,
    (Stage.CONFIRM, 2): Step.ANSWERED,
    (Stage.CONFIRM, 4): Step.ANSWERED,
    (Stage.CONFIRM, 5): Step.ANSWERED,
    (Stage.LAST, 2): Step.LAST_ANSWERED,
    (Stage.LAST, 4): Step.LAST_ANSWERED,
    (Stage.LAST, 5): Step.LAST_ANSWERED,
    (Stage.EMPTY, 2): Step.NOTHING_SENT,
    (Stage.EMPTY, 4): Step.NOTHING_SENT,
    (Stage.EMPTY, 5): Step.NOTHING_SENT,
    (Stage.RSET, 2): Step.RESET,
    (Stage.RSET, 4): Step.RESET_REFUSED,
    (Stage.RSET, 5): Step.RESET_REFUSED,
    (Stage.AHEAD, 2): Step.CLEARED,
    (Stage.AHEAD, 4): Step.NOT_CLEARED,
    (Stage.AHEAD, 5): Step.NOT_CLEARED,
}

PHASES: Final[dict[Stage, Phase]] = {
    Stage.GREETING: Phase.GREETING,
    Stage.EHLO: Phase.EHLO,
    Stage.HELO: Phase.EHLO,
    Stage.STARTTLS: Phase.TLS,
    Stage.AUTH: Phase.AUTH,
    Stage.CANCEL: Phase.AUTH,
    Stage.MAIL: Phase.MAIL,
    Stage.RCPT: Phase.RCPT,
    Stage.DATA: Phase.DATA,
    Stage.BODY: Phase.BODY,
    Stage.CHUNK: Phase.BODY,
    Stage.CONFIRM: Phase.CONFIRM,
    Stage.LAST: Phase.CONFIRM,
    Stage.EMPTY: Phase.DATA,
    Stage.RSET: Phase.MAIL,
    Stage.AHEAD: Phase.MAIL,
    Stage.IDLE: Phase.MAIL,
}


FINAL: Final = (Stage.CONFIRM, Stage.LAST)
"""What completes a message: once it is out, and until it is answered, nobody knows who has the message."""


class Expectation(msgspec.Struct, frozen=True):
    """A reply that is owed: what it answers, for which transaction, and (RCPT) for which recipient, by its index."""

    stage: Stage
    transaction: Transaction | None = None
    recipient: int = -1
