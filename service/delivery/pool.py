"""How many conversations there may be, and the connections kept for the next one.

Decide, then act: nothing here does I/O or reads a clock. Each call changes the state and returns what is to be closed;
the caller closes it. A slot is a licence for one conversation:

    enter -> (take)? -> (keep | retire)? -> leave

A connection is busy in a slot, kept, or closing: that takes as long as the server takes to say goodbye, and until it is
`gone` it counts, as no limit is to be exceeded on the server's side either.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Generic, TypeVar

from config.settings import Limits

C = TypeVar("C")

_MOST: Final = 9
"""Times as many slots as are free are taken, by all sites together."""


@dataclass
class _Site(Generic[C]):
    busy: int = 0
    used: int = 0
    """Slots that it has, busy or with a connection that is closing."""
    idle: list[C] = field(default_factory=list)


class Pool(Generic[C]):
    """Slots and kept connections (of type `C`, which only needs to be hashable) for each site.

    The more a site has, the more it has to leave free: where N sites have slots, none takes another unless it has less
    than an Nth part of 9 times what is left then. So one site alone gets nine tenths of all, many get equal shares,
    and always about a tenth is left for whoever has less than the others. It is as switches share their memory among
    queues (Choudhury and Hahne's dynamic thresholds): nobody needs to be told to give anything back.
    """

    def __init__(self, limits: Limits, idle: float) -> None:
        self._sites: dict[str, _Site[C]] = {}
        self._kept: OrderedDict[C, tuple[str, float]] = OrderedDict()  # oldest first: site, when to close
        self._closing: dict[C, str] = {}
        self._busy = 0
        self._users = 0  # sites that have slots
        self.configure(limits, idle)

    def configure(self, limits: Limits, idle: float) -> None:
        """Go by these limits and this idle time (seconds) from now on; what is open stays open."""
        self._limits = limits
        self._idle = idle

    @property
    def busy(self) -> int:
        """Conversations under way."""
        return self._busy

    @property
    def idle(self) -> int:
        """Connections kept."""
        return len(self._kept)

    def busy_at(self, site: str) -> int:
        """Conversations under way with one site."""
        found = self._sites.get(site)
        return found.busy if found else 0

    @property
    def free(self) -> int:
        """How many conversations more there may be, in all."""
        return max(0, self._limits.connections - self._busy - len(self._closing))

    def unused_at(self, site: str) -> bool:
        """Whether this site has neither a conversation nor a connection."""
        return site not in self._sites

    def full_at(self, site: str, most: int) -> bool:
        """Whether this site has all the conversations that it may have, `most` of them."""
        return self._used(site) >= most

    def room(self, site: str, most: int) -> int:
        """How many conversations more this site may begin now, where it may have `most`."""
        used, free = self._used(site), self.free
        users = self._users + (used == 0)
        # the first in any case, then each while used * users < 9 * (free - 1), both as they are by then
        fair = -(-(_MOST * (free - 1) - used * users) // (_MOST + users))
        return max(0, min(most - used, max(fair, 1 if used == 0 else 0), free))

    def exceeds(self, site: str, most: int) -> bool:
        """Whether this site has more conversations than it may have, `most` of them: these have become fewer."""
        return self._used(site) > most

    def keeps(self, site: str) -> bool:
        """Whether this site, if it gave one of its slots back, might take it again though others want it."""
        return (self._used(site) - 1) * self._users < _MOST * self.free

    def _used(self, site: str) -> int:
        found = self._sites.get(site)
        return found.used if found else 0

    def enter(self, site: str) -> None:
        """Take a slot."""
        found = self._at(site)
        if not found.used:
            self._users += 1
        found.busy += 1
        found.used += 1
        self._busy += 1

    def leave(self, site: str) -> None:
        """Give a slot back."""
        found = self._sites[site]
        found.busy -= 1
        found.used -= 1
        self._busy -= 1
        if not found.used:
            self._used_no_more(site, found)

    def take(self, site: str) -> C | None:
        """A kept connection to this site, the one last used; None where there is none."""
        found = self._sites.get(site)
        if found is None or not found.idle:
            return None
        connection = found.idle.pop()
        del self._kept[connection]
        return connection

    def make_room(self) -> list[C]:
        """Before one more is opened: the kept connections, idle longest, that must make way for it."""
        closing = []
        while self._kept and self._busy + len(self._kept) + len(self._closing) > self._limits.connections:
            closing.append(self._drop(next(iter(self._kept))))
        return closing

    def keep(self, site: str, connection: C, messages: int, now: float) -> bool:
        """Keep a connection that has carried `messages`, until `now` plus the idle time; False if it is worn out."""
        if connection in self._kept:
            return True
        if messages >= self._limits.messages_per_connection or self._idle <= 0:
            return False
        self._at(site).idle.append(connection)
        self._kept[connection] = (site, now + self._idle)
        return True

    def retire(self, site: str, connection: C) -> None:
        """A connection is about to be closed, and counts until it is gone."""
        found = self._at(site)
        if not found.used:
            self._users += 1
        found.used += 1
        self._closing[connection] = site

    def gone(self, connection: C) -> None:
        """A connection was lost; harmless if it was neither kept nor closing."""
        if connection in self._kept:
            self._drop(connection)
        site = self._closing.pop(connection, None)
        if site is not None:
            found = self._sites[site]
            found.used -= 1
            if not found.used:
                self._used_no_more(site, found)

    def expire(self, now: float) -> list[C]:
        """The kept connections whose idle time is over."""
        expired = takewhile(lambda kept: kept[1][1] <= now, self._kept.items())
        return [self._drop(connection) for connection, _ in list(expired)]

    def next_expiry(self) -> float | None:
        """When the first kept connection's idle time is over."""
        return next(iter(self._kept.values()))[1] if self._kept else None

    def empty(self, site: str | None = None) -> list[C]:
        """Every kept connection, or (with a site) every one to it: all are to be closed."""
        found = self._sites.get(site) if site is not None else None
        kept = self._kept if site is None else found.idle if found else ()
        return [self._drop(connection) for connection in list(kept)]

    def _drop(self, connection: C) -> C:
        site, _ = self._kept.pop(connection)
        found = self._sites[site]
        found.idle.remove(connection)
        if not found.used and not found.idle:
            del self._sites[site]
        return connection

    def _at(self, site: str) -> _Site[C]:
        found = self._sites.get(site)
        if found is None:
            found = self._sites[site] = _Site()
        return found

    def _used_no_more(self, site: str, found: _Site[C]) -> None:
        """The site has none of the slots any more; where it has no connection either, nothing is known of it."""
        self._users -= 1
        if not found.idle:
            del self._sites[site]
