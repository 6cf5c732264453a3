"""One conversation with one server: the SMTP session on a transport, its steps as Deferreds.

    handshake -> [send -> confirm -> release]* -> quit | lost

Where the server takes commands in advance (PIPELINING), the next message's envelope goes out in the same write as the
end of the content before it: `Owner.ahead` is asked for one. With CHUNKING a message is one write, envelope and all.

Each wait has a deadline that only a whole reply, or a whole piece of content taken, renews: octets that drip do not.
After anything unexpected the connection is closed and never used again.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from config.settings import Timeouts
from deferred.defer import Deferred, fail, maybe_deferred, succeed
from deferred.failure import Failure
from deferred.interfaces import TimeSource
from deferred.protocol import BaseProtocol, BufferedOctetsError, Transport
from service.delivery import tls
from service.delivery.content import Content
from service.delivery.deadline import Deadline
from service.delivery.passage import Passage, as_it_was
from service.delivery.receipt import Receipt, describe
from service.delivery.steps import Steps, deadline
from service.journal import Journal
from service.message.outcome import Phase
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, DeliveryError
from service.smtp.events import BodyWanted, Event, Failed, Finished, Ready, StartTLS
from service.smtp.session import Session

R = TypeVar("R")

_LEAVE_TAKING: Final = 5.0
"""Seconds for QUIT to go out and be answered; then the connection is cut."""

_FRESH: Final = 0.5
"""Seconds after the last answer in which a kept connection is taken to be alive. To one that has been idle for longer
no content is sent before anything is answered: were it dead, nobody would know who has the message."""


class Owner(Protocol):
    """Who keeps connections between messages."""

    def keep(self, connection: Connection) -> None:
        """The connection can take another message."""

    def ahead(self, connection: Connection) -> None:
        """The connection can take the next envelope now, ahead of the answer to the message before."""

    def lost(self, connection: Connection) -> None:
        """The connection is gone."""


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
        self._deadline = Deadline(clock, self._timed_out)
        self._progress: tuple[object, ...] = ()
        self._passages: list[Passage] = []  # those under way, oldest first: two at most
        self._ready = False
        self._waits_until_ready: Deferred[Connection] | None = None
        self._error: DeliveryError | None = None
        self._fresh_until = float("inf")
        self._wanted = self._reading = self._full = False
        self._leaving = self._shaking_hands = False
        self._steps = Steps(clock, journal, host, session.phase)

    # the steps

    def handshake(self, job: str = "") -> Deferred[Connection]:
        """Fire with this connection once the server takes messages: greeting, EHLO, STARTTLS, AUTH.

        It is made for the job with this id. Fails with `HostFailure`, as every step does.
        """
        if self._error is not None:
            return fail(self._error)
        if self._ready:
            return succeed(self)
        self._steps.job = job
        d: Deferred[Connection] = Deferred(lambda _: self._not_wanted())
        self._waits_until_ready = d
        return d

    def send(self, job: str, envelope: Envelope, content: Content) -> Deferred[Passage]:
        """Begin to send a message; fire with its passage as `Passage.sent` does."""
        self.messages += 1
        passage = Passage(job, content, self._session.replies, self.abort)
        self._passages.append(passage)
        events = self._session.send(envelope)
        if len(self._passages) == 1:
            self._steps.begin(job, self._session.phase)
        self._take(events)
        return passage.sent()

    def release(self, result: R) -> R:
        """Give the connection back, whatever came of the message, and hand `result` on."""
        if isinstance(result, Failure):
            self.abort()
        elif not self._passages:
            if self.usable:
                self._owner.keep(self)
            else:
                self.abort()
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
        self._deadline.passed = self._transport.abort
        self._deadline.set(_LEAVE_TAKING)

    def abort(self) -> None:
        """Close at once, in the middle of whatever is going on: with a reset where that is the content."""
        leave: Callable[[], None] = self._cut if self.past_data else self.quit
        failed: list[Passage] = []
        for event in self._session.connection_lost("given up by us"):
            if isinstance(event, Failed):
                failed = self._fail(event)
        leave()
        for passage in failed:
            passage.wake()

    def _not_wanted(self) -> None:
        self._waits_until_ready = None
        self.abort()

    @property
    def past_data(self) -> bool:
        """Whether the server has asked for the content (354), or gets it unasked, and has not answered it yet."""
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
        self._deadline.drop()
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
        """Take the session's events, and tell whoever waits for one."""
        concerned: list[Passage] = []
        for event in events:
            match event:
                case Ready():
                    self._ready = True
                case StartTLS():
                    self._flush()
                    self._start_tls()
                case BodyWanted():
                    self._wanted = True
                case Finished():
                    concerned.append(self._finish(event))
                case Failed():
                    concerned += self._fail(event)
                    self._cut()
        for passage in concerned:  # before the next message asks for one that goes ahead of it
            passage.wake()
        if self._wanted and not self._holds_back():
            self._wanted = False
            self._next_piece()
        if self._error is None:
            self._steps.reach(self._session.phase)  # before what it leads to can be seen of it
        self._flush()
        self._watch()
        for passage in self._passages:
            passage.wake()
        self._tell_ready()

    def _finish(self, event: Finished) -> Passage:
        """The oldest message has its answers."""
        passage = self._passages.pop(0)
        passage.content, passage.receipt = None, Receipt(event.outcomes)
        self._steps.end(self._passages[0].job if self._passages else "")
        self._fresh_until = self._clock.time() + _FRESH
        if event.close:
            self._cut()
        return passage

    def _fail(self, event: Failed) -> list[Passage]:
        """The conversation is over; return the passages that it was over for, the last first: it gives way."""
        failed, self._passages = self._passages, []
        for passage, error in zip(failed, (event.error, *event.ahead), strict=False):
            passage.content, passage.error = None, self._plain(error, passage.piece == 0)
        if self._error is None:
            self._error = failed[0].error if failed else self._plain(event.error)
        return failed[::-1]

    def _plain(self, error: DeliveryError, before_content: bool = False) -> DeliveryError:
        return as_it_was(error, self.host, stuck=self._full, before_content=before_content)

    def _tell_ready(self) -> None:
        d = self._waits_until_ready
        if d is None or not (self._ready or self._error):
            return
        self._waits_until_ready = None
        if self._error is not None:
            d.errback(self._error)
        else:
            d.callback(self)

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
            self._error = BrokenAnswer(Phase.TLS, why, host=self.host)
            self._take(self._session.tls_failed(why))
            return
        session = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        self._take(self._session.tls_failed(tls.explain(error, self._server_hostname, session)))

    # the content

    def _holds_back(self) -> bool:
        """Whether the content has to wait for a sign of life."""
        newest = self._passages[-1]
        return self._session.replies == newest.before and self._clock.time() > self._fresh_until

    def _next_piece(self) -> None:
        """Send the next piece of the newest message's content, at once where that is at hand."""
        passage = self._passages[-1] if self._passages else None
        if passage is None or passage.content is None or self._reading or self.lost or not self._session.wants_body:
            return
        if passage.content.whole is not None:
            self._queue(passage, passage.content.whole)
            return
        self._reading = True
        self._watch()
        d: Deferred[bytes] = maybe_deferred(passage.content.read, passage.piece)
        d.add_callback(self._send_piece, passage)
        d.add_errback(self._fault)

    def _send_piece(self, piece: bytes, passage: Passage) -> None:
        self._reading = False
        if passage.content is not None:  # else the server has answered meanwhile
            self._queue(passage, piece)
            self._take([])

    def _queue(self, passage: Passage, piece: bytes) -> None:
        """Queue a piece, and behind the last one the next message's envelope, so that one write takes both."""
        assert passage.content is not None
        passage.piece += 1
        last = passage.piece == passage.content.pieces
        if last:
            passage.content = None
        self._session.send_body(piece, last)
        if last and self._session.takes_next_ahead:
            self._owner.ahead(self)
        self._flush()
        self._go_on()

    def _go_on(self) -> None:
        """With room in the transport: the next piece, or, after the last, the wait for the answer."""
        if self._full:
            return
        for passage in self._passages:
            passage.out = passage.content is None
        if self._passages and self._passages[-1].piece and self._session.wants_body:
            self._clock.call_soon(self._next_piece)  # others have their turn between two pieces

    def _fault(self, failure: Failure) -> None:
        """It is not the server's fault: the failure goes to whoever waits, as it is."""
        self._reading = False
        failed, self._passages = self._passages, []
        for passage in failed:
            passage.content, passage.fault = None, failure
        d, self._waits_until_ready = self._waits_until_ready, None
        self._cut()
        for passage in reversed(failed):
            passage.wake()
        if d is not None:
            d.errback(failure)

    # deadlines and steps

    def _watch(self) -> None:
        """Start the deadline anew if anything whole has happened since it was started."""
        session = self._session
        piece = self._passages[-1].piece if self._passages else 0
        progress = (session.phase, session.replies, piece, self._full, self._reading, self.messages)
        if progress == self._progress or session.closed:
            return
        self._progress = progress
        self._deadline.set(self._patience())

    def _patience(self) -> float | None:
        """Seconds that the present wait may take; None where the server owes nothing."""
        if self._session.idle or self._shaking_hands or self._reading:
            return None
        return deadline(self._session.phase, self._full, self._timeouts)

    def _timed_out(self) -> None:
        self._take(self._session.timed_out())
