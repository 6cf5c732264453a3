"""The SMTP client's conversation, without I/O: octets in, octets and events out (RFC 5321).

What a reply means is decided by the table in `stages`; this file matches replies to what was asked, takes the steps,
and ends the conversation when something is not as it should be. The driver's part, after whatever it called:

    events = session.receive_data(octets)      # or send, connection_lost, timed_out, tls_established, tls_failed
    transport.write(session.data_to_send())    # always: until it is fetched, a command counts as not sent

    handshake   -> StartTLS? -> Ready
    transaction -> send() -> BodyWanted? -> send_body()* -> Finished
    anywhere    -> Failed

Where the server offers CHUNKING and PIPELINING `BodyWanted` comes from `send` itself: with the content given before
`data_to_send` is asked, the whole message is one write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from service.message.outcome import Phase
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, BrokenConfirmation, ConfirmationLost, DeliveryError, HostFailure
from service.smtp.events import BodyWanted, Event, Failed, Finished
from service.smtp.extensions import Extensions
from service.smtp.flight import Flight
from service.smtp.handshake import HANDSHAKE_STEPS, Handshake, refused
from service.smtp.options import SessionOptions
from service.smtp.reply import Reply, ReplyError, ReplyReader, clean_text
from service.smtp.stages import FINAL, NEXT, PHASES, Expectation, Stage, Step
from service.smtp.transaction import TRANSACTION_STEPS, Content, Transaction

_CLOSING: Final = 421
"""The server takes leave, in answer to whatever or unasked (RFC 5321, 3.8)."""

_IDLE: Final = Expectation(Stage.IDLE)

_STEPS: Final[dict[Step, Callable[[Any, Expectation, Reply], list[Event] | None]]] = {
    **HANDSHAKE_STEPS,
    **TRANSACTION_STEPS,
}
"""What takes each step: a method of the handshake, or of the transaction that has asked."""


class OutOfStepError(RuntimeError):
    """The driver called something that makes no sense now: our fault, never the server's."""


