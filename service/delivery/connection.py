"""One conversation with one server: the SMTP session on a transport, its steps as Deferreds.

    handshake -> [send -> confirm -> release]* -> quit | lost

Each wait has a deadline that only a whole reply, or a whole piece of content taken, renews: octets that drip do not.
After anything unexpected the connection is closed and never used again.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Protocol, TypeVar

from config.settings import Timeouts
from deferred.defer import Deferred, maybe_deferred
from deferred.failure import Failure
from deferred.interfaces import TimerHandle, TimeSource
from deferred.protocol import BaseProtocol, BufferedOctetsError, Transport
from service.delivery import tls
from service.delivery.content import Content
from service.delivery.receipt import Receipt, describe
from service.delivery.steps import Steps, deadline
from service.journal import Journal
from service.message.outcome import Phase
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, ConfirmationLost, DeliveryError, HostFailure
from service.smtp.events import BodyWanted, Event, Failed, Finished, Ready, StartTLS
from service.smtp.session import Session

R = TypeVar("R")

_LEAVE_TAKING: Final = 5.0
"""Seconds for QUIT to go out and be answered; then the connection is cut."""


class Owner(Protocol):
    """Who keeps connections between messages."""

    def keep(self, connection: Connection) -> None:
        """The connection can take another message."""

    def lost(self, connection: Connection) -> None:
        """The connection is gone."""


class _Moment(Enum):
    READY = auto()
    SENT = auto()
    ANSWERED = auto()


class Connection(BaseProtocol):
    """A conversation that carries one message after the other."""

    def __init__(
        self,
        clock: TimeSource,
        session: Session,
        owner: Owner,
        journal: Journal,
        *,
        site: str,
        generation: int = 0,
        host: str,
        server_hostname: str,
        timeouts: Timeouts,
        context: ssl.SSLContext | None,
    ) -> None:
        self.site = site
        self.generation = generation
        """Of the settings under which it was opened."""
        self.host = host
        self.messages = 0
        """Messages taken on so far."""
        self.retired = False
        """Whether it has carried its last message: whoever had it quits it once that message's outcome is written."""
        self.lost = False
        self._clock = clock
        self._session = session
        self._owner = owner
        self._server_hostname = server_hostname
        self._timeouts = timeouts
        self._context = context
        self._transport: Transport | None = None
        self._timer: TimerHandle | None = None
        self._progress: tuple[object, ...] = ()
        self._reached: set[_Moment] = set()
        self._waiter: tuple[_Moment, Deferred[Any]] | None = None
        self._error: DeliveryError | None = None
        self._broken: Failure | None = None
        self._receipt = Receipt(())
        self._content: Content | None = None
        self._piece = 0
        self._wanted = self._reading = self._full = False
        self._leaving = self._shaking_hands = False
        self._steps = Steps(clock, journal, host, session.phase)

    def work_for(self, job: str) -> None:
        """What is done from now on is done for the job with this id."""
        self._steps.job = job

    # the steps

    def handshake(self) -> Deferred[Connection]:
        """Fire with this connection once the server takes messages: greeting, EHLO, STARTTLS, AUTH.

        Fails with `HostFailure`, as every step does.
        """
        return self._wait_for(_Moment.READY)

    def send(self, envelope: Envelope, content: Content) -> Deferred[Connection]:
        """Fire once the whole message has gone out, or the server has refused it.

        Fails with `HostFailure`, or with whatever reading the content failed with: then the message has not gone out.
        """
        self.messages += 1
        self._reached -= {_Moment.SENT, _Moment.ANSWERED}
        self._content, self._piece = content, 0
        self._steps.begin()
        self._take(self._session.send(envelope))
        return self._wait_for(_Moment.SENT)

    def confirm(self) -> Deferred[Receipt]:
        """Fire with the receipt once the server has answered for every recipient.

        Fails with `ConfirmationLost` if it never does: from the final dot on nobody knows whether it has the message.
        """
        return self._wait_for(_Moment.ANSWERED).add_callback(lambda _: self._receipt)

    def release(self, result: R) -> R:
        """Give the connection back, whatever came of the message, and hand `result` on."""
        if isinstance(result, Failure) or not self.usable:
            self.abort()
        else:
            self._owner.keep(self)
        return result

    def quit(self, *, wait: bool = True) -> None:
        """Take leave and close: once the server has answered, or (`wait` False) at once."""
        self._session.quit()
        goodbye = self._session.data_to_send()
        if self._transport is None or self.lost:
            return
        self._transport.write(goodbye)
        self._leaving = bool(goodbye) and wait
        if not self._leaving:
            self._transport.close()
        self._set_timer(_LEAVE_TAKING, self._transport.abort)

    def abort(self) -> None:
        """Close at once, in the middle of whatever is going on: with a reset where that is the content."""
        leave: Callable[[], None] = self._cut if self.past_data else self.quit
        for event in self._session.connection_lost("given up by us"):
            if isinstance(event, Failed) and self._error is None:
                self._error = self._as_it_was(event.error)
        self._content = None
        leave()

    @property
    def past_data(self) -> bool:
        """Whether the server has asked for the content (354), and has not answered it yet."""
        return self._session.phase in (Phase.BODY, Phase.CONFIRM)

    @property
    def usable(self) -> bool:
        """Whether another message can be sent."""
        return self._session.idle and self._transport is not None and not self._transport.is_closing()

    @property
    def secure(self) -> bool:
        """Whether it is inside TLS."""
        return self._session.secure

    @property
    def peer(self) -> tuple[str, int] | None:
        """The address it goes to."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return (name[0], name[1]) if name else None

    # what is waited for

    def _wait_for(self, moment: _Moment) -> Deferred[Any]:
        d: Deferred[Any] = Deferred(self._given_up)
        self._waiter = (moment, d)
        self._wake()
        return d

    def _given_up(self, d: Deferred[Any]) -> None:
        """The wait was cancelled: an answer for some, or doubt, must not get lost over it."""
        self._waiter = None
        self.abort()
        if self._error is not None and (self._error.outcomes or isinstance(self._error, ConfirmationLost)):
            d.errback(self._error)

    def _wake(self) -> None:
        """Fire the wait if what it waits for is there. Comes last in each turn: the next step starts from here."""
        if self._waiter is None:
            return
        moment, d = self._waiter
        fault, answered = self._broken or self._error, _Moment.ANSWERED in self._reached
        # an answer stands whatever came after it, within the same read perhaps; the end of a handshake does not
        if moment in self._reached and (fault is None or answered):
            self._waiter = None
            d.callback(self)
        elif fault is not None:
            self._waiter = None
            d.errback(fault)

    # the transport's calls

    def connection_made(self, transport: Transport) -> None:
        """The stream is there; with `smtps` TLS comes first, in the same way as after STARTTLS."""
        self._transport = transport
        transport.set_write_buffer_limits(0)  # so that `_full` tells exactly whether something of ours is still here
        if self._session.phase is Phase.TLS:
            self._start_tls()
        self._take([])

    def data_received(self, data: bytes) -> None:
        """The server says something."""
        if self._leaving and self._transport is not None:
            self._transport.close()  # to close with octets unread would reset what we said last
            return
        try:
            self._take(self._session.receive_data(data))
        except Exception as error:  # noqa: BLE001 (a bug of ours: it must not look like a connection that the host lost)
            self._fault(Failure(error))

    def connection_lost(self, error: Exception | None) -> None:
        """The stream is gone."""
        self.lost = True
        if not self._shaking_hands:  # else `start_tls` fails as well, and knows why
            self._take(self._session.connection_lost(describe(error)))
        self._set_timer(None)
        self._owner.lost(self)

    def pause_writing(self) -> None:
        """The server does not keep up."""
        self._full = True

    def resume_writing(self) -> None:
        """All that was written is out."""
        self._full = False
        self._go_on()
        self._take([])

    # the session's events

    def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Ready():
                    self._reached.add(_Moment.READY)
                case StartTLS():
                    self._flush()
                    self._start_tls()
                case BodyWanted():
                    self._wanted = True
                case Finished(outcomes=outcomes, close=close):
                    self._finish(Receipt(outcomes), close)
                case Failed(error=error):
                    self._fail(error)
        if self._wanted:
            self._wanted = False
            self._next_piece()
        if self._error is None:
            self._steps.reach(self._session.phase)  # before what it leads to can be seen of it
        self._flush()
        self._watch()
        self._wake()

    def _finish(self, receipt: Receipt, close: bool) -> None:
        self._content = None
        self._receipt = receipt
        self._reached |= {_Moment.SENT, _Moment.ANSWERED}
        if close:
            self._cut()

    def _fail(self, error: DeliveryError) -> None:
        self._content = None
        if self._error is None:
            self._error = self._as_it_was(error)
        self._cut()

    def _as_it_was(self, error: DeliveryError) -> DeliveryError:
        """The error, but no doubt where there can be none: the final dot is the last of our octets, and if some are
        still here, so is the dot."""
        if isinstance(error, ConfirmationLost) and self._full:
            return HostFailure(Phase.BODY, error.text, host=error.host or self.host, outcomes=error.outcomes)
        error.host = error.host or self.host
        return error

    def _cut(self) -> None:
        self._set_timer(None)
        if self._transport is not None and not self.lost:
            self._transport.abort()

    def _flush(self) -> None:
        data = self._session.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    # TLS

    def _start_tls(self) -> None:
        assert self._transport is not None
        assert self._context is not None, "policy none never asks for TLS"
        self._shaking_hands = True
        d = self._transport.start_tls(self._context, server_hostname=self._server_hostname, timeout=self._timeouts.tls)
        d.add_callbacks(self._tls_established, self._tls_failed)
        d.add_errback(self._fault)

    def _tls_established(self, _: None) -> None:
        self._shaking_hands = False
        self._session.tls_established()
        self._take([])

    def _tls_failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, OSError):  # of which ssl.SSLError, TimeoutError and ConnectionError are
            failure.raise_exception()
        self._shaking_hands = False
        if isinstance(error, BufferedOctetsError):
            why = "octets came before the TLS handshake, which may be anybody's"
            self._fail(BrokenAnswer(Phase.TLS, why, host=self.host))
            self._take(self._session.tls_failed(why))
            return
        session = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        self._take(self._session.tls_failed(tls.explain(error, self._server_hostname, session)))

    # the content

    def _next_piece(self) -> None:
        content = self._content
        if content is None or self._reading or self.lost:
            return
        self._reading = True
        self._watch()
        d: Deferred[bytes] = maybe_deferred(content.read, self._piece)
        d.add_callback(self._send_piece)
        d.add_errback(self._fault)

    def _send_piece(self, piece: bytes) -> None:
        self._reading = False
        content = self._content
        if content is None:
            return  # the server has answered meanwhile
        self._piece += 1
        last = self._piece == content.pieces
        if last:
            self._content = None
        self._session.send_body(piece, last)
        self._flush()
        self._go_on()
        self._take([])

    def _go_on(self) -> None:
        """With room in the transport: the next piece, or, after the last, the wait for the answer."""
        if self._full:
            return
        if self._content is not None and self._session.phase is Phase.BODY:
            self._clock.call_soon(self._next_piece)  # others have their turn between two pieces
        elif self._session.phase is Phase.CONFIRM:
            self._reached.add(_Moment.SENT)

    def _fault(self, failure: Failure) -> None:
        """It is not the server's fault: the failure goes to whoever waits, as it is."""
        self._reading, self._content = False, None
        self._broken = failure
        self._cut()
        self._wake()

    # deadlines and steps

    def _watch(self) -> None:
        """Start the deadline anew if anything whole has happened since it was started."""
        progress = (self._session.phase, self._session.replies, self._piece, self._full, self._reading, self.messages)
        if progress == self._progress or self._session.closed:
            return
        self._progress = progress
        self._set_timer(self._patience(), self._timed_out)

    def _patience(self) -> float | None:
        """Seconds that the present wait may take; None where the server owes nothing."""
        if self._session.idle or self._shaking_hands or self._reading:
            return None
        return deadline(self._session.phase, self._full, self._timeouts)

    def _timed_out(self) -> None:
        self._timer = None
        self._take(self._session.timed_out())

    def _set_timer(self, seconds: float | None, function: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and function is not None and not self.lost:
            self._timer = self._clock.call_later(seconds, function)
