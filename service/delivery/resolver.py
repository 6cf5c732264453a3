"""The relays' addresses: one look-up a name at a time, for all who wait for it, and each answer kept for a while.

A look-up takes a thread, of which there are few, and a name server that is slow takes it for long: if each message for
such a relay asked anew, names that are well could not be looked up either.
"""

from __future__ import annotations

from typing import Final

from deferred.defer import Deferred, fail, succeed
from deferred.failure import Failure
from deferred.interfaces import Address, Reactor

_KEPT: Final = 30.0
"""Seconds that an answer is good for."""

_FAILURE_KEPT: Final = 5.0
"""Seconds that a failure is."""

Key = tuple[str, int]


class Resolver:
    """Looks names up, with the reactor's `getaddrinfo`."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._known: dict[Key, tuple[float, list[Address] | OSError]] = {}  # until when, what
        self._waiting: dict[Key, list[Deferred[list[Address]]]] = {}

    def forget(self) -> None:
        """Look everything up anew from now on."""
        self._known.clear()

    def resolve(self, host: str, port: int, patience: float) -> Deferred[list[Address]]:
        """Fire with the addresses. Fails with `OSError`: `socket.gaierror`, or `TimeoutError` after `patience` seconds,
        which end this wait alone, not the look-up."""
        key = (host, port)
        until, answer = self._known.get(key, (0.0, None))
        if answer is not None and self._reactor.time() < until:
            return fail(answer) if isinstance(answer, OSError) else succeed(answer)
        ask = key not in self._waiting
        waiting = self._waiting.setdefault(key, [])
        d: Deferred[list[Address]] = Deferred(waiting.remove)
        waiting.append(d)
        if ask:
            self._reactor.getaddrinfo(host, port).add_both(self._answered, key)
        return d.add_timeout(patience, self._reactor)

    def _answered(self, result: list[Address] | Failure, key: Key) -> None:
        answer = result.value if isinstance(result, Failure) else result
        if isinstance(answer, OSError):
            self._known[key] = (self._reactor.time() + _FAILURE_KEPT, answer)
        elif isinstance(answer, list):
            self._known[key] = (self._reactor.time() + _KEPT, answer)
        waiting = self._waiting.pop(key)
        while waiting:
            d = waiting.pop(0)
            if isinstance(answer, list):
                d.callback(answer)
            else:
                d.errback(answer)
