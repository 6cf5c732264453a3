"""Whether a file in new/ is whole, where the kernel does not say if somebody still writes it.

It says so by a lease, for files of our own, and for all where we have CAP_LEASE. A file of another user's is known to
be whole when its writer was seen to close it. Where nobody was, it has to have stayed the same: for ten minutes where
it was created before our eyes, as its writer will be seen to close it (but one that was linked into new/ has none), and
else for some seconds: a scan has found it, and its writer may have been there before us.
"""

from __future__ import annotations

from typing import Final

from deferred.interfaces import TimeSource
from service.queue.drop import Identity

_A_MOMENT: Final = 1.0
_FOUND: Final = 10.0
_CREATED: Final = 600.0


class Stillness:
    """For how long names in new/ have stood for the same file, with the same content."""

    def __init__(self, clock: TimeSource) -> None:
        self._clock = clock
        self._created: set[str] = set()  # and not seen to be closed
        self._seen: dict[str, tuple[Identity, float]] = {}

    def noticed(self, name: str, closed: bool) -> None:
        """The name has come; or whoever wrote the file has closed it, or renamed it into place."""
        if closed:
            self._created.discard(name)
        else:
            self._created.add(name)

    def forget(self, name: str) -> None:
        """The name is no more, or is being taken."""
        self._created.discard(name)
        self._seen.pop(name, None)

    def is_whole(self, name: str, identity: Identity) -> bool:
        """Whether a file that nobody was seen to close may be taken. Else ask again after a while."""
        if name in self._created:
            return self.has_lasted(name, identity, _CREATED)
        age = self._clock.wall_time() - identity.mtime_ns / 1e9
        return self.has_lasted(name, identity, _A_MOMENT if age > _FOUND else _FOUND)

    def has_lasted(self, name: str, identity: Identity, seconds: float = _A_MOMENT) -> bool:
        """Whether the name has stood for the same for so long, as far as was seen."""
        now = self._clock.time()
        before, since = self._seen.get(name, (identity, now))
        if before != identity:
            since = now
        self._seen[name] = identity, since
        return now - since >= seconds
