"""A message's content, on its way out of the store a piece at a time: a large one is never in memory as a whole."""

from __future__ import annotations

from typing import NoReturn, Protocol

from deferred.defer import Deferred, succeed
from deferred.failure import Failure
from service.queue.store import Claim, Store


class Content(Protocol):
    """What a connection sends after DATA."""

    pieces: int

    def read(self, piece: int) -> Deferred[bytes]:
        """Piece number `piece`, from 0."""


class ContentGone(Exception):
    """The job has been removed from the queue meanwhile."""


class StoredContent:
    """The content of a claim."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self.pieces = claim.pieces
        self._store = store
        self._claim = claim

    def read(self, piece: int) -> Deferred[bytes]:
        """Piece number `piece`; at once where the claim has the whole content with it. Fails with `ContentGone`."""
        if self._claim.content is not None:
            return succeed(self._claim.content)
        return self._store.read(self._claim, piece).add_errback(_gone)


def _gone(failure: Failure) -> NoReturn:
    failure.trap(LookupError)
    raise ContentGone(str(failure.value))
