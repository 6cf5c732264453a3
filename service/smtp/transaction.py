"""One envelope's way through the conversation: MAIL, RCPT for each recipient, DATA, content, confirmation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from service.message.address import ascii_form
from service.message.outcome import Outcome, Phase, State
from service.smtp import command
from service.smtp.body import DotStuffer
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer
from service.smtp.events import BodyWanted, Event
from service.smtp.extensions import Extensions
from service.smtp.flight import Flight
from service.smtp.options import SessionOptions
from service.smtp.reply import Reply, clean_text
from service.smtp.stages import Expectation, Stage, Step


class Content(Enum):
    """How far the content is."""

    NOT_YET = auto()
    WANTED = auto()
    COMPLETE = auto()


class Transaction:
    """Asks the commands and keeps each recipient's outcome.

    A recipient without an outcome still hopes. When none does, what has not gone yet is taken back, what has gone is
    heard to its end, and the server is reset if it may still hold something of this envelope. Then it is `over`.
    `close` says that the outcomes stand, but that the conversation is out of step.
    """

    __slots__ = (
        "_accepted",
        "_envelope",
        "_extensions",
        "_flight",
        "_hoping",
        "_mail_taken",
        "_options",
        "_outcomes",
        "_stuffer",
        "close",
        "content",
        "over",
    )

    def __init__(self, envelope: Envelope, options: SessionOptions, extensions: Extensions, flight: Flight) -> None:
        self.content = Content.NOT_YET
        self.over = False
        self.close = False
        self._envelope = envelope
        self._options = options
        self._extensions = extensions
        self._flight = flight
        self._outcomes: list[Outcome | None] = [None] * len(envelope.recipients)
        self._hoping = len(envelope.recipients)
        self._accepted: list[int] = []
        self._mail_taken = False
        self._stuffer = DotStuffer()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcomes known so far, in the recipients' order."""
        return tuple(outcome for outcome in self._outcomes if outcome is not None)

    @property
    def complete(self) -> bool:
        """Whether nothing more of this envelope will be sent, so that the next may follow."""
        return self.over or self.content is Content.COMPLETE

    # what is sent

    def begin(self) -> None:
        """Queue MAIL, RCPT and DATA; if there is nobody whom this server can serve, `over` at once instead."""
        sender = self._sender_path()
        paths = [self._recipient_path(index) for index in range(len(self._outcomes))]
        if not self._hoping:
            self.over = True
            return
        utf8 = not (sender.isascii() and all(path.isascii() for path in paths))
        self._flight.ask(command.mail(sender, self._parameters(utf8)), Expectation(Stage.MAIL, self))
        for index, path in enumerate(paths):
            if self._outcomes[index] is None:
                self._flight.ask(command.rcpt(path), Expectation(Stage.RCPT, self, (index,)))
        self._flight.ask(b"DATA\r\n", Expectation(Stage.DATA, self))

    def _sender_path(self) -> str:
        """The sender as it is sent; what stands against it, or against the content's size, is against all."""
        everybody = self._everybody()
        size, limit = self._envelope.size, self._extensions.size_limit
        if limit is not None and size > limit:
            text = f"the message has {size} octets, the server takes at most {limit}"
            self._refuse(everybody, Phase.MAIL, "5.3.4", text)
        try:
            path = self._path(self._envelope.sender)
        except ValueError as error:
            self._refuse(everybody, Phase.MAIL, "5.1.7", str(error))
            return ""
        if path is None:
            text = "the sender's address needs SMTPUTF8, which the server does not offer"
            self._refuse(everybody, Phase.MAIL, "5.6.7", text)
        return path or ""

    def _recipient_path(self, index: int) -> str:
        try:
            path = self._path(self._envelope.recipients[index])
            if path == "":
                raise command.CommandError("the recipient's address is empty")
        except ValueError as error:
            self._refuse((index,), Phase.RCPT, "5.1.3", str(error))
            return ""
        if path is None:
            text = "the address needs SMTPUTF8, which the server does not offer"
            self._refuse((index,), Phase.RCPT, "5.6.7", text)
        return path or ""

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
        """Queue content, and with `last` the final dot."""
        self._flight.ask(self._stuffer.stuff(piece))
        if not last:
            return
        self.content = Content.COMPLETE
        # LMTP answers for each accepted recipient, SMTP once for all (RFC 2033, 4.2)
        groups = [(index,) for index in self._accepted] if self._options.lmtp else [tuple(self._accepted)]
        self._flight.ask(self._stuffer.end(), *(Expectation(Stage.CONFIRM, self, group) for group in groups))

    # what is answered

    def take(self, step: Step, expectation: Expectation, reply: Reply) -> list[Event]:
        """Take a step of the table; the session then looks whether this transaction is `over`."""
        return _STEPS[step](self, expectation, reply) or []

    def mail_taken(self) -> None:
        """The server knows the sender."""
        self._mail_taken = True

    def mail_refused(self, reply: Reply) -> None:
        """Every recipient has this answer."""
        self._answer(self._everybody(), Phase.MAIL, reply)
        self._wind_up()

    def rcpt_taken(self, index: int) -> None:
        """One recipient may get the content."""
        self._accepted.append(index)
        self._wind_up()

    def rcpt_refused(self, index: int, reply: Reply) -> None:
        """One recipient has its answer; the others go on."""
        self._answer((index,), Phase.RCPT, reply)
        self._wind_up()

    def data_refused(self, reply: Reply) -> None:
        """Every recipient that was accepted has this answer."""
        self._answer(self._everybody(), Phase.DATA, reply)
        self._wind_up()

    def body_wanted(self) -> list[Event]:
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

    def body_refused(self, reply: Reply) -> None:
        """The server did not wait for the content's end: its answer counts, the conversation does not go on."""
        self._answer(self._everybody(), Phase.BODY, reply)
        self.over = self.close = True

    def answered(self, indices: tuple[int, ...], reply: Reply) -> None:
        """The answer to the final dot came, for these recipients."""
        self._answer(indices, Phase.CONFIRM, reply)
        self.over = not self._hoping

    def ended(self, close: bool = False) -> None:
        """The server has forgotten this envelope (or refused to: `close`)."""
        self.over = True
        self.close = close

    def _wind_up(self) -> None:
        """When nobody hopes any more: take back what can be, hear the rest, reset."""
        if self._hoping:
            return
        self._flight.take_back()
        if self._flight.busy:
            return
        if self._mail_taken or self._accepted:
            self._flight.ask(b"RSET\r\n", Expectation(Stage.RSET, self))
        else:
            self.over = True

    # outcomes

    def _everybody(self) -> range:
        return range(len(self._outcomes))

    def _answer(self, indices: Iterable[int], phase: Phase, reply: Reply) -> None:
        """The server's word on these recipients."""
        state = {2: State.DELIVERED, 4: State.WAITING}.get(reply.digit, State.FAILED)
        enhanced, text = reply.enhanced, reply.text
        for index in indices:
            self._seal(index, state, phase, reply.code, enhanced, text)

    def _refuse(self, indices: Iterable[int], phase: Phase, enhanced: str, text: str) -> None:
        """Our own word on these recipients: this server cannot serve them, so it is not asked."""
        for index in indices:
            self._seal(index, State.FAILED, phase, None, enhanced, clean_text(text))

    def _seal(self, index: int, state: State, phase: Phase, code: int | None, enhanced: str, text: str) -> None:
        """Decide a recipient's fate, unless it has been: the first answer counts."""
        if self._outcomes[index] is None:
            address = self._envelope.recipients[index]
            self._outcomes[index] = Outcome(address, state, code, enhanced, text, self._options.host, phase)
            self._hoping -= 1


_STEPS: Final[dict[Step, Callable[[Transaction, Expectation, Reply], list[Event] | None]]] = {
    Step.MAIL_TAKEN: lambda transaction, _, __: transaction.mail_taken(),
    Step.MAIL_REFUSED: lambda transaction, _, reply: transaction.mail_refused(reply),
    Step.RCPT_TAKEN: lambda transaction, asked, _: transaction.rcpt_taken(asked.recipients[0]),
    Step.RCPT_REFUSED: lambda transaction, asked, reply: transaction.rcpt_refused(asked.recipients[0], reply),
    Step.BODY_WANTED: lambda transaction, _, __: transaction.body_wanted(),
    Step.DATA_REFUSED: lambda transaction, _, reply: transaction.data_refused(reply),
    Step.BODY_REFUSED: lambda transaction, _, reply: transaction.body_refused(reply),
    Step.ANSWERED: lambda transaction, asked, reply: transaction.answered(asked.recipients, reply),
    Step.NOTHING_SENT: lambda transaction, _, __: transaction.ended(),
    Step.RESET: lambda transaction, _, __: transaction.ended(),
    Step.RESET_REFUSED: lambda transaction, _, __: transaction.ended(close=True),
}
