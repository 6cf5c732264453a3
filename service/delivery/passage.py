"""One message's way over a connection: it goes out, and the server answers; and the few that share the connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from deferred.defer import Deferred, succeed
from deferred.failure import Failure
from service.delivery.content import Content
from service.delivery.receipt import Receipt
from service.message.outcome import Outcome, Phase
from service.smtp.errors import ConfirmationLost, DeliveryError, HostFailure


class Passage:
    """Made by `Connection.send`; the connection tells it what happens, its user waits for the two ends in turn."""

    __slots__ = (
        "_abort",
        "_for_answer",
        "_waiter",
        "before",
        "content",
        "end",
        "job",
        "out",
        "piece",
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
        self.end: Receipt | DeliveryError | Failure | None = None
        """How it ended: with the server's answers, with the conversation's end before, or by something else's fault."""
        self._abort = abort
        self._waiter: Deferred[Any] | None = None
        self._for_answer = False

    def sent(self) -> Deferred[Passage]:
        """Fire with this once the whole message has gone out, or the server has refused it.

        Fails with `HostFailure`, or with whatever reading the content failed with: then it has not gone out.
        """
        if self.out and self.end is None:
            return succeed(self)
        return self._wait(False)

    def confirm(self) -> Deferred[Receipt]:
        """Fire with the receipt once the server has answered for every recipient.

        Fails with `ConfirmationLost` if it never does: from the final dot on nobody knows whether it has the message.
        """
        return self._wait(True)

    def wake(self) -> None:
        """Fire the wait if what it waits for is there."""
        d, end = self._waiter, self.end
        if d is None or (end is None and (self._for_answer or not self.out)):
            return
        self._waiter = None
        if end is None or isinstance(end, Receipt):
            d.callback(end if self._for_answer else self)
        else:
            d.errback(end)

    def _wait(self, for_answer: bool) -> Deferred[Any]:
        d: Deferred[Any] = Deferred(self._given_up)
        self._waiter, self._for_answer = d, for_answer
        self.wake()
        return d

    def _given_up(self, d: Deferred[Any]) -> None:
        """The wait was cancelled: an answer for some, or doubt, must not get lost over it."""
        self._waiter = None
        self._abort()
        end = self.end
        if isinstance(end, Receipt):
            d.callback(end if self._for_answer else self)
        elif isinstance(end, DeliveryError) and (end.outcomes or isinstance(end, ConfirmationLost)):
            d.errback(end)


class Passages:
    """The messages under way on one connection, the oldest first: one, and at most one more that was sent ahead.

    Their ends come together, within one read perhaps, and each is told of its own in `tell`. Until all have been told
    there are some: who hears that the last has ended may give the connection back.
    """

    __slots__ = ("_under_way", "ended", "newest")

    def __init__(self) -> None:
        self._under_way: tuple[Passage, ...] = ()  # no lists: thousands of connections share the empty tuple
        self.ended: tuple[Passage, ...] = ()
        """Those that have not been told yet."""
        self.newest: Passage | None = None
        """The one whose content is, or will be, wanted."""

    def __bool__(self) -> bool:
        """Whether there is one that has not been told its end."""
        return bool(self._under_way or self.ended)

    @property
    def oldest(self) -> Passage | None:
        """The one whose answers come first."""
        return self._under_way[0] if self._under_way else None

    def begin(self, passage: Passage) -> None:
        """One more, behind the others."""
        self._under_way += (passage,)
        self.newest = passage

    def gone_out(self) -> None:
        """All that was given to the transport has left."""
        for passage in self._under_way:
            if passage.content is None:
                passage.out = True
                passage.wake()

    def finish(self, outcomes: tuple[Outcome, ...]) -> None:
        """The oldest has its answers."""
        passage, self._under_way = self._under_way[0], self._under_way[1:]
        if not self._under_way:
            self.newest = None
        passage.content, passage.end = None, Receipt(outcomes)
        self.ended += (passage,)

    def fail(self, errors: Iterable[DeliveryError], replies: int, *, stuck: bool) -> None:
        """The conversation is over, with an error for each; the session had heard so many `replies`. The last is told
        first: it gives way to those before."""
        failed, self._under_way, self.newest = self._under_way, (), None
        for passage, error in zip(failed, errors, strict=False):
            passage.content = None
            passage.end = as_it_was(error, stuck=stuck, unheard=replies == passage.before)
        self.ended += failed[::-1]

    def fault(self, failure: Failure) -> None:
        """Something else than the server was at fault, in what was done for the oldest. What was sent ahead has no
        part in it, and nobody has anything of it yet."""
        if self._under_way:
            first, self._under_way = self._under_way[0], self._under_way[1:]
            first.content, first.end = None, failure
            self.fail([HostFailure(Phase.MAIL, "the conversation ended with the message before")], -1, stuck=False)
            self.ended += (first,)

    def tell(self) -> None:
        """Tell those that have ended, in turn."""
        while self.ended:
            first, self.ended = self.ended[0], self.ended[1:]
            first.wake()


def as_it_was(error: DeliveryError, *, stuck: bool, unheard: bool) -> DeliveryError:
    """The error, but no doubt where there can be none: the last of our octets is the content's end, and if some are
    still here (`stuck`), so is that. And while nothing was answered (`unheard`) it was MAIL that was not, though with
    chunks the content goes behind it unasked."""
    kind, phase = type(error), error.phase
    if isinstance(error, ConfirmationLost) and stuck:
        kind, phase = HostFailure, Phase.BODY
    if phase is Phase.BODY and unheard:
        phase = Phase.MAIL
    if phase is error.phase:
        return error
    return kind(phase, error.text, code=error.code, enhanced=error.enhanced, host=error.host, outcomes=error.outcomes)
