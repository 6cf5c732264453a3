"""The relays' addresses: one look-up a name at a time, for all who wait for it, and each answer kept for a while.

A look-up takes a thread, of which there are few, and a name server that is slow takes it for long: if each message for
such a relay asked anew, names that are well could not be looked up either. Where many names are slow they have all the
threads; so an old answer serves for a while where a new one is long in coming (RFC 8767).
"""

from __future__ import annotations

import socket
from typing import Final

from deferred.defer import Deferred, fail, succeed
from deferred.failure import Failure
from deferred.interfaces import Address, Reactor

_KEPT: Final = 30.0
"""Seconds that an answer is good for."""

_FAILURE_KEPT: Final = 5.0
"""Seconds that a failure is."""

_OLD_KEPT: Final = 3600.0
"""Seconds for which an answer that is too old serves where no newer one comes."""

_PROMPT: Final = 1.0
"""Seconds in which a newer one is to come."""

Key = tuple[str, int]


class Resolver:
    """Looks names up, with the reactor's `getaddrinfo`."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._known: dict[Key, tuple[float, list[Address] | OSError]] = {}  # until when, what
        self._old: dict[Key, tuple[float, list[Address]]] = {}  # the last good one, and until when it serves
        self._waiting: dict[Key, list[Deferred[list[Address]]]] = {}

    def forget(self) -> None:
        """Look everything up anew from now on; what was known still serves where nothing newer comes."""
        self._known.clear()
        self._old = {key: old for key, old in self._old.items() if self._reactor.time() < old[0]}

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
        old = self._old_answer(key)
        if old is None:
            return d.add_timeout(patience, self._reactor)
        return d.add_timeout(min(_PROMPT, patience), self._reactor).add_errback(self._make_do, key, old)

    def _old_answer(self, key: Key) -> list[Address] | None:
        until, old = self._old.get(key, (0.0, None))
        return old if self._reactor.time() < until else None

    def _make_do(self, failure: Failure, key: Key, old: list[Address]) -> list[Address]:
        """There was no answer in time: the old one serves, and for a moment nobody waits for another."""
        failure.trap(TimeoutError)
        until, _ = self._known.get(key, (0.0, None))
        if until <= self._reactor.time():
            self._known[key] = (self._reactor.time() + _FAILURE_KEPT, old)
        return old

    def _answered(self, result: list[Address] | Failure, key: Key) -> None:
        answer = result.value if isinstance(result, Failure) else result
        old = self._old_answer(key)
        if isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN and old is not None:
            answer = old  # the name server is in trouble, and the name may be well
            self._known[key] = (self._reactor.time() + _FAILURE_KEPT, old)
        elif isinstance(answer, OSError):
            self._known[key] = (self._reactor.time() + _FAILURE_KEPT, answer)
            self._old.pop(key, None)
        elif isinstance(answer, list):
            self._known[key] = (self._reactor.time() + _KEPT, answer)
            self._old[key] = (self._reactor.time() + _KEPT + _OLD_KEPT, answer)
        waiting = self._waiting.pop(key)
        while waiting:
            d = waiting.pop(0)
            if isinstance(answer, list):
                d.callback(answer)
            else:
                d.errback(answer)
