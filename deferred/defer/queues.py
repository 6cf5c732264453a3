"""A queue whose `get` is a Deferred."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from deferred.defer.deferred import Deferred
from deferred.defer.errors import QueueOverflow, QueueUnderflow
from deferred.defer.results import succeed

T = TypeVar("T")


class DeferredQueue(Generic[T]):
    """First in, first out: `pending` objects wait for a taker, or `waiting` takers for an object.

    At most `size` objects and `backlog` takers may wait; None is no limit, and 0 none at all.
    """

    def __init__(self, size: int | None = None, backlog: int | None = None) -> None:
        self.size = size
        self.backlog = backlog
        self.pending: deque[T] = deque()
        self.waiting: deque[Deferred[T]] = deque()

    def put(self, item: T) -> None:
        """Give `item` to who waits longest, or keep it. Raises `QueueOverflow`."""
        if self.waiting:
            self.waiting.popleft().callback(item)
        elif self.size is None or len(self.pending) < self.size:
            self.pending.append(item)
        else:
            raise QueueOverflow(f"{self.size} objects are waiting already")

    def get(self) -> Deferred[T]:
        """Fires with the oldest object. Cancelling gives up the place in the queue. Raises `QueueUnderflow`."""
        if self.pending:
            return succeed(self.pending.popleft())
        if self.backlog is not None and len(self.waiting) >= self.backlog:
            raise QueueUnderflow(f"{self.backlog} takers are waiting already")
        deferred: Deferred[T] = Deferred(self.waiting.remove)
        self.waiting.append(deferred)
        return deferred
