"""From addresses to a protocol that has its stream.

`connect` is Happy Eyeballs: the first of several addresses that answers (RFC 8305). They are tried in their order, the
families taking turns, so that a broken IPv6 costs one step and not all of its addresses. The next one is tried when
the last has failed, or has not answered for 250 ms; the others go on meanwhile. The first to answer wins; those still
under way are given up, and one that answers too late is closed.

`establish` and `serve` then shake hands, if there is TLS, and make the protocol: for who called, and who was called.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any, Generic, TypeVar

from deferred.defer import Deferred, execute, fail, maybe_deferred
from deferred.failure import Failure
from deferred.interfaces import Address, TimerHandle, TimeSource
from deferred.protocol import StreamProtocol
from deferred.stream import Stream

S = TypeVar("S")
P = TypeVar("P", bound=StreamProtocol)

STAGGER = 0.25
"""Seconds before the next address is tried beside the last (RFC 8305, 8: Connection Attempt Delay)."""


def in_turns(addresses: Sequence[Address]) -> list[Address]:
    """The addresses with their families taking turns, beginning with the first one's (RFC 8305, 4)."""
    if len(addresses) == 1:
        return list(addresses)
    first = [address for address in addresses if (":" in address[0]) == (":" in addresses[0][0])]
    other = [address for address in addresses if (":" in address[0]) != (":" in addresses[0][0])]
    return [address for address in chain.from_iterable(zip_longest(first, other)) if address is not None]


def connect(
    clock: TimeSource,
    addresses: Sequence[Address],
    dial: Callable[[Address], Deferred[S]],
    drop: Callable[[S], object],
    *,
    timeout: float | None = None,
    stagger: float = STAGGER,
) -> Deferred[S]:
    """Fire with what the first successful `dial(address)` fires with; `drop` what comes too late.

    Fails with the last failure when all have failed, with `TimeoutError` after `timeout` seconds, with `OSError` if
    there is no address.
    """
    if not addresses:
        return fail(OSError(errno.EADDRNOTAVAIL, "no address to connect to"))
    race = _Race(clock, in_turns(addresses), dial, drop, stagger)
    race.start(timeout)
    return race.deferred


class _Race(Generic[S]):
    def __init__(
        self,
        clock: TimeSource,
        addresses: list[Address],
        dial: Callable[[Address], Deferred[S]],
        drop: Callable[[S], object],
        stagger: float,
    ) -> None:
        self._clock = clock
        self._waiting = addresses[::-1]
        self._dial = dial
        self._drop = drop
        self._stagger = stagger
        self._dialing: list[Deferred[Any]] = []
        self._next: TimerHandle | None = None
        self._limit: TimerHandle | None = None
        self._trying = False  # inside `_try_next`
        self._due = False  # another address is to be tried
        self._over = False
        self.deferred: Deferred[S] = Deferred(lambda _: self._finish())

    def start(self, timeout: float | None) -> None:
        if timeout is not None:
            self._limit = self._clock.call_later(timeout, self._late, timeout)
        self._try_next()

    def _try_next(self) -> None:
        """Dial the next address. However many fail at once: a loop, no calls in calls."""
        self._due = True
        if self._trying:
            return
        self._trying = True
        while self._due:
            self._due = False
            address = self._waiting.pop()
            if self._waiting:
                self._next = self._clock.call_later(self._stagger, self._try_next)
            dialing = maybe_deferred(self._dial, address)
            if not dialing.called:
                self._dialing.append(dialing)
            dialing.add_callbacks(self._answered, self._failed, dialing)
        self._trying = False

    def _answered(self, stream: S, _: Deferred[Any]) -> None:
        if self._over:
            self._drop(stream)
        else:
            self._finish()
            self.deferred.callback(stream)

    def _failed(self, failure: Failure, dialing: Deferred[Any]) -> None:
        if self._over:
            return
        if dialing in self._dialing:
            self._dialing.remove(dialing)
        if self._waiting:
            if self._next is not None:
                self._next.cancel()
            self._try_next()
        elif not self._dialing:
            self._finish()
            self.deferred.errback(failure)

    def _late(self, timeout: float) -> None:
        self._finish()
        self.deferred.errback(TimeoutError(f"no connection within {timeout:g} s"))

    def _finish(self) -> None:
        """Give up whatever is still under way."""
        self._over = True
        for timer in (self._next, self._limit):
            if timer is not None:
                timer.cancel()
        dialing, self._dialing = self._dialing, []
        for deferred in dialing:
            deferred.cancel()  # harmless for the winner, which has fired


def establish(
    stream: Stream,
    protocol_factory: Callable[[], P],
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    timeout: float | None = None,
) -> Deferred[P]:
    """Shake hands if there is `tls`, then give the stream to a new protocol, and fire with that."""
    if tls is None:
        return execute(_begin, None, stream, protocol_factory)
    shaken = stream.start_tls(tls, server_hostname=server_hostname, timeout=timeout)
    return shaken.add_callback(_begin, stream, protocol_factory)


def serve(
    stream: Stream,
    protocol_factory: Callable[[], StreamProtocol],
    report: Callable[[Exception], object],
    *,
    tls: ssl.SSLContext | None = None,
    timeout: float | None = None,
) -> None:
    """The same for a stream that was accepted; `report` is told what the factory or `connection_made` raises.

    A handshake that fails is not reported: that is a caller who cannot do TLS, or hung up, and nobody here has heard
    of it yet. One that fails before the caller can have said a word is: the context is of no use for a server.
    """

    def tell(failure: Failure) -> None:
        if not isinstance(failure.value, Exception):
            failure.raise_exception()
        report(failure.value.with_traceback(failure.tb))

    if tls is None:
        execute(_begin, None, stream, protocol_factory).add_errback(tell)
        return
    shaken = stream.start_tls(tls, server_side=True, timeout=timeout)
    unheard = tell if shaken.called else _forget
    shaken.add_callbacks(lambda _: _begin(None, stream, protocol_factory), unheard).add_errback(tell)


def _forget(_: Failure) -> None:
    """A failed handshake of somebody else's."""


def _begin(_: None, stream: Stream, protocol_factory: Callable[[], P]) -> P:
    try:
        protocol = protocol_factory()
    except Exception:
        stream.abort()
        raise
    error = stream.begin(protocol)
    if error is not None:
        raise error
    return protocol
