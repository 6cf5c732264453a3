"""One attempt: the document's e-mail example, at one host after the other.

    connect -> handshake -> send -> confirm

A site has relays, a relay's name has addresses, and one of them, when it answers, is the peer. When a host fails us
(`HostFailure`), the errback of the step decides where the message goes on:

    step           what it does                              its errback
    start          _converse on a kept connection            _afresh: dead before it answered? as if none were kept
    send_ahead     _converse behind another message          _behind: that one's fate first; then as on a kept one
    _next_relay    resolve the next relay, then _attempt     _elsewhere: _next_relay, or fail if none is left
    _attempt       connect to an address, then _converse     _another_way: again in the clear, or at another address
    _converse      handshake, send, confirm, release         none: its caller's

Two things are never done: a message whose final dot has gone out is not offered to another host (the first may have
it), and a recipient that has an answer is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from deferred.defer import CancelledError, Deferred, fail, succeed
from deferred.failure import Failure
from deferred.interfaces import Address
from service.delivery.connection import Connection
from service.delivery.connector import Connector, Host
from service.delivery.content import Guarded, StoredContent
from service.delivery.passage import Passage
from service.delivery.receipt import Receipt
from service.delivery.routes import Site
from service.journal import Journal
from service.message.address import domain_of
from service.message.outcome import Outcome, Phase, State
from service.queue.store import Claim
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, ConfirmationLost, HostFailure

_NEVER: Final = float("-inf")
_NOBODY: Final[Mapping[str, Outcome]] = MappingProxyType({})

TAKES_LEAVE: Final = 421
"""The server ends the conversation, whatever it was about (RFC 5321, 3.8)."""


class GivenUp(CancelledError):
    """We gave the attempt up, and no host is to blame. `outcomes` has the recipients that had their answer by then."""

    def __init__(self, outcomes: tuple[Outcome, ...]) -> None:
        super().__init__()
        self.outcomes = outcomes


class Attempt:
    """One try at getting one claim to its site."""

    __slots__ = (
        "_answered",
        "_blamed",
        "_connector",
        "_content",
        "_failed_at",
        "_generation",
        "_given_up",
        "_journal",
        "_met",
        "_relays",
        "_retired",
        "_site",
        "_wait",
        "ahead",
        "began",
        "claim",
        "connection",
        "decided",
        "since",
    )

    def __init__(
        self, claim: Claim, site: Site, content: StoredContent, connector: Connector, journal: Journal, began: float
    ) -> None:
        self.claim = claim
        self.began = began
        self.ahead = False
        """Whether its envelope goes ahead, behind a message that is not answered yet."""
        self.since = _NEVER
        """When the message before was answered, where there was one."""
        self.connection: Connection | None = None
        """The one that it goes, or went last, over."""
        self.decided = False
        """Whether what becomes of the claim is on its way into the store."""
        self._site = site
        self._content = content
        self._connector = connector
        self._journal = journal
        self._generation = connector.generation
        self._relays = connector.in_order(site)  # those that are left
        self._answered: Mapping[str, Outcome] = _NOBODY  # by recipient, whichever host it was
        self._failed_at: tuple[Address, ...] = ()
        self._met: Connection | None = None  # whoever answered at the address that was last tried
        self._blamed: HostFailure | None = None
        self._retired: Connection | None = None
        self._wait: Deferred[Receipt] | None = None
        self._given_up = False

    @property
    def past_data(self) -> bool:
        """Whether a server has asked for the content, and has not answered it yet."""
        return self.connection is not None and self.connection.past_data

    @property
    def conversing(self) -> bool:
        """Whether a server listens."""
        return self._met is not None

    @property
    def ended(self) -> bool:
        """Whether nobody is waited for any more, but the disk."""
        return self._wait is None

    @property
    def step(self) -> str:
        """What it is about, in words."""
        return "connect" if self._met is None else f"{self._met.phase.value} at {self._met.host}"

    @property
    def _peer(self) -> Address | None:
        """The address that was last tried, if anybody answered there."""
        return None if self._met is None else self._met.peer

    def start(self) -> Deferred[Receipt]:
        """Fire with a receipt once a host has answered for every recipient.

        Fails with the last host's `HostFailure` when none did, with `ConfirmationLost`, with `CancelledError` after
        `abort` (`GivenUp` where somebody has an answer), and with whatever reading the content fails with.
        """
        if not self._site.relays:
            return succeed(self._no_route())
        kept = self._connector.take(self._site)
        if kept is None:
            d = self._next_relay(None)
        else:
            d = self._converse(kept).add_errback(self._afresh)
        return self._await(d)

    def send_ahead(self, connection: Connection) -> Deferred[Receipt]:
        """As `start`, over a connection whose message before is not answered yet, until `follow`.

        If the connection does not last that long it fails with `CancelledError`, or `GivenUp`.
        """
        self.ahead = True
        return self._await(self._converse(connection).add_errback(self._behind))

    def follow(self, now: float) -> None:
        """The message before has been answered: from now on the conversation is for this one. None of its content has
        gone; nor shall it in an old way, after a reload, nor be waited for at the end, where nobody asks for it."""
        self.ahead, self.since = False, now
        if self._outdated or (self._connector.closing and not self.past_data):
            self.abort()

    def _await(self, d: Deferred[Receipt]) -> Deferred[Receipt]:
        self._wait = d
        return d.add_callbacks(self._end, self._with_all_answers)

    def abort(self) -> None:
        """Give up at once; harmless once it has ended. For the end of the daemon: the connector is closing already."""
        if self._wait is not None:
            self._given_up = True
            self._wait.cancel()

    def decide(self) -> None:
        """What becomes of the claim is on its way into the store."""
        self.decided = True

    def part(self) -> None:
        """The outcome is written: take leave of the server, if this was the last message that it is to be given."""
        if self._retired is not None:
            self._retired.quit()

    def _end(self, receipt: Receipt) -> Receipt:
        self._wait = None  # what its user does with the result is not ours to cancel
        return receipt

    # the chain

    def _next_relay(self, error: HostFailure | None) -> Deferred[Receipt]:
        """Fire with a receipt from the first relay left that gives one; fail with `error` if none is left."""
        self._met = None
        if not self._relays:
            return fail(error)
        if self._outdated:
            return fail(CancelledError())
        relay, self._relays = self._relays[0], self._relays[1:]
        d: Deferred[Any] = self._connector.resolve(relay)
        d.add_callback(self._attempt, error)
        return d.add_errback(self._elsewhere)

    def _attempt(self, host: Host, error: HostFailure | None = None) -> Deferred[Receipt]:
        """Fire with a receipt once `host` has answered for every recipient, at an address where it did not fail yet."""
        self._met = None
        left = host.without(self._failed_at)
        if not left.addresses:
            return fail(error)
        if self._outdated:
            return fail(CancelledError())
        d: Deferred[Any] = self._connector.connect(self._site, left, self.claim.id)
        d.add_callback(self._converse)
        return d.add_errback(self._another_way, left)

    def _converse(self, connection: Connection) -> Deferred[Receipt]:
        self.connection = self._met = connection
        d: Deferred[Any] = connection.handshake(self.claim.id)
        d.add_callback(self._send)
        d.add_callback(Passage.confirm)
        d.add_both(connection.release)
        return d.add_callback(self._whole)

    def _send(self, connection: Connection) -> Deferred[Passage]:
        if connection.messages == 0:
            self._connector.introduced(connection)
        if self._outdated:
            return fail(CancelledError())
        envelope, content = self._envelope(), self._content
        if not self.claim.doubts and self.claim.in_doubt == "retry":
            return connection.send(self.claim.id, envelope, content)
        guarded = Guarded(content, lambda: self._before_the_dot(connection, envelope))
        return connection.send(self.claim.id, envelope, guarded)

    @property
    def _outdated(self) -> bool:
        """Whether the settings have changed since it began: who is to get the message, and how, may be another now."""
        return self._connector.generation != self._generation

    def _before_the_dot(self, connection: Connection, envelope: Envelope) -> Deferred[None]:
        """From the final dot on nobody knows who has the message until the server answers: say so where somebody may
        have it already, and note it where the job is not to be sent twice."""
        for recipient in envelope.recipients if self.claim.doubts else ():
            self._journal.tell(
                "possible_duplicate",
                id=self.claim.id,
                recipient=recipient,
                site=self._site.name,
                host=connection.host,
                attempt=self.claim.attempts + 1,
            )
        return self._content.mark(connection.host) if self.claim.in_doubt == "hold" else succeed(None)

    def _envelope(self) -> Envelope:
        """What to ask of the next server: nothing that another has answered."""
        claim, recipients = self.claim, self.claim.recipients
        if self._answered:
            recipients = tuple(address for address in recipients if address not in self._answered)
        return Envelope(claim.sender, recipients, claim.size, claim.eight_bit)

    def _whole(self, receipt: Receipt) -> Receipt:
        """The receipt, with the answers that hosts before this one gave."""
        connection = self.connection
        if connection is not None:
            self._connector.served(connection.host)
            self._retired = connection if connection.retired else None
        if not self._answered:
            return receipt
        self._keep(receipt.outcomes)
        return self._receipt()

    # the errbacks

    def _afresh(self, failure: Failure) -> Any:
        """A kept connection that died before it answered says nothing about its host: begin on a new one, as where BDAT
        is not understood any more."""
        failure.trap(HostFailure)
        error = failure.value
        assert isinstance(error, HostFailure)
        anew = _unheard(error) or self._connector.goes_on_without_chunking(self._site, error)
        return self._next_relay(error) if anew and not self._connector.closing else self._elsewhere(failure)

    def _behind(self, failure: Failure) -> Any:
        """A connection that dies before the message in front is answered says nothing of this one."""
        if not self.ahead:
            if self.connection is not None and self.connection.timed_out and _unheard(failure.value):
                self._connector.ahead_in_vain(self.connection)
            return self._afresh(failure)
        failure.trap(HostFailure)
        error = failure.value
        assert isinstance(error, HostFailure)
        self._keep(error.outcomes)
        raise CancelledError

    def _another_way(self, failure: Failure, host: Host) -> Any:
        """The host did not serve us: meet it with a full TLS handshake where one was saved, or in the clear where that
        is allowed, else at another address."""
        error = self._blame(failure)
        if self._peer is not None and self.connection is not None and self.connection.resumed_in_vain:
            return self._attempt(host)
        if self._connector.goes_on_in_the_clear(self._site, host, error):
            return self._attempt(host)
        if self._connector.goes_on_without_chunking(self._site, error):
            return self._attempt(host)
        if self._peer is None:
            return failure  # no address answered: all have been tried
        if error.phase is Phase.AUTH and error.code is not None and error.code >= 500:
            return failure  # it is the same account at each address, and would be locked the sooner
        self._failed_at += (self._peer,)
        return self._receipt() if self._complete else self._attempt(host, error)

    def _elsewhere(self, failure: Failure) -> Any:
        """The host did not serve us at any address: go on to the next relay."""
        error = self._blame(failure)
        self._connector.failed(error.host)
        if self._peer is not None:
            self._failed_at += (self._peer,)
        return self._receipt() if self._complete else self._next_relay(error)

    def _blame(self, failure: Failure) -> HostFailure:
        """The host's failure, if going on is all right; else the failure goes on."""
        failure.trap(HostFailure)
        error = failure.value
        assert isinstance(error, HostFailure)
        self._keep(error.outcomes)
        if self._given_up and not isinstance(error, ConfirmationLost):
            raise CancelledError  # the connection was lost to us
        if error is not self._blamed:
            self._blamed = error
            self._tell(error)
        if isinstance(error, ConfirmationLost) or self._connector.closing:
            failure.raise_exception()
        return error

    def _tell(self, error: HostFailure) -> None:
        self._journal.tell(
            "attempt_failed",
            id=self.claim.id,
            host=error.host,
            phase=error.phase.value,
            code=error.code,
            text=error.text,
        )

    def _with_all_answers(self, failure: Failure) -> Any:
        """The failure goes on with the answers of all hosts: a 550 to RCPT stands, whoever said it, and even if
        the wait for the next host, or for the other answers, was given up."""
        self._wait = None  # as at any other end
        if failure.check(CancelledError) and self._answered:
            if self._complete:
                return self._receipt()
            failure = Failure(self._blamed or GivenUp(self._receipt().outcomes))
        if isinstance(failure.value, HostFailure):
            self._keep(failure.value.outcomes)
            failure.value.outcomes = self._receipt().outcomes
        return failure

    # the answers

    def _keep(self, outcomes: Iterable[Outcome]) -> None:
        self._answered = {**self._answered, **{outcome.address: outcome for outcome in outcomes}}

    @property
    def _complete(self) -> bool:
        return len(self._answered) == len(self.claim.recipients)

    def _receipt(self) -> Receipt:
        """All answers so far, in the recipients' order."""
        return Receipt(tuple(self._answered[each] for each in self.claim.recipients if each in self._answered))

    def _no_route(self) -> Receipt:
        """Nothing was tried, and nothing will ever be: the sender learns why (RFC 3463, X.1.2)."""
        return Receipt(tuple(self._unrouted(address) for address in self.claim.recipients))

    def _unrouted(self, address: str) -> Outcome:
        text = f"no route for domain {domain_of(address)}: the configuration's routes do not fit it"
        return Outcome(address, State.FAILED, None, "5.1.2", text, "", Phase.CONNECT)


def _unheard(error: BaseException) -> bool:
    """Whether the server has not said a word of the message."""
    if not isinstance(error, HostFailure) or isinstance(error, BrokenAnswer):
        return False
    return error.phase is Phase.MAIL and error.code in (None, TAKES_LEAVE)
