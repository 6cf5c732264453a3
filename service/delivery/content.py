"""A message's content, on its way out of the store a piece at a time: a large one is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from deferred.defer import Deferred, succeed
from deferred.failure import Failure
from service.queue.store import Claim, Store, StoreFailed


class Content(Protocol):
    """What a connection sends after DATA."""

    pieces: int
    whole: bytes | None
    """All of it, where it is at hand and may go at once."""

    def read(self, piece: int) -> Deferred[bytes]:
        """Piece number `piece`, from 0."""


class ContentGone(Exception):
    """The job has been removed from the queue meanwhile."""


class ContentUnreadable(Exception):
    """The store cannot give it now; says why."""


class StoredContent:
    """The content of a claim."""

    __slots__ = ("_claim", "_store", "pieces", "whole")

    def __init__(self, store: Store, claim: Claim) -> None:
        self.pieces = claim.pieces
        self.whole = claim.content
        self._store = store
        self._claim = claim

    def read(self, piece: int) -> Deferred[bytes]:
        """Piece number `piece`; at once where the claim has the whole content with it. Fails with `ContentGone` and
        `ContentUnreadable`."""
        if self._claim.content is not None:
            return succeed(self._claim.content)
        return self._store.read(self._claim, piece).add_errback(_unreadable)

    def mark(self, host: str) -> Deferred[None]:
        """Note durably that the final dot may go out to `host` now. Fails with `ContentGone`."""
        return self._store.mark(self._claim, host).add_errback(_gone)


class Guarded:
    """Content whose last piece, and with it the final dot, goes out only once `allow` has fired."""

    def __init__(self, content: Content, allow: Callable[[], Deferred[None]]) -> None:
        self.pieces = content.pieces
        self.whole: bytes | None = None
        self._content = content
        self._allow = allow

    def read(self, piece: int) -> Deferred[bytes]:
        """Piece number `piece`. Fails as the content does, or as `allow` does."""
        if piece < self.pieces - 1:
            return self._content.read(piece)
        d: Deferred[Any] = self._allow()
        return d.add_callback(lambda _: self._content.read(piece))


def _unreadable(failure: Failure) -> NoReturn:
    if failure.check(StoreFailed):
        raise ContentUnreadable(str(failure.value))
    _gone(failure)


def _gone(failure: Failure) -> NoReturn:
    failure.trap(LookupError)
    raise ContentGone(str(failure.value))
