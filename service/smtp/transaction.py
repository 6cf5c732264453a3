"""One envelope's way through the conversation: MAIL, RCPT for each recipient, DATA or BDAT, content, confirmation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from service.message.address import ascii_form
from service.message.outcome import Outcome, Phase, State
from service.smtp import command
from service.smtp.body import Chunker, DotStuffer
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, ChunkingRefused
from service.smtp.events import BodyWanted, Event
from service.smtp.extensions import Extensions
from service.smtp.flight import Flight
from service.smtp.options import SessionOptions
from service.smtp.reply import Reply, clean_text
from service.smtp.stages import Expectation, Stage, Step

_UNKNOWN: Final = (500, 502, 503, 504)
"""What a server says that does not know BDAT (RFC 5321, 4.2.4), whatever it offered; not a word about the message."""


_STATES: Final = {2: State.DELIVERED, 4: State.WAITING}
"""What a reply makes of a recipient, by its first digit; every other fails it."""


class Content(Enum):
    """How far the content is."""

    NOT_YET = auto()
    WANTED = auto()
    COMPLETE = auto()
    REFUSED = auto()
    """In chunks, some of which may have gone: there is nobody left who would get them."""


class Transaction:
    """Asks the commands and keeps each recipient's outcome.

    A recipient without an outcome still hopes. When none does, what has not gone yet is taken back, what has gone is
    heard to its end, and the server is reset if it may still hold something of this envelope. Then it is `over`.
    `close` says that the outcomes stand, but that the conversation is out of step.

    `chunking`: the content goes by BDAT (RFC 3030), right behind the envelope, before any of it is answered. That takes
    PIPELINING; else each chunk would wait for the answer to the one before. A server reads on behind a chunk that it
    refused (RFC 3030, 2), and must be reset then: by this transaction, or by the one behind it, which begins with RSET.
    """

    __slots__ = (
        "_accepted",
        "_body",
        "_chunks_known",
        "_envelope",
        "_extensions",
        "_flight",
        "_hoping",
        "_options",
        "_outcomes",
        "_to_reset",
        "chunking",
        "close",
        "content",
        "over",
    )

    def __init__(self, envelope: Envelope, options: SessionOptions, extensions: Extensions, flight: Flight) -> None:
        self.content = Content.NOT_YET
        self.over = False
        self.close = False
        self.chunking = options.chunking and extensions.chunking and extensions.pipelining
        self._envelope = envelope
        self._options = options
        self._extensions = extensions
        self._flight = flight
        self._outcomes: list[Outcome | None] = [None] * len(envelope.recipients)
        self._hoping = len(envelope.recipients)
        self._accepted: list[int] = []
        self._to_reset = False
        self._chunks_known = False
        self._body = Chunker() if self.chunking else DotStuffer()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes known so far, in the recipients' order."""
        return tuple(filter(None, self._outcomes))

    @property
    def hopes(self) -> bool:
        """Whether there is a recipient without an outcome."""
        return self._hoping > 0

    @property
    def answers_one_by_one(self) -> bool:
        """Whether the content will be answered more than once from here on: LMTP, RFC 2033, 4.2."""
        return self._options.lmtp and self._hoping > 1

    @property
    def complete(self) -> bool:
        """Whether nothing more of this envelope will be sent, so that the next may follow."""
        return self.over or self.content is Content.COMPLETE

    # what is sent

    def begin(self, ahead: bool) -> None:
        """Queue MAIL, RCPT and DATA; if there is nobody whom this server can serve, `over` at once instead.

        With `chunking` the content is wanted at once, in the place of DATA. `ahead`: not all is answered of what went
        before.
        """
        sender = self._sender_path()
        rcpts = [self._rcpt(index) for index in self._everybody()]
        if not self._hoping:
            self.over = True
            return
        ask = self._flight.ask
        if ahead and self.chunking:
            # a chunk may be refused that went before; and a server that took it for commands is found out here
            ask(b"RSET\r\n", Expectation(Stage.AHEAD, self))
        utf8 = not (sender.isascii() and b"".join(rcpts).isascii())
        ask(command.mail(sender, self._parameters(utf8)), Expectation(Stage.MAIL, self))
        for index, rcpt in enumerate(rcpts):
            if rcpt:
                ask(rcpt, Expectation(Stage.RCPT, self, index))
        if self.chunking:
            self.content = Content.WANTED
        else:
            ask(b"DATA\r\n", Expectation(Stage.DATA, self))

    def _sender_path(self) -> str:
        """The sender as it is sent; what stands against it, or against the content's size, is against all."""
        size, limit = self._envelope.size, self._extensions.size_limit
        if limit is not None and size > limit:
            text = f"the message has {size} octets, the server takes at most {limit}"
            self._refuse(self._everybody(), Phase.MAIL, "5.3.4", text)
        try:
            path = self._path(self._envelope.sender)
        except ValueError as error:
            self._refuse(self._everybody(), Phase.MAIL, "5.1.7", str(error))
            return ""
        if path is None:
            text = "the sender's address needs SMTPUTF8, which the server does not offer"
            self._refuse(self._everybody(), Phase.MAIL, "5.6.7", text)
        return path or ""

    def _rcpt(self, index: int) -> bytes:
        """The command for a recipient; b"" where it cannot be sent."""
        try:
            path = self._path(self._envelope.recipients[index])
            if path is not None:
                return command.rcpt(path)
        except ValueError as error:
            self._refuse((index,), Phase.RCPT, "5.1.3", str(error))
            return b""
        self._refuse((index,), Phase.RCPT, "5.6.7", "the address needs SMTPUTF8, which the server does not offer")
        return b""

    def _path(self, address: str) -> str | None:
        """How an address is sent; None if it cannot be. Raise `ValueError` if it is no address at all.

        An international domain goes as its A-label even where SMTPUTF8 is offered: it means the same, and the hops
        behind this server then need not know the extension.
        """
        command.checked_path(address)
        path = ascii_form(address)
        return address if path is None and self._extensions.smtputf8 else path

    def _parameters(self, utf8: bool) -> list[str]:
        parameters = []
        if self._extensions.size and self._envelope.size:
            parameters.append(f"SIZE={self._envelope.size}")
        if self._extensions.eight_bit_mime and self._envelope.eight_bit:
            parameters.append("BODY=8BITMIME")
        if utf8:
            parameters.append("SMTPUTF8")
        return parameters

    def send_body(self, piece: bytes, last: bool) -> None:
        """Queue content, and with `last` its end; nothing if nobody is left who would get it."""
        if self.content is Content.REFUSED:
            return
        if last:
            self.content = Content.COMPLETE
        if isinstance(self._body, Chunker):
            if last:
                self._flight.ask(self._body.last(piece), Expectation(Stage.LAST, self))
            elif piece:
                self._flight.ask(self._body.chunk(piece), Expectation(Stage.CHUNK, self))
        else:
            self._flight.say(self._body.stuff(piece))
            if last:
                self._flight.ask(self._body.end(), Expectation(Stage.CONFIRM, self))

    # what is answered: the session takes a step, and then looks whether this transaction is `over`

    def cleared(self, _asked: Expectation, _reply: Reply) -> None:
        """Nothing is left at the server of what went before."""

    def not_cleared(self, _asked: Expectation, reply: Reply) -> None:
        """Whatever the server does now, this envelope cannot be sent behind it."""
        raise BrokenAnswer(Phase.MAIL, f"RSET was refused: {reply.text}", code=reply.code, enhanced=reply.enhanced)

    def mail_taken(self, _asked: Expectation, _reply: Reply) -> None:
        """The server knows the sender."""
        self._to_reset = True

    def mail_refused(self, _asked: Expectation, reply: Reply) -> None:
        """Every recipient has this answer."""
        self._answer(self._everybody(), Phase.MAIL, reply)
        self._wind_up()

    def rcpt_taken(self, asked: Expectation, _reply: Reply) -> None:
        """One recipient may get the content."""
        self._to_reset = True
        self._accepted.append(asked.recipient)
        self._wind_up()

    def rcpt_refused(self, asked: Expectation, reply: Reply) -> None:
        """One recipient has its answer; the others go on."""
        self._answer((asked.recipient,), Phase.RCPT, reply)
        self._wind_up()

    def data_refused(self, _asked: Expectation, reply: Reply) -> None:
        """Every recipient that was accepted has this answer."""
        self._answer(self._everybody(), Phase.DATA, reply)
        self._wind_up()

    def body_wanted(self, _asked: Expectation, _reply: Reply) -> list[Event]:
        """The server waits for content, whether or not there is anyone to send it to."""
        if self._hoping:
            self.content = Content.WANTED
            return [BodyWanted()]
        if self._accepted or self._options.lmtp:
            # MAIL was refused and yet RCPT and DATA were not: a final dot now might deliver an empty message
            raise BrokenAnswer(Phase.DATA, "the server wants the content of a message that it refused")
        # pipelined, so DATA had gone before the refusals came: RFC 2920, 3.1 wants an empty message then
        self.content = Content.COMPLETE
        self._flight.ask(b".\r\n", Expectation(Stage.EMPTY, self))
        return []

    def body_refused(self, _asked: Expectation, reply: Reply) -> None:
        """The server did not wait for the content's end: its answer counts, the conversation does not go on."""
        self._answer(self._everybody(), Phase.BODY, reply)
        self.over = self.close = True

    def chunk_taken(self, _asked: Expectation, _reply: Reply) -> None:
        """The server has kept a chunk, or thrown it away behind one that it refused."""
        self._chunks_known = True
        self._wind_up()

    def chunk_refused(self, _asked: Expectation, reply: Reply) -> None:
        """Every recipient that was accepted has this answer, and the rest is not sent."""
        self._check_chunking(reply)
        self._to_reset = True
        self._answer(self._everybody(), Phase.BODY, reply)
        if self._options.lmtp and len(self._accepted) > 1 and self._flight.in_doubt(self):
            self.over = self.close = True  # nobody can tell whether the last chunk will have one answer or several
        else:
            self._wind_up()

    def answered(self, asked: Expectation, reply: Reply) -> None:
        """The answer to the content came: SMTP has one for all, LMTP one for each that was accepted (RFC 2033, 4.2)."""
        indices: Iterable[int] = self._everybody()
        if self._options.lmtp:
            indices = (next(index for index in self._accepted if self._outcomes[index] is None),)
        self._answer(indices, Phase.CONFIRM, reply)
        if self._hoping:
            self._flight.owe_another(asked)
        elif not self.chunking or reply.digit == 2 or State.DELIVERED in [each.state for each in self.outcomes]:
            self.over = True
        else:
            self._wind_up()

    def last_answered(self, asked: Expectation, reply: Reply) -> None:
        """The answer to the last chunk came; or what the server has to say to a chunk that was for nobody any more."""
        if self._hoping:
            self._check_chunking(reply)
            self.answered(asked, reply)
            return
        if reply.digit == 2 and (self._accepted or self._options.lmtp):
            raise BrokenAnswer(Phase.CONFIRM, "the server has taken a message that it refused before")
        self._to_reset = True
        self._wind_up()

    def _check_chunking(self, reply: Reply) -> None:
        """Raise `ChunkingRefused` if the first answer to a chunk says that the server knows no BDAT."""
        if self._hoping and not self._chunks_known and reply.code in _UNKNOWN:
            self._flight.forsake()
            text = f"CHUNKING is offered, and yet BDAT was refused: {reply.text}"
            raise ChunkingRefused(Phase.BODY, text, code=reply.code, enhanced=reply.enhanced)
        self._chunks_known = True

    def ended(self, _asked: Expectation, _reply: Reply) -> None:
        """The server has forgotten this envelope."""
        self.over = True

    def not_ended(self, _asked: Expectation, _reply: Reply) -> None:
        """The server refuses to forget it."""
        self.over = self.close = True

    def _wind_up(self) -> None:
        """When nobody hopes any more: take back what can be, hear the rest, reset."""
        if self._hoping:
            return
        self._flight.take_back(self)
        if self.chunking:
            self.content = Content.REFUSED
        if self._flight.owes(self):
            return
        if self._to_reset and not self._flight.expected:
            self._flight.ask(b"RSET\r\n", Expectation(Stage.RSET, self))
        else:
            self.over = True  # what may be under way behind this begins with a RSET of its own

    # outcomes

    def _everybody(self) -> range:
        return range(len(self._outcomes))

    def _answer(self, indices: Iterable[int], phase: Phase, reply: Reply) -> None:
        """The server's word on these recipients."""
        enhanced, text = reply.said
        self._seal(indices, _STATES.get(reply.digit, State.FAILED), phase, reply.code, enhanced, text)

    def _refuse(self, indices: Iterable[int], phase: Phase, enhanced: str, text: str) -> None:
        """Our own word on these recipients: this server cannot serve them, so it is not asked."""
        self._seal(indices, State.FAILED, phase, None, enhanced, clean_text(text))

    def _seal(
        self, indices: Iterable[int], state: State, phase: Phase, code: int | None, enhanced: str, text: str
    ) -> None:
        """Decide the fate of these recipients, where it has not been: the first answer counts."""
        for index in indices:
            if self._outcomes[index] is None:
                address = self._envelope.recipients[index]
                self._outcomes[index] = Outcome(address, state, code, enhanced, text, self._options.host, phase)
                self._hoping -= 1


TRANSACTION_STEPS: Final[dict[Step, Callable[[Transaction, Expectation, Reply], list[Event] | None]]] = {
    Step.CLEARED: Transaction.cleared,
    Step.NOT_CLEARED: Transaction.not_cleared,
    Step.MAIL_TAKEN: Transaction.mail_taken,
    Step.MAIL_REFUSED: Transaction.mail_refused,
    Step.RCPT_TAKEN: Transaction.rcpt_taken,
    Step.RCPT_REFUSED: Transaction.rcpt_refused,
    Step.BODY_WANTED: Transaction.body_wanted,
    Step.DATA_REFUSED: Transaction.data_refused,
    Step.BODY_REFUSED: Transaction.body_refused,
    Step.CHUNK_TAKEN: Transaction.chunk_taken,
    Step.CHUNK_REFUSED: Transaction.chunk_refused,
    Step.ANSWERED: Transaction.answered,
    Step.LAST_ANSWERED: Transaction.last_answered,
    Step.NOTHING_SENT: Transaction.ended,
    Step.RESET: Transaction.ended,
    Step.RESET_REFUSED: Transaction.not_ended,
}
