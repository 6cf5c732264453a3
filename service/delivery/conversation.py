"""A conversation with one server: the SMTP session on a transport, up to where it takes messages, and to its end.

    handshake -> (messages: see `connection`) -> quit | abort | lost

Each wait has a deadline that only a whole reply, or a whole piece of content taken, renews: octets that drip do not.
After anything unexpected the conversation is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self

from config.settings import Timeouts
from deferred.defer import Deferred, fail, succeed
from deferred.failure import Failure
from deferred.interfaces import TimeSource
from deferred.protocol import BaseProtocol, Transport
from service.delivery.deadline import Deadline
from service.delivery.encryption import Encryption, NoTLS
from service.delivery.receipt import describe
from service.delivery.steps import Steps, deadline
from service.journal import Journal
from service.message.outcome import Phase
from service.smtp.errors import BrokenAnswer, DeliveryError
from service.smtp.events import Event, Failed, Ready, StartTLS
from service.smtp.session import Session

_LEAVE_TAKING: Final = 5.0
"""Seconds for QUIT to go out and be answered; then the connection is cut."""


class Conversation(BaseProtocol):
    """What is said and heard, with TLS and deadlines; what comes of it is a subclass's."""

    __slots__ = (
        "_clock",
        "_deadline",
        "_encryption",
        "_error",
        "_full",
        "_leaving",
        "_ready",
        "_session",
        "_shaking_hands",
        "_steps",
        "_timeouts",
        "_transport",
        "_waits_until_ready",
        "host",
        "lost",
        "resumed_in_vain",
        "timed_out",
    )

    def __init__(
        self,
        clock: TimeSource,
        session: Session,
        journal: Journal,
        *,
        host: str,
        timeouts: Timeouts,
        encryption: Encryption | None,
    ) -> None:
        self.host = host
        self.lost = False
        self.timed_out = False
        """Whether it has ended because the server did not answer in time."""
        self.resumed_in_vain = False
        """Whether it was lost before it took messages, perhaps for the TLS session that it was to resume."""
        self._clock = clock
        self._session = session
        self._timeouts = timeouts
        self._encryption = encryption
        self._transport: Transport | None = None
        self._steps = Steps(clock, journal, host, session.phase)
        self._deadline = Deadline(clock, self._timed_out)
        self._waits_until_ready: Deferred[Any] | None = None
        self._ready = False
        self._error: DeliveryError | None = None
        self._full = False  # something of ours is still here
        self._shaking_hands = self._leaving = False

    # the steps

    def handshake(self, job: str = "") -> Deferred[Self]:
        """Fire with this once the server takes messages: greeting, EHLO, STARTTLS, AUTH.

        It is made for the job with this id. Fails with `HostFailure`.
        """
        if self._error is not None:
            return fail(self._error)
        if self._ready:
            return succeed(self)
        self._steps.job = job
        d: Deferred[Self] = Deferred(self._not_wanted)
        self._waits_until_ready = d
        return d

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
        self._deadline.passed = self._transport.abort
        self._deadline.set(_LEAVE_TAKING)

    def abort(self) -> None:
        """Close at once, in the middle of whatever is going on: with a reset where that is the content."""
        leave: Callable[[], None] = self._cut if self.past_data else self.quit
        for event in self._session.connection_lost("given up by us"):
            if isinstance(event, Failed):
                self._failed(event)
        leave()

    def _not_wanted(self, _: Deferred[Any]) -> None:
        self._waits_until_ready = None
        self.abort()

    @property
    def past_data(self) -> bool:
        """Whether the server has asked for content (354), or gets it unasked, and has not answered it yet."""
        return self._session.phase in (Phase.BODY, Phase.CONFIRM)

    @property
    def phase(self) -> Phase:
        """What is said or waited for."""
        return self._session.phase

    @property
    def secure(self) -> bool:
        """Whether it is inside TLS."""
        return self._session.secure

    @property
    def peer(self) -> tuple[str, int] | None:
        """The address it goes to."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return (name[0], name[1]) if name else None

    # the transport's calls

    def connection_made(self, transport: Transport) -> None:
        """The stream is there; with `smtps` TLS comes first, in the same way as after STARTTLS."""
        self._transport = transport
        transport.set_write_buffer_limits(0)  # so that `_full` tells exactly whether something of ours is still here
        phase = self._session.phase
        if phase is Phase.TLS:
            self._start_tls()
        self._watch(phase)

    def data_received(self, data: bytes) -> None:
        """The server says something."""
        if self._leaving and self._transport is not None:
            self._transport.close()  # to close with octets unread would reset what we said last
            return
        heard = self._session.replies
        try:
            events = self._session.receive_data(data)
            self._take(events, whole=self._session.replies != heard)
        except Exception as error:  # noqa: BLE001 (a bug of ours: it must not look like a connection that the host lost)
            self._fault(Failure(error))

    def connection_lost(self, error: Exception | None) -> None:
        """The stream is gone."""
        self.lost = True
        if not self._shaking_hands:  # else `start_tls` fails as well, and knows why
            self._take(self._session.connection_lost(describe(error)))
        self._deadline.drop()

    def pause_writing(self) -> None:
        """The server does not keep up."""
        self._full = True

    def resume_writing(self) -> None:
        """All that was written is out."""
        self._full = False
        self._take([])

    # the session's events

    def _take(self, events: list[Event], *, whole: bool = True) -> None:
        """Take the session's events, and whatever is to be done next. The deadline starts anew where something `whole`
        has happened."""
        for event in events:
            self._happened(event)
        self._go_on()
        if not self._session.closed:
            phase = self._session.phase
            self._steps.reach(phase)  # before what it leads to can be seen of it
            self._flush()
            if whole:
                self._watch(phase)
        if self._waits_until_ready is not None:
            self._tell_ready()

    def _happened(self, event: Event) -> None:
        match event:
            case Ready():
                self._ready = True
                if self._encryption is not None and self.secure and self._transport is not None:
                    self._encryption.remember(self._transport)
            case StartTLS():
                self._flush()
                self._start_tls()
            case Failed():
                self._failed(event)
                self._cut()
            case _:
                pass

    def _failed(self, event: Failed) -> None:
        """The conversation is over."""
        self._error = self._error or event.error
        silent = event.error.code is None and not isinstance(event.error, BrokenAnswer)
        if silent and not self._ready and self._encryption is not None:
            self.resumed_in_vain = self._encryption.failed()

    def _go_on(self) -> None:
        """All that has happened is known: a subclass does what there is to be done now."""

    def _tell_ready(self) -> None:
        d = self._waits_until_ready
        if d is None or not (self._ready or self._error):
            return
        self._waits_until_ready = None
        if self._error is not None:
            d.errback(self._error)
        else:
            d.callback(self)

    def _fault(self, failure: Failure) -> None:
        """It is not the server's fault: the failure goes to whoever waits, as it is."""
        d, self._waits_until_ready = self._waits_until_ready, None
        self._cut()
        if d is not None:
            d.errback(failure)

    def _cut(self) -> None:
        self._deadline.drop()
        if self._transport is not None and not self.lost:
            self._transport.abort()

    def _flush(self) -> None:
        data = self._session.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    # TLS

    def _start_tls(self) -> None:
        assert self._transport is not None
        assert self._encryption is not None, "policy none never asks for TLS"
        self._shaking_hands = True
        d = self._encryption.begin(self._transport, self._timeouts.tls)
        d.add_callbacks(self._tls_established, self._tls_failed)
        d.add_errback(self._fault)

    def _tls_established(self, _: None) -> None:
        self._shaking_hands = False
        self._session.tls_established()
        self._take([])

    def _tls_failed(self, failure: Failure) -> None:
        failure.trap(NoTLS)
        error = failure.value
        assert isinstance(error, NoTLS)
        self._shaking_hands = False
        self._take(self._session.tls_failed(error.why, tampered=error.tampered))

    # deadlines

    def _watch(self, phase: Phase) -> None:
        """Start the deadline anew."""
        nothing_owed = self._session.idle or self._shaking_hands
        self._deadline.set(None if nothing_owed else self._patience(phase))

    def _patience(self, phase: Phase) -> float | None:
        """Seconds that the present wait may take; None where it is not for the server."""
        return deadline(phase, self._full, self._timeouts)

    def _timed_out(self) -> None:
        self.timed_out = True
        self._take(self._session.timed_out())
