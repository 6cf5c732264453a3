"""One message's way over a connection: it goes out, and the server answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deferred.defer import Deferred
from deferred.failure import Failure
from service.delivery.content import Content
from service.delivery.receipt import Receipt
from service.message.outcome import Phase
from service.smtp.errors import ConfirmationLost, DeliveryError, HostFailure


class Passage:
    """Made by `Connection.send`; the connection tells it what happens, its user waits for the two ends in turn."""

    __slots__ = (
        "_abort",
        "_for_answer",
        "_waiter",
        "before",
        "content",
        "error",
        "fault",
        "job",
        "out",
        "piece",
        "receipt",
    )

    def __init__(self, job: str, content: Content, before: int, abort: Callable[[], object]) -> None:
        self.job = job
        self.content: Content | None = content
        """What is still to be sent; None once the last piece of it is on its way, or none is wanted."""
        self.piece = 0
        """The number of the piece that is next."""
        self.before = before
        """Replies that the session had heard when it began."""
        self.out = False
        """Whether all of it has gone out."""
        self.receipt: Receipt | None = None
        self.error: DeliveryError | None = None
        self.fault: Failure | None = None
        self._abort = abort
        self._waiter: Deferred[Any] | None = None
        self._for_answer = False

    def sent(self) -> Deferred[Passage]:
        """Fire with this once the whole message has gone out, or the server has refused it.

        Fails with `HostFailure`, or with whatever reading the content failed with: then it has not gone out.
        """
        return self._wait(False)

    def confirm(self) -> Deferred[Receipt]:
        """Fire with the receipt once the server has answered for every recipient.

        Fails with `ConfirmationLost` if it never does: from the final dot on nobody knows whether it has the message.
        """
        return self._wait(True)

    def wake(self) -> None:
        """Fire the wait if what it waits for is there."""
        d, trouble = self._waiter, self.fault or self.error
        if d is None:
            return
        if self.receipt is not None:  # it stands whatever came after it, within the same read perhaps
            self._waiter = None
            d.callback(self.receipt if self._for_answer else self)
        elif trouble is not None:
            self._waiter = None
            d.errback(trouble)
        elif self.out and not self._for_answer:
            self._waiter = None
            d.callback(self)

    def _wait(self, for_answer: bool) -> Deferred[Any]:
        d: Deferred[Any] = Deferred(self._given_up)
        self._waiter, self._for_answer = d, for_answer
        self.wake()
        return d

    def _given_up(self, d: Deferred[Any]) -> None:
        """The wait was cancelled: an answer for some, or doubt, must not get lost over it."""
        self._waiter = None
        self._abort()
        if self.error is not None and (self.error.outcomes or isinstance(self.error, ConfirmationLost)):
            d.errback(self.error)


def as_it_was(error: DeliveryError, host: str, *, stuck: bool, before_content: bool) -> DeliveryError:
    """The error, but no doubt where there can be none: the last of our octets is the content's end, and if some are
    still here (`stuck`), so is that. And while no content has gone, it was the envelope that was not answered."""
    error.host = error.host or host
    kind, phase = type(error), error.phase
    if isinstance(error, ConfirmationLost) and stuck:
        kind, phase = HostFailure, Phase.BODY
    elif phase is Phase.BODY and before_content:
        phase = Phase.MAIL
    if phase is error.phase:
        return error
    return kind(phase, error.text, code=error.code, enhanced=error.enhanced, host=error.host, outcomes=error.outcomes)