class Session:
    """One connection's conversation, from the greeting to QUIT.

    With `options.secure` (TLS from the start) it begins in phase TLS and waits for `tls_established`.

    `replies` counts the whole replies taken so far: a deadline is renewed when it grows, not when octets come.
    """

    __slots__ = ("_courteous", "_flight", "_handshake", "_options", "_reader", "_transactions", "closed", "replies")

    def __init__(self, options: SessionOptions) -> None:
        """Raise `ValueError` if `options.hostname` cannot be said to a server."""
        self._options = options
        self._reader = ReplyReader()
        self._flight = Flight()
        self._handshake = Handshake(options, self._flight)
        self._transactions: tuple[Transaction, ...] = ()  # no list: thousands of sessions share the empty tuple
        self._courteous = True
        self.replies = 0
        self.closed = False
        """Whether the conversation is over: failed, finished with `close`, or left by `quit`."""

    # what it knows

    @property
    def extensions(self) -> Extensions:
        """What the server offers now; empty before EHLO is answered and again after STARTTLS."""
        return self._handshake.extensions

    @property
    def secure(self) -> bool:
        """Whether the conversation is inside TLS."""
        return self._handshake.secure

    @property
    def tls_refusal(self) -> str:
        """Why an opportunistic session went on in the clear, for the log; "" if it did not."""
        return self._handshake.tls_refusal

    @property
    def phase(self) -> Phase:
        """What is being waited for now: names the deadline. MAIL when idle; BODY until the final dot is queued.

        With chunks, which are sent before the envelope is answered, it is BODY from `send` on and CONFIRM once the last
        is queued, whatever is answered meanwhile; until there is no recipient left who hopes.
        """
        if self._transactions:
            first = self._transactions[0]
            if first.content is Content.WANTED:
                return Phase.BODY
            if first.chunking and first.content is Content.COMPLETE:
                return Phase.CONFIRM
        expected = self._flight.expected
        if expected:
            return PHASES[expected[0].stage]
        return Phase.TLS if self._handshake.negotiating else Phase.MAIL

    @property
    def waiting(self) -> bool:
        """Whether a reply is owed to us, or will be once `data_to_send` has been written."""
        return bool(self._flight.expected)

    @property
    def idle(self) -> bool:
        """Whether the session is usable and nothing is going on: the handshake is done and no envelope is open."""
        return not self._transactions and self._handshake.done and not self.closed

    @property
    def wants_body(self) -> bool:
        """Whether `send_body` serves a purpose: content was wanted, is not complete, and not refused meanwhile."""
        return bool(self._transactions) and self._transactions[-1].content is Content.WANTED

    @property
    def takes_envelope(self) -> bool:
        """Whether `send` may be called: idle, or the last envelope's content is complete (it is then sent ahead)."""
        if not self._handshake.done or self.closed:
            return False
        return not self._transactions or self._transactions[-1].complete

    @property
    def takes_next_ahead(self) -> bool:
        """Whether the next envelope may go in one write with the end of this one's content. With chunks, where all of
        a message goes at once, it had better wait for the answer: else two would be in doubt together."""
        if not self._transactions or self._transactions[-1].chunking:
            return False
        return self._handshake.extensions.pipelining and self.takes_envelope

    # what happens to it

    def receive_data(self, data: bytes) -> list[Event]:
        """Take octets from the server. After the conversation's end nothing is heard any more."""
        events: list[Event] = []
        if self.closed:
            return events
        try:
            if self._handshake.negotiating:
                raise BrokenAnswer(Phase.TLS, "octets came in the clear when only the TLS handshake could come")
            for reply in self._reader.replies(data):
                self.replies += 1
                events += self._take(reply)
        except ReplyError as error:
            events += self._fail(BrokenAnswer(self.phase, str(error)))
        except DeliveryError as error:
            events += self._fail(error)
        return events

    def connection_lost(self, why: str) -> list[Event]:
        """Tell that the connection has ended (EOF, reset); `why` is for the operator."""
        if self.closed:
            return []
        self._courteous = False
        return self._fail(HostFailure(self.phase, clean_text(f"connection lost {self._situation()}: {why}")))

    def timed_out(self) -> list[Event]:
        """Tell that the deadline for `phase` has passed."""
        if self.closed:
            return []
        self._courteous = False
        return self._fail(HostFailure(self.phase, f"timed out {self._situation()}"))

    def data_to_send(self) -> bytes:
        """What has been queued since last asked; b"" if nothing."""
        return self._flight.fetch()

    def tls_established(self) -> None:
        """Tell that the TLS handshake is done and the certificate accepted."""
        if self.closed:
            return
        if not self._handshake.negotiating:
            raise OutOfStepError("TLS was not asked for")
        self._handshake.tls_established()

    def tls_failed(self, why: str, *, tampered: bool = False) -> list[Event]:
        """Tell that there is no TLS: `Failed` with a `HostFailure` in phase tls, also with "opportunistic".

        An opportunistic driver then connects anew with `skip_starttls`; but not after a `BrokenAnswer`, which it is if
        somebody has `tampered` with the handshake.
        """
        if self.closed:
            return []
        self._courteous = False
        kind = BrokenAnswer if tampered else HostFailure
        return self._fail(kind(Phase.TLS, clean_text(why)))

    # what it is told to do

    def send(self, envelope: Envelope) -> list[Event]:
        """Begin a transaction: MAIL, RCPT for each recipient, DATA; pipelined where offered.

        Returns `BodyWanted` at once where the content goes in chunks (RFC 3030), which takes the place of DATA then.
        Returns `Finished` at once if this server cannot serve any recipient (the message is too large for it, each
        address needs SMTPUTF8 and it has none). Raises `OutOfStepError` unless `takes_envelope`.
        """
        if not self.takes_envelope:
            raise OutOfStepError("the session does not take an envelope now")
        transaction = Transaction(envelope, self._options, self._handshake.extensions, self._flight)
        ahead = bool(self._transactions)
        self._transactions += (transaction,)
        transaction.begin(ahead)
        return [BodyWanted()] if transaction.content is Content.WANTED else self._finished()

    def send_body(self, piece: bytes, last: bool) -> None:
        """Queue content after `BodyWanted`: dot-stuffed, and `last` adds the final dot; or each piece as a BDAT chunk.

        Ignored once nobody gets it any more: the conversation is over, or all recipients were refused meanwhile.
        """
        if self.closed:
            return
        if not self._transactions or self._transactions[-1].content not in (Content.WANTED, Content.REFUSED):
            raise OutOfStepError("no content is wanted")
        self._transactions[-1].send_body(piece, last)

    def quit(self) -> None:
        """Take leave: queue QUIT where it can still be understood. Its reply is not waited for: write it and close."""
        understood = not (self.waiting or self._transactions or self._handshake.negotiating)
        if self._courteous and understood:
            self._flight.say(b"QUIT\r\n")
        self._courteous = False
        self.closed = True

    # replies

    def _situation(self) -> str:
        if self._handshake.negotiating:
            return "during the TLS handshake"
        if self._transactions and self._transactions[0].content is Content.WANTED:
            return "while the message was sent"
        expected = self._flight.expected
        return f"before the answer to {expected[0].stage}" if expected else "between messages"

    def _take(self, reply: Reply) -> list[Event]:
        """Match a reply to what it answers, and take the step that the table names."""
        asked = self._flight.answered()
        expectation = asked or self._unasked()
        step = NEXT.get((expectation.stage, reply.code // 100))
        if step is None or reply.code == _CLOSING:
            if asked is not None:
                self._flight.owe_another(asked)  # an unanswered final dot stays in doubt
            raise self._no_answer(expectation, reply)
        part = expectation.transaction or self._handshake
        events = _STEPS[step](part, expectation, reply) or []
        if step is Step.BEGIN_TLS and self._reader.pending:
            raise BrokenAnswer(Phase.TLS, "octets came in the clear behind the answer to STARTTLS")
        if self._transactions and self._transactions[0].over:
            events += self._finished()
        return events

    def _no_answer(self, expectation: Expectation, reply: Reply) -> HostFailure:
        """The failure that a reply means which answers nothing: the server takes leave, or is out of step."""
        phase = PHASES[expectation.stage] if expectation is not _IDLE else self.phase
        if reply.code == _CLOSING:
            self._left(expectation)
            return refused(phase, reply)
        text = clean_text(f"{reply.code} is no answer to {expectation.stage}: {reply.text}")
        return BrokenAnswer(phase, text, code=reply.code, enhanced=reply.enhanced)

    def _left(self, expectation: Expectation) -> None:
        """The server takes leave instead of an answer: what it has not answered it has not done, and does not do.

        But where it answers content once for each recipient, nobody knows what became of it for the next ones.
        """
        self._courteous = False
        transaction = expectation.transaction
        in_doubt = transaction is not None and transaction.answers_one_by_one and expectation.stage in FINAL
        self._flight.forsake(1 if in_doubt else 0)

    def _unasked(self) -> Expectation:
        """What a reply belongs to that was not asked for: content that is under way may be answered before its end."""
        first = self._transactions[0] if self._transactions else None
        if first is not None and not first.chunking and first.content is not Content.NOT_YET:
            return Expectation(Stage.BODY, first)
        return _IDLE

    # ends

    def _finished(self) -> list[Event]:
        """Let go of the envelopes that are done, in order: one that was sent ahead waits for those before it."""
        events: list[Event] = []
        while self._transactions and self._transactions[0].over:
            transaction, self._transactions = self._transactions[0], self._transactions[1:]
            events.append(Finished(transaction.outcomes, transaction.close))
            if transaction.close:
                self._courteous = False
                if self._transactions:
                    events += self._fail(HostFailure(Phase.MAIL, "the conversation ended with the message before"))
                self._close()
        return events

    def _fail(self, error: DeliveryError) -> list[Event]:
        """End the conversation; every open envelope has its own error."""
        if isinstance(error, BrokenAnswer):
            self._courteous = False
        error.host = self._options.host
        error.__traceback__ = error.__context__ = None  # frames of our callers, which have the event that has the error
        errors = [self._fate(error, transaction) for transaction in self._transactions] or [error]
        self._close()
        return [Failed(errors[0], tuple(errors[1:]))]

    def _fate(self, error: DeliveryError, transaction: Transaction) -> DeliveryError:
        """What the conversation's end means for one envelope."""
        kind = type(error)
        phase = error.phase
        if transaction.hopes and self._flight.in_doubt(transaction):
            kind = BrokenConfirmation if isinstance(error, BrokenAnswer) else ConfirmationLost
            phase = Phase.CONFIRM
        elif transaction is not self._transactions[0]:
            phase = Phase.MAIL  # nothing of it has been answered
        return kind(
            phase,
            error.text,
            code=error.code,
            enhanced=error.enhanced,
            host=error.host,
            outcomes=transaction.outcomes,
        )

    def _close(self) -> None:
        self.closed = True
        self._transactions = ()
        self._flight.end()
        self._reader.clear()
