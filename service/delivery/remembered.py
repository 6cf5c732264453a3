"""What is remembered of a host for an hour, so that the next messages need not find it out anew."""

from __future__ import annotations

from typing import Final

from deferred.interfaces import TimeSource

Key = tuple[str, str]
"""The names of a site and of a host."""

_FOR: Final = 3600.0


class ForAnHour:
    """The hosts of which one certain thing is remembered."""

    def __init__(self, clock: TimeSource) -> None:
        self._clock = clock
        self._until: dict[Key, float] = {}

    def add(self, key: Key) -> None:
        """It is so, and remembered for an hour from now."""
        self._until[key] = self._clock.time() + _FOR

    def __contains__(self, key: Key) -> bool:
        return self._until.get(key, 0.0) > self._clock.time()

    def clear(self) -> None:
        """Forget all of them."""
        self._until.clear()
