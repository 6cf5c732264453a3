"""Messages of one site that are claimed and not begun yet, so that the next is at hand when a conversation ends.

There are few of them, a moment's work: what is claimed can no longer be overtaken by the queue, and would count as
perhaps sent if the daemon died.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from service.queue.store import PRIORITIES, Claim

_ONE_IN: Final = 10  # goes to who has waited longest, whatever its priority


class Stock:
    """A queue for each priority."""

    __slots__ = ("_count", "_queues", "taken")

    def __init__(self) -> None:
        # lists, not deques: an empty deque has 600 octets, and most sites are many and short of work
        self._queues: tuple[list[Claim], ...] = tuple([] for _ in PRIORITIES)
        self._count = 0
        self.taken = 0
        """Messages that were taken so far."""

    def __len__(self) -> int:
        return self._count

    def add(self, claims: Sequence[Claim]) -> None:
        """Put these behind those of their priority."""
        for claim in claims:
            self._queues[PRIORITIES.index(claim.priority)].append(claim)
        self._count += len(claims)

    def take(self) -> Claim:
        """The next one: of the highest priority, and now and then the one that was claimed first. Raises `IndexError`
        where there is none."""
        self.taken += 1
        if not self._count:
            raise IndexError("nothing is in stock")
        waiting = filter(None, self._queues)
        queue = next(waiting) if self.taken % _ONE_IN else min(waiting, key=lambda queue: queue[0].lease)
        self._count -= 1
        return queue.pop(0)

    def clear(self) -> list[Claim]:
        """Take all of them."""
        claims = [claim for queue in self._queues for claim in queue]
        for queue in self._queues:
            queue.clear()
        self._count = 0
        return claims


def octets(claims: Iterable[Claim]) -> int:
    """Of these messages' content, as far as it is in memory."""
    return sum([len(claim.content or b"") for claim in claims])
