"""A connection to one server, which carries one message after the other.

    handshake -> [send -> confirm -> release]* -> quit | lost

Where the server takes commands in advance (PIPELINING), the next message's envelope goes out in the same write as the
end of the content before it: `Owner.ahead` is asked for one. With CHUNKING a message is one write, envelope and all.

After anything unexpected the connection is closed and never used again.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from config.settings import Timeouts
from deferred.defer import Deferred, maybe_deferred
from deferred.failure import Failure
from deferred.interfaces import TimeSource
from service.delivery.content import Content
from service.delivery.conversation import Conversation
from service.delivery.encryption import Encryption
from service.delivery.passage import Passage, Passages
from service.delivery.steps import deadline
from service.journal import Journal
from service.message.outcome import Phase
from service.smtp.envelope import Envelope
from service.smtp.events import BodyWanted, Event, Failed, Finished
from service.smtp.session import Session

R = TypeVar("R")

_ALWAYS: Final = float("inf")
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


class Connection(Conversation):
    """A conversation about messages."""

    __slots__ = (
        "_fresh_until",
        "_owner",
        "_passages",
        "_reading",
        "_sound",
        "generation",
        "messages",
        "retired",
        "site",
    )

    def __init__(
        self,
        clock: TimeSource,
        session: Session,
        owner: Owner,
        journal: Journal,
        *,
        site: str,
        generation: int,
        host: str,
        timeouts: Timeouts,
        encryption: Encryption | None,
    ) -> None:
        super().__init__(clock, session, journal, host=host, timeouts=timeouts, encryption=encryption)
        self.site = site
        self.generation = generation
        """Of the settings under which it was opened."""
        self.messages = 0
        """Messages taken on so far."""
        self.retired = False
        """Whether it has carried its last message: whoever had it quits it once that message's outcome is written."""
        self._owner = owner
        self._passages = Passages()
        self._sound = True  # nothing has failed on it
        self._reading = False  # content is on its way out of the store
        self._fresh_until = _ALWAYS

    # the steps

    def send(self, job: str, envelope: Envelope, content: Content) -> Deferred[Passage]:
        """Begin to send a message; fire with its passage as `Passage.sent` does."""
        self.messages += 1
        passage = Passage(job, content, self._session.replies, self.abort)
        events = self._session.send(envelope)
        self._passages.begin(passage)
        if self._passages.oldest is passage:
            self._steps.begin(job, self._session.phase)
        self._take(events)
        return passage.sent()

    def release(self, result: R) -> R:
        """Give the connection back, whatever came of the message, and hand `result` on. The last one does it: while
        another message is under way, the connection is that one's."""
        if isinstance(result, Failure):
            self._sound = False
        if not self._passages:
            if self._sound and self.usable:
                self._owner.keep(self)
            else:
                self.abort()
        return result

    def abort(self) -> None:
        """Close at once, in the middle of whatever is going on: with a reset where that is the content."""
        super().abort()
        self._passages.tell()

    @property
    def usable(self) -> bool:
        """Whether another message can be sent."""
        return self._session.idle and self._transport is not None and not self._transport.is_closing()

    @property
    def past_data(self) -> bool:
        """Whether the server has asked for the content (354), or gets it unasked, and has not answered it yet."""
        return super().past_data and not self._holds_back()

    # what happens

    def connection_lost(self, error: Exception | None) -> None:
        """The stream is gone."""
        super().connection_lost(error)
        self._owner.lost(self)

    def resume_writing(self) -> None:
        """All that was written is out."""
        self._full = False
        self._look_further()
        self._take([])

    def _happened(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._finish(event)
        elif not isinstance(event, BodyWanted):  # which is looked for in `_go_on`: content may have to wait
            super()._happened(event)

    def _failed(self, event: Failed) -> None:
        super()._failed(event)
        self._passages.fail((event.error, *event.ahead), self._session.replies, stuck=self._full)

    def _finish(self, event: Finished) -> None:
        """The oldest message has its answers."""
        self._passages.finish(event.outcomes)
        following = self._passages.oldest
        self._steps.end("" if following is None else following.job)
        self._fresh_until = self._clock.time() + _FRESH
        if event.close:
            self._cut()

    def _go_on(self) -> None:
        if self._passages.ended:
            self._passages.tell()  # before the next message asks for one that goes ahead of it
        newest = self._passages.newest
        if newest is None or newest.piece > 0 or self._reading:
            return
        if self._session.wants_body and not self._holds_back():
            self._next_piece(newest)

    def _fault(self, failure: Failure) -> None:
        self._reading = False
        self._passages.fault(failure)
        super()._fault(failure)
        self._passages.tell()

    # the content

    def _holds_back(self) -> bool:
        """Whether the newest message's content is wanted, and has to wait for a sign of life."""
        newest = self._passages.newest
        if newest is None or newest.piece > 0 or newest.before != self._session.replies:
            return False
        return self._clock.time() > self._fresh_until and self._session.wants_body

    def _next_piece(self, passage: Passage) -> None:
        """Send the next piece of the newest message's content, at once where that is at hand."""
        assert passage.content is not None
        if passage.content.whole is not None:
            self._queue(passage, passage.content.whole)
            return
        self._reading = True
        self._deadline.set(None)  # it is not the server that is waited for
        d: Deferred[bytes] = maybe_deferred(passage.content.read, passage.piece)
        d.add_callbacks(self._send_piece, self._not_read, passage)
        d.add_errback(self._fault)

    def _send_piece(self, piece: bytes, passage: Passage) -> None:
        self._reading = False
        if passage.content is not None:  # else the server has answered meanwhile
            self._queue(passage, piece)
        self._take([])

    def _not_read(self, failure: Failure, passage: Passage) -> Failure | None:
        if passage.content is not None:
            return failure
        self._reading = False  # the server has answered meanwhile: it is no fault in what is done for the next message
        self._take([])
        return None

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
        self._look_further()

    def _look_further(self) -> None:
        """With room in the transport: the next piece, or, after the last, the wait for the answer."""
        if self._full:
            return
        self._passages.gone_out()
        newest = self._passages.newest
        if newest is not None and newest.content is not None and newest.piece > 0:
            self._clock.call_soon(self._go_further)  # others have their turn between two pieces

    def _go_further(self) -> None:
        newest = self._passages.newest
        if newest is not None and newest.piece > 0 and self._session.wants_body and not self._reading:
            self._next_piece(newest)

    # deadlines

    def _patience(self, phase: Phase) -> float | None:
        if self._reading:
            return None
        if self._holds_back():
            return self._timeouts.command  # for the sign of life
        return deadline(phase, self._full, self._timeouts)
